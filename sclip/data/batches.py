"""Assemble blocks of rows into the batch of each step, on the worker, and record why places have no sample.

A place is a row's position in the order of the run (`sclip.data.order`). Each step trains on a range of places. If a
row cannot be trained on, its place is empty, and a marker says why. The workers have slightly different numbers of
samples in a step, so each pads its batch to the same width (number of rows).

A thread may prefetch batches. Their markers (unusable samples, shard ends) enter `Record` only when the training loop
takes the batch, because a run resumed from a checkpoint reads the prefetched batches again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.columns import Marker, Note, VisitEnd, read_notes
from sclip.data.order import Order

Columns = dict[str, NDArray[Any]]
Allocate = Callable[[str, tuple[int, ...], np.dtype[Any]], NDArray[Any]]
"""Function that returns an uninitialized array for a column, given the column's name, shape and dtype."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Model columns and `valid`, each [width, ...]: `rows` samples in the order of the run, then padding."""

    columns: Columns
    rows: int
    entries: NDArray[np.int64]
    indices: NDArray[np.int64]
    markers: tuple[Marker, ...] = ()
    """Markers of the step's rejected and filtered samples, and of the shards that end in the step."""
    notes: tuple[Note, ...] = ()
    """Notes of the blocks fetched for this batch. They may cover rows of later steps."""
    queued: float = 0.0
    """Total seconds that the samples fetched for this batch waited between encoder and worker."""


@dataclass(slots=True)
class _Feed:
    """One stream of blocks, and its fetched rows and markers that no batch has used yet."""

    blocks: Iterator[Columns]
    held: list[Columns] = field(default_factory=list)
    markers: list[Marker] = field(default_factory=list)
    upto: int = 0
    """All rows with a lower place have arrived."""
    is_ended: bool = False

    def places(self, stop: int) -> int:
        """Return the number of held samples and of markers of unusable samples with a place below `stop`."""
        rows = sum(int(np.searchsorted(block[col.PLACE], stop)) for block in self.held)
        return rows + sum(marker.place < stop and marker.status != col.END for marker in self.markers)


class Batches:
    """The batches of one worker, one per step, from `step` on.

    Each of the `feeds` is a stream of this worker's rows, sorted by place, from `iter_batches(batch_format="numpy")`.
    `blank` holds the value in padding rows for each model column. `parts` is the number of micro-batches per batch; the
    batch's width is a multiple of this number.
    """

    def __init__(
        self, feeds: Iterable[Iterable[Columns]], order: Order, step: int, blank: Columns, *, rank: int = 0,
        world_size: int = 1, parts: int = 1,
    ) -> None:  # fmt: skip
        self._feeds = [_Feed(iter(blocks)) for blocks in feeds]
        self._stop, self._size = step * order.batch_size, order.batch_size
        self._rows, self._rank, self._parts = order.rows_of_workers(world_size, step), rank, parts
        self._width = 0
        self._blank = blank
        self._notes: list[Note] = []
        self._queued = 0.0

    def next(self, allocate: Allocate = lambda name, shape, dtype: np.empty(shape, dtype)) -> Batch:
        """Return the batch of the next step, in arrays from `allocate`. Raises StopIteration after the last step."""
        rows_of_workers = next(self._rows)
        # The width never shrinks, so shapes soon stop changing; steps differ by a few rows only.
        self._width = max(self._width, -(-max(rows_of_workers) // self._parts) * self._parts)
        self._stop += self._size
        self._wait_for(rows_of_workers[self._rank])
        parts, markers = [], list[Marker]()
        for feed in self._feeds:
            parts += _pop_rows(feed, self._stop)
            markers += [marker for marker in feed.markers if marker.place < self._stop]
            feed.markers = [marker for marker in feed.markers if marker.place >= self._stop]
        order = np.argsort(_joined(parts, col.PLACE))
        rows = np.split(np.argsort(order), np.cumsum([len(part[col.PLACE]) for part in parts], dtype=int))
        columns: Columns = {}
        for name, blank in self._blank.items():
            columns[name] = allocate(name, (self._width, *blank.shape), blank.dtype)
            for targets, part in zip(rows, parts, strict=False):
                columns[name][targets] = part[name]  # numpy releases the GIL; as fast as copying whole blocks
            columns[name][len(order) :] = blank
        columns[col.VALID] = np.arange(self._width) < len(order)
        entries, indices = (_joined(parts, name)[order] for name in (col.ENTRY, col.INDEX))
        notes, queued = tuple(self._notes), self._queued
        self._notes, self._queued = [], 0.0
        return Batch(columns, len(order), entries, indices, tuple(markers), notes, queued)

    def _wait_for(self, places: int) -> None:
        while sum(feed.places(self._stop) for feed in self._feeds) < places:
            lagging = [feed for feed in self._feeds if feed.upto < self._stop and not feed.is_ended]
            if not lagging:
                return
            self._fetch(min(lagging, key=lambda feed: feed.upto))

    def _fetch(self, feed: _Feed) -> None:
        block = next(feed.blocks, None)
        if block is None:
            feed.is_ended = True
            return
        for note in read_notes(block[col.NOTE]):
            self._notes.append(note)
            self._queued += note.samples * max(0.0, time.time() - note.made_at)
            feed.markers += note.markers
            feed.upto = note.upto
        samples = block[col.PLACE] != col.NO_SAMPLE
        if samples.any():
            names = (*self._blank, col.PLACE, col.ENTRY, col.INDEX)
            feed.held.append({name: block[name] if samples.all() else block[name][samples] for name in names})


def _joined(parts: list[Columns], name: str) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *(part[name] for part in parts)])


