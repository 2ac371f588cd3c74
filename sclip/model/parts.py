"""The parts of a model that are configured, measured and sharded on their own, by the names of their parameters."""

from __future__ import annotations

from typing import Literal

from sclip.model.structure_clip import CLIP_PREFIX

__all__ = ["PARTS", "Part", "part_of"]

Part = Literal["image", "text", "kee"]

PARTS: dict[Part, str] = {"image": f"{CLIP_PREFIX}visual.", "text": CLIP_PREFIX, "kee": "kee."}
"""Prefix of the parameters' names of each part; the first that matches counts."""


def part_of(name: str) -> Part | None:
    """Return the part that a parameter of a model, wrapped or not, belongs to; None for the logit scale and bias."""
    plain = name.removeprefix("module.")  # DDP's
    return next((part for part, prefix in PARTS.items() if plain.startswith(prefix)), None)
