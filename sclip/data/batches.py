"""Make the batches of the order's steps from blocks of rows, on the worker, and record what they lack.

The order (`sclip.data.order`) gives each step its places. Workers' shares of a step differ by a few rows, and places
whose row cannot be trained on stay empty: a batch is filled up with rows that are not valid, to a width that is the
same on all workers.

`Batches` may run ahead in a thread of its own. `Record` is the loop's alone: it knows of a batch, and of the markers of
its places, once the loop has taken it, so that what is fetched ahead is in no checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.order import Order
from sclip.data.side_channel import Marker, Note, VisitEnd, read_notes

Columns = dict[str, NDArray[Any]]
Allocate = Callable[[str, tuple[int, ...], np.dtype[Any]], NDArray[Any]]
"""Returns an array of any content for a column, by its name, shape and dtype."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Model columns with `valid`, each [width, ...]; the first `rows` rows are samples, ascending by their places."""

    columns: Columns
    rows: int
    entries: NDArray[np.int64]
    indices: NDArray[np.int64]
    markers: tuple[Marker, ...] = ()
    """Markers of the step's places without a sample, and of the shards that end in it."""
    notes: tuple[Note, ...] = ()
    """Notes of the blocks that were fetched for this batch."""
    queued: float = 0.0
    """Seconds that their samples waited between the encoder and this worker, added up."""


@dataclass(slots=True)
class _Feed:
    """Blocks of one stream, whose places ascend, and what is left of the newest ones."""

    blocks: Iterator[Columns]
    held: list[Columns] = field(default_factory=list)
    markers: list[Marker] = field(default_factory=list)
    upto: int = 0
    """All rows of the feed that stand before this place have come."""
    is_ended: bool = False

    def places(self, stop: int) -> int:
        """Return how many places before `stop` have come and are not taken yet, with a row or a marker of its lack."""
        rows = sum(int(np.searchsorted(block[col.PLACE], stop)) for block in self.held)
        return rows + sum(marker.place < stop and marker.status != col.END for marker in self.markers)


class Batches:
    """Batches of one worker, of the steps of an order from one on.

    Args:
        feeds: streams of this worker's rows, each in the order of the places: the columns of `sclip.data.columns`, as
            `iter_batches(batch_format="numpy")` gives them.
        order: of the run.
        step: the first one, from 0.
        blank: one row of each model column, which fills up a batch.
        rank: of the worker.
        world_size: number of workers.
        parts: number of equal parts that a batch is computed in; its width is a multiple of it.
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
        """Return the batch of the next step, in arrays of `allocate`. Raises StopIteration after the last one."""
        of_workers = next(self._rows)
        # A width that only grows: shapes soon repeat, and differ by a few rows at the most.
        self._width = max(self._width, -(-max(of_workers) // self._parts) * self._parts)
        self._stop += self._size
        self._wait_for(of_workers[self._rank])
        parts, markers = [], list[Marker]()
        for feed in self._feeds:
            parts += _taken(feed, self._stop)
            markers += [marker for marker in feed.markers if marker.place < self._stop]
            feed.markers = [marker for marker in feed.markers if marker.place >= self._stop]
        order = np.argsort(_joined(parts, col.PLACE))
        rows = np.split(np.argsort(order), np.cumsum([len(part[col.PLACE]) for part in parts], dtype=int))
        columns: Columns = {}
        for name, blank in self._blank.items():
            columns[name] = allocate(name, (self._width, *blank.shape), blank.dtype)
            for targets, part in zip(rows, parts, strict=False):
                columns[name][targets] = part[name]  # numpy frees the GIL; as fast as a copy of whole blocks
            columns[name][len(order) :] = blank
        columns[col.VALID] = np.arange(self._width) < len(order)
        entries, indices = (_joined(parts, name)[order] for name in (col.ENTRY, col.INDEX))
        notes, queued = tuple(self._notes), self._queued
        self._notes, self._queued = [], 0.0
        return Batch(columns, len(order), entries, indices, tuple(markers), notes, queued)

    def _wait_for(self, places: int) -> None:
        """Fetch blocks until so many places of the step have come, or, where rows are missing, those after it."""
        while sum(feed.places(self._stop) for feed in self._feeds) < places:
            behind = [feed for feed in self._feeds if feed.upto < self._stop and not feed.is_ended]
            if not behind:
                return
            self._fetch(min(behind, key=lambda feed: feed.upto))

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


def _taken(feed: _Feed, stop: int) -> list[Columns]:
    """Take the rows of a feed whose places are below `stop`."""
    taken, held = [], []
    for block in feed.held:
        at = int(np.searchsorted(block[col.PLACE], stop))
        if at:
            taken.append({name: values[:at] for name, values in block.items()})
        if at < len(block[col.PLACE]):
            held.append({name: values[at:] for name, values in block.items()})
    feed.held = held
    return taken


@dataclass(slots=True)
class Record:
    """What one worker has set aside and left out since the last checkpoint, and ends of shards."""

    rejected: list[dict[str, Any]] = field(default_factory=list)
    """entry, index, key and reason of each."""
    filtered: int = 0
    ends: list[dict[str, Any]] = field(default_factory=list)
    """entry, rows and what a `VisitEnd` tells, of those that tell something."""

    @property
    def missing(self) -> int:
        """Number of recorded samples that the shards which ended do not hold."""
        return sum(end["missing"] for end in self.ends)

    def passed(self, batch: Batch) -> tuple[list[int], list[int]]:
        """Record the markers of a batch, when the loop takes it; return entries and indices of filtered samples."""
        entries, indices = [], []
        for marker in batch.markers:
            place = {"entry": marker.entry, "index": marker.tar_index}
            if marker.status == col.END and marker.reason:
                end = VisitEnd.from_json(marker.reason)
                self.ends.append({"entry": marker.entry, "rows": marker.tar_index} | asdict(end))
                if end.rest:
                    self.rejected.append(place | {"key": "", "reason": end.rest})
            elif marker.status == col.REJECTED:
                self.rejected.append(place | {"key": marker.key, "reason": marker.reason})
            elif marker.status == col.FILTERED:
                entries.append(marker.entry)
                indices.append(marker.tar_index)
        self.filtered += len(entries)
        return entries, indices

    def take(self) -> Record:
        """Return what was done since the last call, for a checkpoint."""
        taken = Record(self.rejected, self.filtered, self.ends)
        self.rejected, self.filtered, self.ends = [], 0, []
        return taken
