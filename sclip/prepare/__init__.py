"""Work on shards before a run: pack, annotate, exclude, validate, take statistics; the generated scenes."""
