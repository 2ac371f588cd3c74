"""The audit of a run: that every row of every visit was trained on exactly once, in the step that the seed gives it.

It reads the tars, the ledger and the quarantine, and shares with what it judges the definition of the order alone
(`sclip.data.schedule`, `sclip.data.order`): neither the reader of shards nor the run's own account.
"""
