"""The worker's end of the stream: blocks of rows in, batches of one fixed shape out, and a record of them.

A batch takes an equal part of each of several blocks, so that samples of many shards meet in it. Only the last batch
of a worker is short, and batches after it empty: they are filled up with rows that are not valid, so that a worker
that has run dry takes part in every collective until the others have, too.

`Batches` may run ahead in a thread of its own. `Record` is the loop's alone: it knows of a batch, and of the markers
before it, once the loop has taken it, so that what is fetched ahead is in no checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.position import Position
from sclip.data.side_channel import Note, VisitEnd, read_notes

Columns = dict[str, NDArray[Any]]

_PLACES = (col.ENTRY, col.ORDINAL, col.INDEX)


class StreamMismatch(RuntimeError):
    """The stream was built from another checkpoint than the worker loaded."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Model columns with `valid`, each [width, ...]; the first `rows` rows are samples."""

    columns: Columns
    rows: int
    entries: NDArray[np.int64]
    ordinals: NDArray[np.int64]
    indices: NDArray[np.int64]
    notes: tuple[Note, ...] = ()
    """Of the blocks that were taken in for this batch."""
    queued: float = 0.0
    """Seconds that their samples waited between the encoder and this worker, added up."""


@dataclass(slots=True)
class _Block:
    columns: Columns
    at: int = 0
    """Rows before it are in a batch."""

    @property
    def left(self) -> int:
        return len(self.columns[col.ENTRY]) - self.at

    def take(self, rows: int) -> Columns:
        self.at += rows
        return {name: values[self.at - rows : self.at] for name, values in self.columns.items()}


class Batches:
    """Batches of one worker.

    Args:
        blocks: the columns of `sclip.data.columns`, as `iter_batches(batch_format="numpy")` gives them.
        size: samples of a batch on this worker.
        origin: step of the checkpoint that this worker loaded; 0 for none.
        blank: one row of each model column, which fills up a batch.
        width: rows of a batch, `size` or more: the same on all workers where their sizes differ.
        mixed: blocks that a batch is taken from. The first batches take fewer, so as not to wait for them.
    """

    def __init__(
        self,
        blocks: Iterable[Columns],
        size: int,
        origin: int,
        blank: Columns,
        *,
        width: int = 0,
        mixed: int = 1,
    ) -> None:
        self._blocks: Iterator[Columns] = iter(blocks)
        self._size, self._width, self._origin = size, width or size, origin
        self._blank, self._mixed = blank, mixed
        self._held: list[_Block] = []
        self._notes: list[Note] = []
        self._queued = 0.0
        self._ended = False

    def next(self) -> Batch:
        """Return the next batch; `rows` is 0 once the worker's share of the stream has ended.

        Raises StreamMismatch where the rows come from another checkpoint than the worker loaded.
        """
        while not self._ended and sum(block.left for block in self._held) < self._size:
            self._fetch()
        if not self._ended and len(self._held) < self._mixed:
            self._fetch()
        parts = self._take(self._size)
        columns = {name: self._filled(name, parts) for name in col.MODEL_COLUMNS}
        entries, ordinals, indices = (
            np.concatenate([np.zeros(0, np.int64), *(part[name] for part in parts)]) for name in _PLACES
        )
        rows = len(entries)
        columns[col.VALID] = np.arange(self._width) < rows
        notes, queued = tuple(self._notes), self._queued
        self._notes, self._queued = [], 0.0
        return Batch(columns, rows, entries, ordinals, indices, notes, queued)

    def _fetch(self) -> None:
        block = next(self._blocks, None)
        if block is None:
            self._ended = True
            return
        foreign = block[col.ORIGIN] != self._origin
        if foreign.any():
            raise StreamMismatch(
                f"the stream was built from step {block[col.ORIGIN][foreign][0]}, "
                f"this worker loaded the checkpoint of step {self._origin}"
            )
        for note in read_notes(block[col.NOTE]):
            self._notes.append(note)
            self._queued += note.samples * max(0.0, time.time() - note.made_at)
        names = (*col.MODEL_COLUMNS, *_PLACES)
        samples = block[col.ORDINAL] != col.NO_SAMPLE
        columns = {name: block[name] if samples.all() else block[name][samples] for name in names}
        if samples.any():
            self._held.append(_Block(columns))

    def _take(self, rows: int) -> list[Columns]:
        """Take `rows` rows, or all that there are, an equal part of each block as far as they go."""
        parts = []
        while rows and self._held:
            share = -(-rows // len(self._held))
            for block in self._held:
                part = block.take(min(share, rows, block.left))
                rows -= len(part[col.ENTRY])
                parts.append(part)
            self._held = [block for block in self._held if block.left]
        return parts

    def _filled(self, name: str, parts: list[Columns]) -> NDArray[Any]:
        blank = self._blank[name]
        filled = np.empty((self._width, *blank.shape), blank.dtype)
        at = 0
        for part in parts:
            filled[at : at + len(part[name])] = part[name]
            at += len(part[name])
        filled[at:] = blank
        return filled


@dataclass(slots=True)
class Record:
    """What one worker has done since the last checkpoint: trained on, set aside, left out, and ends of shards.

    `ended` are the entries whose ends a checkpoint before this start of the run has counted: they come again where some
    of their rows are left.
    """

    ended: frozenset[int] = frozenset()
    position: Position = field(default_factory=Position)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    """entry, index, key and reason of each."""
    filtered: int = 0
    ends: list[dict[str, Any]] = field(default_factory=list)
    """entry, rows and what a `VisitEnd` tells, of those that tell something."""

    @property
    def missing(self) -> int:
        """Return how many samples are recorded of the shards that ended, and were not in them."""
        return sum(end["missing"] for end in self.ends)

    def passed(self, batch: Batch) -> tuple[list[int], list[int]]:
        """Record the markers of a batch, when the loop takes it; return entries and indices of filtered samples."""
        entries, indices = [], []
        for marker in (marker for note in batch.notes for marker in note.markers):
            if marker.status == col.END:
                self.position.end(marker.entry, marker.ordinal)
                if marker.reason and marker.entry not in self.ended:
                    end = asdict(VisitEnd.from_json(marker.reason))
                    self.ends.append({"entry": marker.entry, "rows": marker.ordinal} | end)
                continue
            self.position.add(marker.entry, marker.ordinal)
            if marker.status == col.REJECTED:
                place = {"entry": marker.entry, "index": marker.tar_index}
                self.rejected.append(place | {"key": marker.key, "reason": marker.reason})
            else:
                entries.append(marker.entry)
                indices.append(marker.tar_index)
        self.filtered += len(entries)
        return entries, indices

    def trained(self, batch: Batch) -> None:
        """Record the samples of a batch, after the optimizer has stepped on them."""
        self.position.add_rows(batch.entries.tolist(), batch.ordinals.tolist())

    def take(self) -> Record:
        """Return what was done since the last call, for a checkpoint."""
        taken = Record(self.ended, self.position, self.rejected, self.filtered, self.ends)
        self.position, self.rejected, self.filtered, self.ends = Position(), [], 0, []
        return taken
