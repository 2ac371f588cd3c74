"""Use models outside of training: open one by any of its names, score with it, convert it."""
