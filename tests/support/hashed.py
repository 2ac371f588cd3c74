"""Features that follow from names alone, so that another program can make the same ones."""

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
    """Return a unit vector of 32 numbers: the bytes of the name's SHA-256 less their middle."""
    numbers = torch.tensor(list(hashlib.sha256(name.encode()).digest()), dtype=torch.float64) - 127.5
    return (numbers / numbers.norm()).float()


def name_of(picture: Picture) -> str:
    """Return the file's name, of a row of a table with its column and number."""
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
