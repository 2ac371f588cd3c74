"""The exponential moving average of the trained weights, sharded as they are.

Averaged weights often score better than the last ones, and cost a copy of the trained weights in fp32 and one pass
over them a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["EMA"]


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
