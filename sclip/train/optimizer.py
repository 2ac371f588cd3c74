"""The optimizer over a wrapped model's parameters, and its learning rate over a run.

A model as `sharding.apply` returned it goes in, AdamW over its pieces comes out; the share of the run's samples
that are trained goes in, the rate comes out.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from sclip.config import TrainConfig
from sclip.model.parts import Part, part_of

__all__ = ["learning_rate", "lr_scale", "make_optimizer"]


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
