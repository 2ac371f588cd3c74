"""Exchange features between ranks differentiably: in one all-gather, or rank by rank in the sigmoid loss's ring.

This rank's rows go in; other ranks' rows come out. In backward, gradients travel the opposite way, and each rank gets
the gradient of its rows summed over all ranks. Every rank must call these functions the same number of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather", "gather_with_gradient", "ring_with_gradient", "world"]


def world() -> tuple[int, int]:
    """Return (rank, world size); (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather(local: Tensor) -> Tensor:
    """Return the rows [N, ...] of all ranks in rank order, given this rank's rows [B, ...]. Passes no gradient."""
    if world()[1] == 1:
        return local
    local = local.contiguous()
    gathered = local.new_empty(local.shape[0] * dist.get_world_size(), *local.shape[1:])
    dist.all_gather_into_tensor(gathered, local)
    return gathered


def gather_with_gradient(local: Tensor) -> Tensor:
    """Return the rows [N, ...] of all ranks in rank order, given this rank's rows [B, ...]. Passes gradients."""
    return _Gather.apply(local) if world()[1] > 1 else local


def ring_with_gradient(local: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (rank, its rows [B, ...]) for every rank, this rank first. Passes gradients (SigLIP, section 3.3)."""
    rank, world_size = world()
    yield rank, local
    for step in range(1, world_size):
        local = _PassOn.apply(local)
        yield (rank - step) % world_size, local


class _Gather(torch.autograd.Function):
    """All-gather. Its backward gives each rank the gradient of the rank's own rows, summed over all ranks."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return gather(local)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        local = gradient.new_empty(gradient.shape[0] // dist.get_world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(local, gradient)
        return local


class _PassOn(torch.autograd.Function):
    """Send rows to the next rank and receive the previous rank's; gradients travel the opposite way."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return _shift(local, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _shift(gradient, -1)


def _shift(local: Tensor, by: int) -> Tensor:
    rank, world_size = world()
    received = torch.empty_like(local, memory_format=torch.contiguous_format)
    operations = [
        dist.P2POp(dist.isend, local.contiguous(), (rank + by) % world_size),
        dist.P2POp(dist.irecv, received, (rank - by) % world_size),
    ]
    for request in dist.batch_isend_irecv(operations):
        request.wait()
    return received
