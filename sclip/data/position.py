"""Where the data of a run stands: exactly which rows were trained on, in little space.

A pure module without I/O. A row is (entry, index): the schedule's entry and the sample's place in its tar.
Every rank records what it has *trained on* (`add`) and the ends of shards that passed by (`end`); a
checkpoint merges the ranks' records into one. An entry whose rows are all in is closed and forgotten behind
the low-water mark, so the size follows the work in flight and not the data behind it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


class PositionError(ValueError):
    """A row was recorded twice, or lies outside its shard: the stream has repeated itself."""


@dataclass(slots=True)
class _Entry:
    ranges: list[list[int]] = field(default_factory=list)
    """Disjoint, sorted, not touching [start, end) of indices that are done."""
    total: int | None = None
    """Rows of the shard, once its reader has ended."""

    def add(self, start: int, end: int) -> None:
        at = bisect_right(self.ranges, [start, end])
        before, after = self.ranges[:at], self.ranges[at:]
        if (before and before[-1][1] > start) or (after and after[0][0] < end):
            raise PositionError(f"rows {start}..{end - 1} recorded twice")
        if before and before[-1][1] == start:
            start = before.pop()[0]
        if after and after[0][0] == end:
            end = after.pop(0)[1]
        self.ranges = [*before, [start, end], *after]
        if self.total is not None and end > self.total:
            raise PositionError(f"row {end - 1} recorded in a shard of {self.total}")

    @property
    def complete(self) -> bool:
        if self.total == 0:
            return not self.ranges
        return self.total is not None and self.ranges == [[0, self.total]]


class Position:
    """Rows done so far; also the record of one rank since the last checkpoint, to be merged into it."""

    def __init__(self) -> None:
        self.low = 0
        """Every entry below is closed."""
        self._closed: set[int] = set()
        self._open: dict[int, _Entry] = {}

    def add(self, entry: int, index: int, count: int = 1) -> None:
        """Record that `count` rows from `index` on are done (trained on, filtered, or set aside as unreadable).

        Raises PositionError where one was done before.
        """
        self._add(entry, index, index + count)

    def end(self, entry: int, total: int) -> None:
        """Record that an entry's shard holds `total` rows, which a reader knows at the shard's end.

        Said again with the same total, as a shard that is read again after a crash does, it changes nothing.
        """
        if self.closed(entry):
            return
        slot = self._open.setdefault(entry, _Entry())
        if slot.total not in (None, total):
            raise PositionError(f"entry {entry}: {total} rows, but {slot.total} when it was read before")
        slot.total = total
        if slot.ranges and slot.ranges[-1][1] > total:
            raise PositionError(f"entry {entry}: {total} rows, but row {slot.ranges[-1][1] - 1} is done")
        self._close(entry)

    def merge(self, record: Position) -> None:
        """Take in what another record holds. Raises PositionError where both hold the same row."""
        if record.low or record._closed:
            for entry in [*range(self.low, record.low), *record._closed]:
                if entry in self._open and self._open[entry].ranges:
                    raise PositionError(f"entry {entry}: rows recorded twice")
                self._open[entry] = _Entry(total=0)
                self._close(entry)
        for entry, slot in record._open.items():
            for start, end in slot.ranges:
                self._add(entry, start, end)
            if slot.total is not None:
                self.end(entry, slot.total)

    def closed(self, entry: int) -> bool:
        """Tell whether every row of an entry is done."""
        return entry < self.low or entry in self._closed

    def done(self, entry: int) -> list[range]:
        """Return the indices of an open entry that are done, as sorted disjoint ranges."""
        slot = self._open.get(entry)
        return [range(start, end) for start, end in slot.ranges] if slot else []

    def remaining(self, entries: int) -> Iterator[int]:
        """Yield the entries below `entries` that still have, or may have, rows to do."""
        return (entry for entry in range(self.low, entries) if entry not in self._closed)

    def to_json(self) -> dict[str, Any]:
        """Return the position as JSON values."""
        return {
            "low": self.low,
            "closed": _runs(self._closed),
            "open": [[e, s.total, s.ranges] for e, s in sorted(self._open.items())],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Position:
        """Return the position that `to_json` wrote."""
        position = cls()
        position.low = value["low"]
        position._closed = {entry for start, end in value["closed"] for entry in range(start, end)}
        position._open = {e: _Entry([list(r) for r in ranges], total) for e, total, ranges in value["open"]}
        return position

    def _add(self, entry: int, start: int, end: int) -> None:
        if self.closed(entry):
            raise PositionError(f"entry {entry}: rows {start}..{end - 1} recorded twice")
        try:
            self._open.setdefault(entry, _Entry()).add(start, end)
        except PositionError as error:
            raise PositionError(f"entry {entry}: {error}") from None
        self._close(entry)

    def _close(self, entry: int) -> None:
        if not self._open[entry].complete:
            return
        del self._open[entry]
        self._closed.add(entry)
        while self.low in self._closed:
            self._closed.remove(self.low)
            self.low += 1


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return runs
