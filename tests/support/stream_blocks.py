"""Blocks of the stream as the encoders give them, made of the places of their rows: what the tests of its end share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.side_channel import Marker, Note

Columns = dict[str, NDArray[Any]]
Row = tuple[int, int, int]
"""Entry, ordinal and status of a row."""

BLANK: Columns = {
    col.IMAGE: np.zeros((3, 2, 2), np.uint8),
    col.TEXT: np.array([7, 8, 0], np.int32), col.NEGATIVE_TEXT: np.array([7, 8, 0], np.int32),
    col.TRIPLES: np.full((1, 3, 2), -1, np.int32), col.NEGATIVE_TRIPLES: np.full((1, 3, 2), -1, np.int32),
    col.HAS_NEGATIVE: np.array(False), col.IMAGE_DIGEST: np.array(-1, np.int64),
}  # fmt: skip


def tar_index(ordinal: int) -> int:
    """Return the place in its shard of a row that its reader mixed: neighbours are exchanged."""
    return ordinal ^ 1


def samples(entry: int, count: int, first: int = 0) -> list[Row]:
    """Return rows of samples, `count` of them from an ordinal on."""
    return [(entry, ordinal, col.SAMPLE) for ordinal in range(first, first + count)]


def note_of(rows: Sequence[Row], index_of: Callable[[int], int] = tar_index) -> Note:
    """Return the note of an encoder call on the rows: a marker for each that is no sample."""
    markers = [
        Marker(
            entry, ordinal, ordinal if status == col.END else index_of(ordinal), status, f"key{ordinal}",
            "not a picture" if status == col.REJECTED else "",
        )
        for entry, ordinal, status in rows if status != col.SAMPLE
    ]  # fmt: skip
    return Note(markers, samples=sum(status == col.SAMPLE for *_, status in rows))


def placed(rows: Sequence[Row], origin: int = 0, index_of: Callable[[int], int] = tar_index) -> Columns:
    """Return the columns of a block beside those of the model; without a sample, of the one row that says so."""
    places = [row[:2] for row in rows if row[2] == col.SAMPLE] or [(0, col.NO_SAMPLE)]
    notes = [note_of(rows, index_of).to_json()] + [""] * (len(places) - 1)
    return {
        col.ENTRY: np.array([entry for entry, _ in places], np.int64),
        col.ORDINAL: np.array([ordinal for _, ordinal in places], np.int64),
        col.INDEX: np.array([index_of(max(ordinal, 0)) for _, ordinal in places], np.int64),
        col.ORIGIN: np.full(len(places), origin, np.int64),
        col.NOTE: np.array(notes, object),
    }


def block(rows: Sequence[Row], origin: int = 0) -> Columns:
    """Return a block; every value of a row's model columns follows from its ordinal."""
    found = placed(rows, origin)

    def filled(name: str) -> NDArray[Any]:
        return np.stack([np.full_like(BLANK[name], value_of(ordinal)) for ordinal in found[col.ORDINAL]])

    return found | {name: filled(name) for name in col.MODEL_COLUMNS}


def value_of(ordinal: int) -> int:
    """Return what `block` fills the model columns of a row with."""
    return ordinal % 100 + 1
