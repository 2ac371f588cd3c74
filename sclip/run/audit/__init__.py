"""Audit a run: check that every row of every visit was trained on exactly once, in the step that the seed gives it.

A visit is one pass over one shard. The audit reads the tars, the ledger and the quarantine. It shares only the
definition of the order with training (`sclip.data.schedule`, `sclip.data.order`). It uses neither the shard reader of
training nor the run's own counts.
"""
