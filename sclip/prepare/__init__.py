"""Prepare shards before a run: pack, annotate, filter, exclude, validate and count; generate the default scenes."""
