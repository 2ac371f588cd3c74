"""Apply activation checkpointing and torch.compile to the repeated blocks of the towers and of the knowledge encoder.

Each block of a plain model gets another `forward`. No module is wrapped, so parameters keep their names. FSDP2's hooks
run outside of that `forward`, so the compiler does not see them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from sclip.config import TrainConfig
from sclip.model.towers import block_lists

__all__ = ["change_forward"]

_aten = torch.ops.aten
_KEPT = [
    _aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default, _aten.convolution.default,
    _aten._scaled_dot_product_flash_attention.default, _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default, _aten._scaled_dot_product_flash_attention_for_cpu.default,
]  # fmt: skip
"""Operators with nearly all FLOPs. Selective checkpointing keeps only their results."""


def _keep(_: Any, operator: Any, first: Any = None, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    # An addmm whose first operand is a matrix, not a bias, adds a low-rank update to a weight (`sclip.model.lora`).
    is_weight = operator is _aten.addmm.default and first.ndim == 2
    return (
        CheckpointPolicy.MUST_SAVE
        if operator in _KEPT and not is_weight
        else CheckpointPolicy.PREFER_RECOMPUTE
    )


def change_forward(
    model: nn.Module, config: TrainConfig, backend: str | Callable[..., Any] = "inductor"
) -> None:
    """Apply `train.activation_checkpointing` and `train.compile` to the innermost blocks, before `fully_shard`."""
    if config.activation_checkpointing == "none" and not config.compile:
        return
    for name, blocks in block_lists(model).items():
        forwards: dict[type[nn.Module], Callable[..., Any]] = {}
        for block in blocks:
            if block_lists(block):
                continue
            kind = type(block)
            if kind not in forwards:
                forwards[kind] = _forward(kind, name, config, backend)
            # A bound method, not a closure over the block, so that a deep copy of the model uses its own weights.
            block.forward = MethodType(forwards[kind], block)


def _forward(
    kind: type[nn.Module], name: str, config: TrainConfig, backend: str | Callable[..., Any]
) -> Callable[..., Any]:
    """Return the forward function for blocks of class `kind` in the list `name`. Its first argument is the block."""
    forward: Callable[..., Any] = kind.forward
    if config.activation_checkpointing != "none":
        forward = _checkpointed(forward, config.activation_checkpointing == "selective")
    return torch.compile(_own_copy(forward, name), backend=backend) if config.compile else forward


def _checkpointed(forward: Callable[..., Any], selective: bool) -> Callable[..., Any]:
    options: dict[str, Any] = {"use_reentrant": False}
    if selective:
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _keep)

    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, **options, **kwargs)

    return checkpointed


def _own_copy(forward: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return `forward` as a function with a code object of its own, so that each tower is compiled separately."""
    # For a code object that two towers share, the compiler would make versions for any size of inputs.

    def run(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    code = run.__code__.replace(co_name=f"forward_of_{name.replace('.', '_')}")
    return FunctionType(code, run.__globals__, closure=run.__closure__)
