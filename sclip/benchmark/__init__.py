"""Benchmarks: programs that measure a part of sclip and its peers on the same machine in the same run."""
