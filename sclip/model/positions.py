"""Fit the position embeddings of a text tower to another context length."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["KEPT", "fitted"]

KEPT = 20
"""Positions that keep their embeddings. Later ones are trained less: few of CLIP's training captions are longer."""


def fitted(positions: Tensor, length: int) -> Tensor:
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
