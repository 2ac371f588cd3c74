"""Train low-rank updates of the towers' projections: W + alpha / rank * up @ down replaces W (LoRA, Hu et al. 2021).

A plain model goes in. `add` freezes its towers and gives every attention and MLP projection in their transformer blocks
an update that starts at 0 (one update for a matrix that packs q, k and v). Only the updates, the KEE, and logit scale
and bias are then trained. `merge` adds the updates to the weights and leaves a plain model again.

peft is not used: it needs transformers and accelerate, and in every forward it removes parameters of
nn.MultiheadAttention, which FSDP2 manages. torch's parametrize is not used: it gives every module its own class, so
torch.compile would compile every block and give up after the eighth. Here, modules of one kind share a class whose
property returns the weight plus its update, to all code that reads the weight. The price: a step takes as long as with
all weights trained, and without activation checkpointing the sums stay in memory until backward.
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
from sclip.model.structure_clip import CLIP_PREFIX, StructureCLIP
from sclip.model.towers import block_lists

__all__ = ["LowRank", "add", "has_updates", "is_stored", "merge"]

_UPDATE = "lora"


class LowRank(nn.Module):
    """Update of a matrix [out, in]. `up` [out, rank] starts at 0, so the update changes nothing at first."""

    def __init__(self, weight: Tensor, config: LoRAConfig) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.scale = config.alpha / config.rank
        self.up = nn.Parameter(weight.new_zeros(rows, config.rank))
        self.down = nn.Parameter(weight.new_empty(config.rank, columns))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the matrix plus its update, in the dtype of the matrix."""
        # No autocast: bfloat16 has no number between w and 1.004 w, so it would round small updates away.
        with torch.autocast(weight.device.type, enabled=False):
            return torch.addmm(weight, self.up, self.down, alpha=self.scale)


def add(model: StructureCLIP) -> None:
    """Freeze the towers and add updates to their projections. Raises ModelError if a tower has no transformer block."""
    model.clip.requires_grad_(False)
    for tower, root in (("image", model.clip.visual), ("text", model.text_tower.transformer)):
        projections = list(_projections(root))
        if not projections:
            raise ModelError(
                f"model.lora.rank={model.config.lora.rank}: the {tower} tower of {model.config.name} has no "
                "transformer blocks to update; choose a ViT, or train all weights (model.lora.rank=0)"
            )
        for module, name in projections:
            module.add_module(_UPDATE, LowRank(module._parameters[name], model.config.lora))  # type: ignore[arg-type]
            module.__class__ = _updated(type(module), name)  # type: ignore[arg-type]


@torch.no_grad()
def merge(model: StructureCLIP) -> None:
    """Turn the model back into a plain one: add the updates to its weights and remove them."""
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
    """Return whether a model, wrapped or not, has low-rank updates."""
    return any(isinstance(module, LowRank) for module in model.modules())


def is_stored(name: str) -> bool:
    """Return whether a checkpoint of a LoRA run holds this tensor; the run's starting weights hold the others."""
    return not name.startswith(CLIP_PREFIX) or f".{_UPDATE}." in name


def _projections(tower: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield (module, weight name) for each attention and MLP matrix in the blocks that contain attention."""
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
    """Return a subclass of `kind` whose weight `name` includes the update."""

    def read(self: nn.Module) -> Any:
        weight = self._parameters[name]
        # Outside the block's forward, FSDP2 leaves only a shard. Callers then read its dtype and device, no values.
        update = self._modules[_UPDATE]
        return weight if isinstance(weight, DTensor) or update is None else update(weight)

    return type(kind.__name__, (kind,), {name: property(read), "__module__": kind.__module__})


def _reads(module: nn.Module) -> str:
    # A class that `_updated` made has one property.
    return next(name for name, value in vars(type(module)).items() if isinstance(value, property))
