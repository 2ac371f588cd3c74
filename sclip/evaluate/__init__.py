"""Evaluation: benchmark files and shards in, scores by name out."""
