"""Read the files of benchmarks as their authors publish them, with one module for each format."""
