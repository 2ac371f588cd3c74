"""Readers of the benchmark authors' own files, one module for each benchmark."""
