"""How each of the repeated blocks of the towers and of the KEE is computed: again backward, or compiled.

A plain model goes in; its blocks get another `forward`, and nothing else of it changes: no module is wrapped, so
that parameters keep their names in optimizers, checkpoints and averages. The hooks of FSDP2, which gather a block's
parameters and cast its inputs, stay outside of that `forward`, so the compiler sees none of them.
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
from sclip.model.blocks import block_lists

__all__ = ["change_forward"]

_aten = torch.ops.aten
_KEPT = [
    _aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default, _aten.convolution.default,
    _aten._scaled_dot_product_flash_attention.default, _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default, _aten._scaled_dot_product_flash_attention_for_cpu.default,
]  # fmt: skip
"""Whose results selective checkpointing keeps: nearly all of a block's FLOPs; norms, GELU and sums are made again."""


def _keep(_: Any, operator: Any, first: Any = None, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    # An addmm onto a matrix, where a layer's has a bias, sums a weight and its low-rank update (`sclip.model.lora`).
    is_weight = operator is _aten.addmm.default and first.ndim == 2
    return (
        CheckpointPolicy.MUST_SAVE
        if operator in _KEPT and not is_weight
        else CheckpointPolicy.PREFER_RECOMPUTE
    )


def change_forward(
    model: nn.Module, config: TrainConfig, backend: str | Callable[..., Any] = "inductor"
) -> None:
    """Let the blocks compute as `train.activation_checkpointing` and `train.compile` say; before `fully_shard`.

    `backend` is torch.compile's. Blocks that hold other blocks are left alone: these do it.
    """
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
            # A method and not a function of this block's own: a deep copy of the model then computes with its own
            # weights.
            block.forward = MethodType(forwards[kind], block)


def _forward(
    kind: type[nn.Module], name: str, config: TrainConfig, backend: str | Callable[..., Any]
) -> Callable[..., Any]:
    """Return the forward of the blocks of one kind in the list of this name, to be called with the block first."""
    forward: Callable[..., Any] = kind.forward
    if config.activation_checkpointing != "none":
        forward = _checkpointed(forward, config.activation_checkpointing == "selective")
    return torch.compile(_of_its_own(forward, name), backend=backend) if config.compile else forward


def _checkpointed(forward: Callable[..., Any], selective: bool) -> Callable[..., Any]:
    options: dict[str, Any] = {"use_reentrant": False}
    if selective:
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _keep)

    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, **options, **kwargs)

    return checkpointed


def _of_its_own(forward: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the forward as a function whose code no other list of blocks has.

    The compiler keeps what it has made by code object, 8 versions of each, and takes a size that has changed
    between two calls of it for one that always does. Towers of one class would fill up and spoil each other's.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    code = run.__code__.replace(co_name=f"forward_of_{name.replace('.', '_')}")
    return FunctionType(code, run.__globals__, closure=run.__closure__)
