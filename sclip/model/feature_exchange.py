"""Gather features of all ranks differentiably.

This rank's rows go in; the rows of all ranks come out. In backward, each rank gets its rows' gradients summed over all
ranks. Every rank must call these functions the same number of times.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather", "gather_with_gradient", "world"]


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
    # A view is a node of its own for autograd, so one rank adds up gradients in the same order as several.
    return _Gather.apply(local) if world()[1] > 1 else local.view_as(local)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return gather(local)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        local = gradient.new_empty(gradient.shape[0] // dist.get_world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(local, gradient)
        return local
