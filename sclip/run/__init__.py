"""The life of a run: pretrain, finish, score, sweep, ablation, audit, inspection, signals and logs."""
