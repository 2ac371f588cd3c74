"""The exponential moving average of the trained weights, sharded as they are.

Averaged weights often score better than the last ones, and cost a copy of the trained weights in fp32 and one pass
over them a step.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

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

    def update(self, step: int) -> None:
        """Move the averages towards the weights after optimizer step number `step`, from 1 on.

        The first steps keep less, (1 + step) / (10 + step), or a short run would end near its random start.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = [_local(p.detach()) for p in self._parameters]
        get_ema_multi_avg_fn(decay)(self._averages, parameters, step)  # type: ignore[no-untyped-call]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
