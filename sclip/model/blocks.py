"""The repeated blocks of the towers and of the KEE, by the names of the lists that hold them."""

from __future__ import annotations

from torch import nn

__all__ = ["block_lists"]

_LISTS = ("resblocks", "blocks", "layers", "layer", "block")
"""What open_clip, timm (in each stage of a convolutional tower; Swin's "layers"), the KEE, and Hugging Face's BERTs and
T5s call theirs."""


def block_lists(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Return the blocks of each list by its name, inner lists first, as `fully_shard` wants them."""
    lists: dict[str, list[nn.Module]] = {}
    for name, module in reversed(list(model.named_modules())):
        *parents, own = name.split(".")
        if "block" in parents:  # a T5's block holds its parts in a list
            continue
        if isinstance(module, nn.ModuleList | nn.Sequential) and own in _LISTS:
            blocks = [block for block in module if any(True for _ in block.parameters())]
            if blocks:
                lists[name] = blocks
    return lists
