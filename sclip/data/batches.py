"""The worker's end of the stream: blocks of rows in, batches of one fixed shape out, and a record of them.

Rows that mark the end of a shard, or rejected or filtered samples, are taken out here and travel with the batch;
what is left fills batches of `size` rows. Only the last batch of a worker is short, and batches after it empty: they
are filled up with rows that are not valid, so that a worker that has run dry takes part in every collective
until the others have, too.

`Batches` may run ahead in a thread of its own. `Record` is the loop's alone: it knows of a batch, and of the markers
before it, once the loop has taken it, so that what is fetched ahead is in no checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.position import Position

Columns = dict[str, NDArray[Any]]

_MARKER_COLUMNS = (col.STATUS, col.ENTRY, col.INDEX, col.COUNT, col.SAMPLE_KEY, col.REASON)


class StreamMismatch(RuntimeError):
    """The stream was built from another checkpoint than the worker loaded."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Model columns with `valid`, each [size, ...]; the first `rows` rows are samples."""

    columns: Columns
    rows: int
    entries: NDArray[np.int64]
    indices: NDArray[np.int64]
    markers: tuple[Columns, ...] = ()
    """Rows that are no samples, of each block that was taken to fill this batch."""


class Batches:
    """Batches of one worker.

    Args:
        blocks: the columns of `sclip.data.columns`, as `iter_batches(batch_format="numpy")` gives them.
        size: rows of a batch on this worker.
        origin: step of the checkpoint that this worker loaded; 0 for none.
        blank: one row of each model column, which fills up a batch where no row was ever seen.
    """

    def __init__(self, blocks: Iterable[Columns], size: int, origin: int, blank: Columns) -> None:
        self._blocks: Iterator[Columns] = iter(blocks)
        self._size, self._origin = size, origin
        self._blank = blank
        self._parts: list[Columns] = []
        self._rows = 0
        self._markers: list[Columns] = []

    def next(self) -> Batch:
        """Return the next batch; `rows` is 0 once the worker's share of the stream has ended.

        Raises StreamMismatch where the rows come from another checkpoint than the worker loaded.
        """
        while self._rows < self._size and (block := next(self._blocks, None)) is not None:
            self._take(block)
        names = (*col.MODEL_COLUMNS, col.ENTRY, col.INDEX)
        whole = (
            {name: np.concatenate([part[name] for part in self._parts]) for name in names}
            if self._parts
            else {}
        )
        rows = min(self._rows, self._size)
        self._parts = [{name: values[rows:] for name, values in whole.items()}] if self._rows > rows else []
        self._rows -= rows
        columns = {
            name: self._fill(name, whole[name][:rows] if whole else None) for name in col.MODEL_COLUMNS
        }
        columns[col.VALID] = np.arange(self._size) < rows
        none = np.zeros(0, np.int64)
        markers, self._markers = tuple(self._markers), []
        return Batch(
            columns,
            rows,
            whole[col.ENTRY][:rows] if whole else none,
            whole[col.INDEX][:rows] if whole else none,
            markers,
        )

    def _take(self, block: Columns) -> None:
        foreign = block[col.ORIGIN] != self._origin
        if foreign.any():
            raise StreamMismatch(
                f"the stream was built from step {block[col.ORIGIN][foreign][0]}, "
                f"this worker loaded the checkpoint of step {self._origin}"
            )
        samples = block[col.STATUS] == col.SAMPLE
        if not samples.all():
            self._markers.append({name: block[name][~samples] for name in _MARKER_COLUMNS})
        if samples.any():
            names = (*col.MODEL_COLUMNS, col.ENTRY, col.INDEX)
            self._parts.append({name: block[name][samples] for name in names})
            self._rows += int(samples.sum())

    def _fill(self, name: str, values: NDArray[Any] | None) -> NDArray[Any]:
        blank = self._blank[name]
        have = 0 if values is None else len(values)
        if values is not None and have == self._size:
            return values
        filler = np.broadcast_to(blank, (self._size - have, *blank.shape))
        return filler.copy() if values is None or not have else np.concatenate([values, filler])


class Record:
    """What one worker has done since the last checkpoint: trained on, set aside, left out, and ends of shards."""

    def __init__(self) -> None:
        self.position = Position()
        self.rejected: list[dict[str, str]] = []
        self.filtered = 0

    def passed(self, batch: Batch) -> None:
        """Record the markers of a batch, when the loop takes it."""
        for marked in batch.markers:
            entries, indices, status = marked[col.ENTRY], marked[col.INDEX], marked[col.STATUS]
            for at in np.flatnonzero(status == col.END):
                self.position.end(int(entries[at]), int(indices[at]))
            for at in np.flatnonzero(status == col.REJECTED):
                self.position.add(int(entries[at]), int(indices[at]))
                key, reason = str(marked[col.SAMPLE_KEY][at]), str(marked[col.REASON][at])
                self.rejected.append({"entry": str(entries[at]), "key": key, "reason": reason})
            for at in np.flatnonzero(status == col.FILTERED):
                count = int(marked[col.COUNT][at])
                self.position.add(int(entries[at]), int(indices[at]), count)
                self.filtered += count

    def trained(self, batch: Batch) -> None:
        """Record the samples of a batch, after the optimizer has stepped on them."""
        for entry, index in zip(batch.entries.tolist(), batch.indices.tolist(), strict=True):
            self.position.add(entry, index)

    def take(self) -> tuple[Position, list[dict[str, str]], int]:
        """Return what was done since the last call, for a checkpoint: rows, rejected samples, count of filtered."""
        taken = self.position, self.rejected, self.filtered
        self.position, self.rejected, self.filtered = Position(), [], 0
        return taken
