"""Audit a run: check that each row was trained on exactly once per visit, in the step that the run's order says.

A visit is one pass over one shard. The order follows from the run's seed. The audit reads the tars, the ledger (rows
that each step trained on or filtered) and the quarantine (rows that could not be trained on). It shares only the
definition of the order with training (`sclip.data.schedule`, `sclip.data.order`), not the shard reader.
"""
