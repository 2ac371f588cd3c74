"""Blocks as the stream's encoders yield them, built from the places of their rows, for tests of the stream's end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.columns import Marker, Note

Columns = dict[str, NDArray[Any]]
Row = tuple[int, int, int]
"""Entry, place and status of a row. An END row has the place of its shard's last row and comes before that row."""

BLANK: Columns = {
    col.IMAGE: np.zeros((3, 2, 2), np.uint8),
    col.TEXT: np.array([7, 8, 0], np.int32), col.NEGATIVE_TEXT: np.array([7, 8, 0], np.int32),
    col.TRIPLES: np.full((1, 3, 2), -1, np.int32), col.NEGATIVE_TRIPLES: np.full((1, 3, 2), -1, np.int32),
    col.HAS_NEGATIVE: np.array(False), col.IMAGE_DIGEST: np.array(-1, np.int64),
}  # fmt: skip


def tar_index(place: int) -> int:
    """Return the index in its shard of the row at a place; neighbors are swapped, as a shuffling reader does."""
    return place ^ 1


def samples(entry: int, count: int, first: int = 0) -> list[Row]:
    return [(entry, place, col.SAMPLE) for place in range(first, first + count)]


def note_of(rows: Sequence[Row], index_of: Callable[[int], int] = tar_index) -> Note:
    """Return the note of an encoder call on the rows: a marker for each row that is not a sample."""
    markers = [
        Marker(
            entry, place, place + 1 if status == col.END else index_of(place), status, f"key{place}",
            "not a picture" if status == col.REJECTED else "",
        )
        for entry, place, status in rows if status != col.SAMPLE
    ]  # fmt: skip
    upto = rows[-1][1] + (rows[-1][2] != col.END) if rows else 0
    return Note(markers, upto=upto, samples=sum(status == col.SAMPLE for *_, status in rows))


def placed(rows: Sequence[Row], index_of: Callable[[int], int] = tar_index) -> Columns:
    """Return the columns of a block except the model's; a block without samples has one NO_SAMPLE row."""
    places = [row[:2] for row in rows if row[2] == col.SAMPLE] or [(0, col.NO_SAMPLE)]
    notes = [note_of(rows, index_of).to_json()] + [""] * (len(places) - 1)
    return {
        col.ENTRY: np.array([entry for entry, _ in places], np.int64),
        col.PLACE: np.array([place for _, place in places], np.int64),
        col.INDEX: np.array([index_of(max(place, 0)) for _, place in places], np.int64),
        col.NOTE: np.array(notes, object),
    }


def block(rows: Sequence[Row]) -> Columns:
    """Return a block in which every value of a row's model columns follows from the row's place."""
    columns = placed(rows)

    def filled(name: str) -> NDArray[Any]:
        return np.stack([np.full_like(BLANK[name], value_of(place)) for place in columns[col.PLACE]])

    return columns | {name: filled(name) for name in col.MODEL_COLUMNS}


def value_of(place: int) -> int:
    return place % 100 + 1
