"""Training: the step, how the model is spread over workers, its checkpoints, and the Ray Train loop."""
