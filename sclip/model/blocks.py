"""Find the repeated blocks of towers and KEE by the names of the module lists that hold the blocks."""

from __future__ import annotations

from torch import nn

__all__ = ["block_lists"]

_LISTS = ("resblocks", "blocks", "layers", "layer", "block")
"""Names of block lists in open_clip, timm, the KEE, and Hugging Face's BERT and T5."""


def block_lists(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Return the blocks of each list by the list's module name. Inner lists come first, as `fully_shard` requires."""
    lists: dict[str, list[nn.Module]] = {}
    for name, module in reversed(list(model.named_modules())):
        *parents, own = name.split(".")
        if "block" in parents:  # T5 keeps the parts of each block in a list, too
            continue
        if isinstance(module, nn.ModuleList | nn.Sequential) and own in _LISTS:
            blocks = [block for block in module if any(True for _ in block.parameters())]
            if blocks:
                lists[name] = blocks
    return lists
