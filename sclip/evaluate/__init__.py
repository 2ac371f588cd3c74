"""Score models on benchmark files and on held-out shards."""
