"""Stream samples from shards to the training workers: find, count, order, read, clean, encode and batch them."""
