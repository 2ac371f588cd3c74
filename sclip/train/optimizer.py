"""The optimizer of a wrapped model, its learning rate over a run, and the average of the weights.

`make_optimizer` takes the model that `sharding.apply` returned, and returns AdamW over this rank's shards.
`learning_rate` maps a run's progress, from 0 to 1, to the rate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sclip.config import TrainConfig
from sclip.model.structure_clip import Part, part_of

__all__ = ["EMA", "learning_rate", "lr_scale", "make_optimizer"]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW over the trained parameters of a wrapped model. Only matrices have weight decay.

    `TrainStep` multiplies the learning rate of each parameter group by the group's "lr_scale".
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((lr_scale(part_of(name), config), decay), []).append(parameter)
    # Sorted, so that groups have the same order on every rank and in every run, whatever the order of modules.
    described = [
        {"params": groups[scale, decay], "lr_scale": scale, "weight_decay": decay}
        for scale, decay in sorted(groups, reverse=True)
    ]
    betas = (0.9, config.beta2)
    return torch.optim.AdamW(described, lr=config.learning_rate, betas=betas, eps=1e-6, fused=True)


def learning_rate(progress: float, config: TrainConfig) -> float:
    """Return the rate at `progress`, the finished share of the run. It rises from 0, then follows the schedule."""
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    passed = min(1.0, (progress - config.warmup) / max(1e-12, 1.0 - config.warmup))
    remaining = 1.0 - passed if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * passed))
    return config.learning_rate * remaining


def lr_scale(part: Part | None, config: TrainConfig) -> float:
    """Return the factor of a part's learning rate (None: logit scale and bias). A part with factor 0 is frozen."""
    return 1.0 if part is None else float(getattr(config, f"lr_scale_{part}"))


class EMA:
    """Moving averages of a model's trained parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the weights of `model`, which `sharding.apply` and then `step.unwrapped` returned."""
        self.decay = decay
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in trained.items()}
        """Averages by parameter name; DTensors if the parameters are."""
        self._averages = [_local(weight) for weight in self.weights.values()]
        self._parameters = list(trained.values())

    @torch.no_grad()
    def update(self, step: int, skipped: Tensor | None = None) -> None:
        """Move the averages toward the weights after optimizer step number `step`, counted from 1.

        An average keeps the share min(`decay`, (1 + step) / (10 + step)) of its old value. If the scalar `skipped` is
        1, the step made no update, and the averages stay as they are.
        """
        # Without the second term, which is smaller in the first updates, a short run would hardly move its averages.
        share = 1.0 - min(self.decay, (1 + step) / (10 + step))
        moved = share if skipped is None else (1.0 - skipped) * share
        for average, parameter in zip(self._averages, self._parameters, strict=True):
            average.lerp_(_local(parameter.detach()), moved)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
