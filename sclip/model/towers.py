"""Inspect the towers of an open_clip CLIP: the repeated blocks of any tower, and the parts of the text tower.

The text tower is the CLIP itself or its `text`, which may be a Hugging Face model. Its position embeddings can be
fitted to another context length.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.hf_model import ClsPooler, HFTextEncoder
from torch import Tensor, nn

__all__ = [
    "KEPT",
    "block_lists",
    "fitted_positions",
    "is_hub_tower",
    "never_empty",
    "sizes",
    "skip_unread_tokens",
    "text_tower",
    "unpackable",
    "word_table",
]

KEPT = 20
"""Positions that stretching leaves alone. Later ones are trained less: few of CLIP's training captions are longer."""

_BLOCK_LISTS = ("resblocks", "blocks", "layers", "layer", "block")
"""Names of block lists in open_clip, timm, the KEE, and Hugging Face's BERT and T5."""


def block_lists(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Return the blocks of each list by the list's module name. Inner lists come first, as `fully_shard` requires."""
    lists: dict[str, list[nn.Module]] = {}
    for name, module in reversed(list(model.named_modules())):
        *parents, own = name.split(".")
        if "block" in parents:  # T5 keeps the parts of each block in a list, too
            continue
        if isinstance(module, nn.ModuleList | nn.Sequential) and own in _BLOCK_LISTS:
            blocks = [block for block in module if any(True for _ in block.parameters())]
            if blocks:
                lists[name] = blocks
    return lists


def text_tower(clip: Any) -> Any:
    """Return the module that holds the word table and the text Transformer: the CLIP itself or its `text`."""
    return clip if hasattr(clip, "token_embedding") else clip.text


def is_hub_tower(text: nn.Module) -> bool:
    """Return whether the tower is a model from Hugging Face's transformers."""
    return isinstance(text, HFTextEncoder)


class _FirstToken(ClsPooler):  # type: ignore[misc]
    """ClsPooler under another type: for exactly ClsPooler, HFTextEncoder copies tokens that nothing reads."""


def skip_unread_tokens(text: nn.Module) -> None:
    """Stop a Hugging Face tower from copying tokens that nothing reads; leave other towers alone."""
    # How many tokens are copied depends on values, which a dry run on fake tensors does not have.
    if is_hub_tower(text) and type(text.pooler) is ClsPooler:
        text.pooler.__class__ = _FirstToken


def word_table(text: Any) -> nn.Embedding:
    """Return the table [V, W] of word embeddings."""
    table: nn.Embedding = (
        text.transformer.get_input_embeddings() if is_hub_tower(text) else text.token_embedding
    )
    return table


def sizes(text: Any) -> tuple[int, int, int]:
    """Return (width, number of blocks, feature width) of a text tower."""
    if is_hub_tower(text):
        layers = max(len(blocks) for blocks in block_lists(text.transformer).values())
        return word_table(text).embedding_dim, layers, int(text.output_dim)
    width, projection = int(text.transformer.width), text.text_projection
    if projection is None:
        features = width
    else:
        features = projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]
    return width, len(text.transformer.resblocks), int(features)


def unpackable(text: Any) -> str:
    """Return the reason why a text tower cannot take packed captions; "" if packing leaves the features unchanged.

    Packing needs causal attention and a feature taken at the end token, so that no token of the caption sees padding.
    It also needs torch's own attention module, which takes a mask that separates captions.
    """
    if is_hub_tower(text):
        return "a Hugging Face tower takes no mask that separates the captions of a row"
    if getattr(text, "cls_emb", None) is not None:
        return "the feature is taken at a class token after the padding"
    if getattr(text, "attn_mask", None) is None:
        return "attention is not causal, so that every token sees the padding"
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    if pool not in ("argmax", "eos"):
        return f"the feature is not taken at the end token (pool_type={pool})"
    attention = [block.attn for block in text.transformer.resblocks]
    if not all(isinstance(module, nn.MultiheadAttention) and module.batch_first for module in attention):
        return "attention is computed by another module than torch's own"
    return ""


def never_empty(text: Tensor) -> Tensor:
    """Return the ids [N, L], with 1 as first id of an absent text (zeros): a mean over no token would be NaN."""
    first = text[:, :1].masked_fill(~text.any(1, keepdim=True), 1)
    return torch.cat([first, text[:, 1:]], dim=1)


def fitted_positions(positions: Tensor, length: int) -> Tensor:
    """Return position embeddings [length, W] made from [L, W]: cut if `length` is smaller than L, else stretched.

    Stretching follows Long-CLIP (Zhang et al., ECCV 2024; github.com/beichenzbc/Long-CLIP, `load_from_clip` in
    model/longclip.py). The embedding of a position p from `KEPT` on is interpolated at KEPT + (p - KEPT) / r, with r =
    (length - KEPT) / (L - KEPT). Beyond the last embedding, the line through the last two is extended. As in Long-CLIP,
    r = 4 turns 77 positions into 248. Raises ValueError if fewer than two positions follow the first `KEPT`.
    """
    rows = len(positions)
    if length <= rows:
        return positions[:length].clone()
    if rows < KEPT + 2:
        raise ValueError(f"{rows} positions, too few to stretch: at least {KEPT + 2} are needed")
    old = positions.double()
    places = torch.arange(length - KEPT, dtype=torch.float64, device=old.device)
    points = KEPT + places * (rows - KEPT) / (length - KEPT)
    left = points.long().clamp(max=rows - 2)
    behind = torch.lerp(old[left], old[left + 1], (points - left)[:, None])
    return torch.cat([old[:KEPT], behind]).to(positions.dtype)
