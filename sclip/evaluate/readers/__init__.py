"""Readers of the benchmarks' own files, one module a benchmark."""
