"""Manage the life of a run: pretrain, finish, evaluate, sweep, ablation, inspection, signals and logs."""
