"""Low-rank updates of the towers' projections: W + alpha / rank * up @ down in place of W (LoRA, Hu et al. 2021).

A plain model goes in; `add` freezes its towers and gives every attention and MLP projection of their transformer
blocks an update that starts as 0, `merge` adds what was learned to the weights and leaves a plain model again. Updates,
the KEE, and logit scale and bias are what trains. A packed matrix of q, k and v is one matrix with one update.

peft has LoRA too. It needs transformers and accelerate, and of nn.MultiheadAttention it merges and removes parameters
in every forward, which FSDP2 has already taken over. torch's parametrize renames the weights of the start, and gives
every module a class of its own, so that torch.compile would compile every block and give up after the eighth. Here a
weight is read through a property of a class that all modules of a kind share. So attention gets the sum whoever reads
the weight: torch's fused attention, open_clip's and timm's own. The price: a step takes as long as training all
weights, and without activation checkpointing the sums are kept for backward.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sclip.config import LoRAConfig
from sclip.model.architecture import ModelError
from sclip.model.blocks import block_lists
from sclip.model.structure_clip import CLIP_PREFIX, StructureCLIP

__all__ = ["LowRank", "add", "has_updates", "is_stored", "merge"]

_UPDATE = "lora"
"""Name of a projection's `LowRank`; what it is added to keeps its own name."""


class LowRank(nn.Module):
    """An update of a matrix [out, in]; `up` [out, rank] starts as 0, so that the sum starts as the matrix itself."""

    def __init__(self, weight: Tensor, config: LoRAConfig) -> None:
        """Draw `down` [rank, in] as torch draws a linear layer's weights, on the device of the matrix."""
        super().__init__()
        rows, columns = weight.shape
        self.scale = config.alpha / config.rank
        self.up = nn.Parameter(weight.new_zeros(rows, config.rank))
        self.down = nn.Parameter(weight.new_empty(config.rank, columns))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the matrix with its update, in the dtype of the matrix.

        Under autocast too: bfloat16 has no step between w and 1.004 w, and would round small updates away.
        """
        with torch.autocast(weight.device.type, enabled=False):
            return torch.addmm(weight, self.up, self.down, alpha=self.scale)


def add(model: StructureCLIP) -> None:
    """Freeze the towers and give their projections updates as `model.config.lora` says.

    Raises ModelError for a tower without transformer blocks.
    """
    model.clip.requires_grad_(False)
    for tower, root in (("image", model.clip.visual), ("text", model.text_tower.transformer)):
        found = list(_projections(root))
        if not found:
            raise ModelError(
                f"model.lora.rank={model.config.lora.rank}: the {tower} tower of {model.config.name} has no "
                "transformer blocks to update; choose a ViT, or train all weights (model.lora.rank=0)"
            )
        for module, name in found:
            module.add_module(_UPDATE, LowRank(module._parameters[name], model.config.lora))  # type: ignore[arg-type]
            module.__class__ = _updated(type(module), name)  # type: ignore[arg-type]


@torch.no_grad()
def merge(model: StructureCLIP) -> None:
    """Add the updates to the weights, and leave a plain model; the inverse of `add` but for what was learned."""
    for module in list(model.modules()):
        if isinstance(update := module._modules.get(_UPDATE), LowRank):
            name = _reads(module)
            weight = module._parameters[name]
            assert weight is not None
            weight.copy_(update(weight))
            module.__class__ = type(module).__base__  # type: ignore[assignment]
            del module._modules[_UPDATE]
    model.config = dataclasses.replace(model.config, lora=LoRAConfig())


def has_updates(model: nn.Module) -> bool:
    """Return whether a model, wrapped or not, has updates."""
    return any(isinstance(module, LowRank) for module in model.modules())


def is_stored(name: str) -> bool:
    """Return whether a checkpoint of a model with updates holds this tensor; the others are those of its start."""
    return not name.startswith(CLIP_PREFIX) or f".{_UPDATE}." in name


def _projections(tower: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Give the modules with the matrices of attention and MLP, and the names of these, of the blocks that attend."""
    for blocks in block_lists(tower).values():
        for block in blocks:
            if block_lists(block) or not any("Attention" in type(part).__name__ for part in block.modules()):
                continue
            for module in block.modules():
                for name in ("weight",) if isinstance(module, nn.Linear) else ("in_proj_weight",):
                    if module._parameters.get(name) is not None:
                        yield module, name


@functools.cache
def _updated(kind: type[nn.Module], name: str) -> type[nn.Module]:
    """Return the class whose instances give the sum where the weight `name` is read."""

    def read(self: nn.Module) -> Any:
        weight = self._parameters[name]
        # Outside of its block's forward FSDP2 leaves a shard: of it dtype and place are asked for, and no value.
        update = self._modules[_UPDATE]
        return weight if isinstance(weight, DTensor) or update is None else update(weight)

    return type(kind.__name__, (kind,), {name: property(read), "__module__": kind.__module__})


def _reads(module: nn.Module) -> str:
    """Return the name of the weight that a class of `_updated` reads with its update."""
    return next(name for name, value in vars(type(module)).items() if isinstance(value, property))
