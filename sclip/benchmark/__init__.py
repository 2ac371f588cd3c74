"""Benchmarks: what a part of sclip does in a second, beside its peers on the same machine in the same run."""
