"""Features computed from names alone, so that another program can compute the same features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from sclip.evaluate.benchmarks import Task
from sclip.evaluate.features import Features
from sclip.evaluate.picture import Picture


def hashed(name: str) -> Tensor:
    """Return a unit vector of 32 numbers: the bytes of the name's SHA-256 minus 127.5, normalized."""
    numbers = torch.tensor(list(hashlib.sha256(name.encode()).digest()), dtype=torch.float64) - 127.5
    return (numbers / numbers.norm()).float()


def name_of(picture: Picture) -> str:
    """Return the picture's file name, or column and row number for a picture in a table."""
    row = "" if picture.sample is None else f"{picture.data.image_field}{picture.sample}"
    return row or Path(picture.path).name


def hashed_features(task: Task) -> Features:
    """Return features for all pictures and captions of a task."""
    pictures = {picture: row for row, picture in enumerate(dict.fromkeys(task.pictures()))}
    captions = {caption: row for row, caption in enumerate(dict.fromkeys(task.captions()))}
    return Features(pictures, captions, _rows(map(name_of, pictures)), _rows(captions), {})


def _rows(names: Iterable[str]) -> Tensor:
    rows = [hashed(name) for name in names]
    return torch.stack(rows) if rows else torch.empty(0, 0)
