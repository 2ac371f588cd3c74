"""Position embeddings of a text tower, from one context length to another."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["KEPT", "fitted"]

KEPT = 20
"""First positions that stay as they are: CLIP's captions have seldom more tokens, so the others learned less."""


def fitted(positions: Tensor, length: int) -> Tensor:
    """Return position embeddings [length, W] of [L, W]: the first ones of a longer context, a shorter one's stretched.

    Stretched as Long-CLIP does (Zhang et al., "Long-CLIP: Unlocking the long-text capability of CLIP", ECCV 2024;
    github.com/beichenzbc/Long-CLIP, `load_from_clip` in model/longclip.py): place p below `KEPT` keeps its embedding; a
    later one is read at KEPT + (p - KEPT) / r, r = (length - KEPT) / (L - KEPT), linearly between two neighbours, and
    behind the last of them on the line through the last two. At r = 4, 77 places become 248, as theirs do.

    Raises ValueError where a context to be stretched has less than two places from `KEPT` on.
    """
    held = len(positions)
    if length <= held:
        return positions[:length].clone()
    if held < KEPT + 2:
        raise ValueError(f"{held} positions, of which the first {KEPT} are kept: too few to stretch the rest")
    old = positions.double()
    places = torch.arange(length - KEPT, dtype=torch.float64, device=old.device)
    at = KEPT + places * (held - KEPT) / (length - KEPT)
    left = at.long().clamp(max=held - 2)
    behind = torch.lerp(old[left], old[left + 1], (at - left)[:, None])
    return torch.cat([old[:KEPT], behind]).to(positions.dtype)