def _pop_rows(feed: _Feed, stop: int) -> list[Columns]:
    blocks, kept = [], []
    for block in feed.held:
        split = int(np.searchsorted(block[col.PLACE], stop))
        if split:
            blocks.append({name: values[:split] for name, values in block.items()})
        if split < len(block[col.PLACE]):
            kept.append({name: values[split:] for name, values in block.items()})
    feed.held = kept
    return blocks


@dataclass(slots=True)
class Record:
    """One worker's rejected samples, number of filtered samples, and finished shards since the last checkpoint."""

    rejected: list[dict[str, Any]] = field(default_factory=list)
    """`entry`, `index`, `key` and `reason` of each rejected sample. The key "" means the unreadable rest of a shard."""
    filtered: int = 0
    ends: list[dict[str, Any]] = field(default_factory=list)
    """Reports on finished shards: `entry`, `rows` and the fields of `VisitEnd`. Empty reports are left out."""

    @property
    def missing(self) -> int:
        """Number of samples that the finished shards lack: the sum of `VisitEnd.missing`."""
        return sum(end["missing"] for end in self.ends)

    def passed(self, batch: Batch) -> tuple[list[int], list[int]]:
        """Record the markers of a batch. Return the schedule entries and the indices of its filtered samples."""
        entries, indices = [], []
        for marker in batch.markers:
            sample_fields = {"entry": marker.entry, "index": marker.tar_index}
            if marker.status == col.END and marker.reason:
                end = VisitEnd.from_json(marker.reason)
                self.ends.append({"entry": marker.entry, "rows": marker.tar_index} | asdict(end))
                if end.rest:
                    self.rejected.append(sample_fields | {"key": "", "reason": end.rest})
            elif marker.status == col.REJECTED:
                self.rejected.append(sample_fields | {"key": marker.key, "reason": marker.reason})
            elif marker.status == col.FILTERED:
                entries.append(marker.entry)
                indices.append(marker.tar_index)
        self.filtered += len(entries)
        return entries, indices

    def take(self) -> Record:
        """Return what was recorded since the last call, for a checkpoint."""
        record = Record(self.rejected, self.filtered, self.ends)
        self.rejected, self.filtered, self.ends = [], 0, []
        return record
