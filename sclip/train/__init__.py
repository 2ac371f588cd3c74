"""Training: the step, sharding over workers, checkpoints and the training loop. Nothing here imports Ray."""
