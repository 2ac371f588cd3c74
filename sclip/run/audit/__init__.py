"""The audit of a run: that every row of every visit was trained on exactly once, from the tars and the ledger alone.

It shares no code with what it judges: neither the reader of shards nor the data position nor the run's own counts.
"""
