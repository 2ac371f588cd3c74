"""The optimizer over a wrapped model's parameters, its learning rate over a run, and the average of the weights.

A model as `sharding.apply` returned it goes in, AdamW over its pieces comes out; the share of the run's samples
that are trained goes in, the rate comes out.
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
    """Return AdamW over a wrapped model; matrices decay, vectors, gains, biases and the logit scale do not.

    Each group holds in "lr_scale" what its learning rate is multiplied by; what is frozen is in none.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((lr_scale(part_of(name), config), decay), []).append(parameter)
    # The same order on every rank and in every run, whatever the order of the modules.
    described = [
        {"params": groups[scale, decay], "lr_scale": scale, "weight_decay": decay}
        for scale, decay in sorted(groups, reverse=True)
    ]
    betas = (0.9, config.beta2)
    return torch.optim.AdamW(described, lr=config.learning_rate, betas=betas, eps=1e-6, fused=True)


def learning_rate(progress: float, config: TrainConfig) -> float:
    """Return the rate at `progress`, the share of the run's samples trained: up from 0, then as `config.schedule`.

    Of samples and not of steps, so that a run resumed with another batch size or world size goes on along the
    same curve.
    """
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    passed = min(1.0, (progress - config.warmup) / max(1e-12, 1.0 - config.warmup))
    left = 1.0 - passed if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * passed))
    return config.learning_rate * left


def lr_scale(part: Part | None, config: TrainConfig) -> float:
    """Return the factor of a part's learning rate; 1 for the logit scale and bias, and 0 freezes the part."""
    return 1.0 if part is None else float(getattr(config, f"lr_scale_{part}"))


class EMA:
    """The averages of a wrapped model's trained parameters, from their values at its construction on."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Take the model inside any wrapper, after `sharding.apply`; `decay` is the share kept at each update."""
        self.decay = decay
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in trained.items()}
        """By the parameters' names; DTensors where those are."""
        self._averages = [_local(weight) for weight in self.weights.values()]
        self._parameters = list(trained.values())

    @torch.no_grad()
    def update(self, step: int, skipped: Tensor | None = None) -> None:
        """Move the averages towards the weights after optimizer step number `step`, from 1 on.

        The first steps keep less, (1 + step) / (10 + step), or a short run would end near its random start. `skipped`,
        a scalar of the device, is 1 where that step made no update: then the averages stay as they are, bit for bit.
        """
        share = 1.0 - min(self.decay, (1 + step) / (10 + step))
        moved = share if skipped is None else (1.0 - skipped) * share
        for average, parameter in zip(self._averages, self._parameters, strict=True):
            average.lerp_(_local(parameter.detach()), moved)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
