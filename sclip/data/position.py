"""Where the data of a run stands: exactly which rows were trained on, in little space.

A pure module without I/O. A row is (entry, ordinal): the schedule's entry and the row's place in the order in which
the entry's reader gives them out. Every rank records what it has *trained on* (`add`) and the ends of shards that
passed by (`end`); a checkpoint merges the ranks' records into one. An entry whose rows are all in is closed, and
neighbouring closed entries are one range, so the size follows the work in flight and not the data behind it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any


class PositionError(ValueError):
    """A row was recorded twice, or lies outside its shard: the stream has repeated itself."""


class Ranges:
    """A set of numbers that grows, as the bounds of its ranges: start, end, start, end, ... all ascending."""

    __slots__ = ("bounds",)

    def __init__(self, bounds: Iterable[int] = ()) -> None:
        self.bounds = list(bounds)

    def add(self, start: int, end: int) -> bool:
        """Add start .. end - 1; False, and nothing is added, where one of them is there already."""
        bounds = self.bounds
        at = bisect_right(bounds, start)  # even outside of a range; one that ends at `start` lies before
        if at % 2 or at != bisect_left(bounds, end):
            return False
        after_one, before_one = at and bounds[at - 1] == start, at < len(bounds) and bounds[at] == end
        if after_one and before_one:
            del bounds[at - 1 : at + 1]
        elif after_one:
            bounds[at - 1] = end
        elif before_one:
            bounds[at] = start
        else:
            bounds[at:at] = (start, end)
        return True

    def __contains__(self, number: int) -> bool:
        return bisect_right(self.bounds, number) % 2 == 1

    def ranges(self) -> Iterator[range]:
        """Yield the ranges, ascending; no two touch."""
        return (range(*pair) for pair in zip(self.bounds[::2], self.bounds[1::2], strict=True))

    def to_json(self) -> list[int]:
        """Return the differences of the bounds, most of them small where the bounds are large."""
        return [b - a for a, b in pairwise([0, *self.bounds])]

    @classmethod
    def from_json(cls, value: Sequence[int]) -> Ranges:
        """Return the set that `to_json` wrote."""
        return cls(accumulate(value))


@dataclass(slots=True)
class _OpenEntry:
    rows: Ranges = field(default_factory=Ranges)
    """Ordinals that are done."""
    total: int | None = None
    """Rows of the shard, once its reader has ended."""

    @property
    def complete(self) -> bool:
        return self.total is not None and self.rows.bounds == ([0, self.total] if self.total else [])


class Position:
    """Rows done so far; also the record of one rank since the last checkpoint, to be merged into it."""

    def __init__(self) -> None:
        self._closed = Ranges()
        self._open: dict[int, _OpenEntry] = {}

    @property
    def low(self) -> int:
        """The low-water mark: every entry below is closed."""
        bounds = self._closed.bounds
        return bounds[1] if bounds and bounds[0] == 0 else 0

    def add(self, entry: int, ordinal: int, count: int = 1) -> None:
        """Record that `count` rows from `ordinal` on are done (trained on, filtered, or set aside as unreadable).

        Raises PositionError where one was done before.
        """
        end = ordinal + count
        slot = None if entry in self._closed else self._open.setdefault(entry, _OpenEntry())
        if slot is None or not slot.rows.add(ordinal, end):
            raise PositionError(f"entry {entry}: rows {ordinal}..{end - 1} recorded twice")
        if slot.total is not None and end > slot.total:
            raise PositionError(f"entry {entry}: row {end - 1} recorded in a shard of {slot.total}")
        self._close(entry, slot)

    def add_rows(self, entries: Sequence[int], ordinals: Sequence[int]) -> None:
        """Record that single rows are done, as `add` does; neighbours are taken together."""
        start = count = entry = -1
        for at, ordinal in sorted(zip(entries, ordinals, strict=True)):
            if at == entry and ordinal == start + count:
                count += 1
                continue
            if count > 0:
                self.add(entry, start, count)
            entry, start, count = at, ordinal, 1
        if count > 0:
            self.add(entry, start, count)

    def end(self, entry: int, total: int) -> None:
        """Record that an entry's shard holds `total` rows, which a reader knows at the shard's end.

        Said again with the same total, as a shard that is read again after a crash does, it changes nothing.
        """
        if entry in self._closed:
            return
        slot = self._open.setdefault(entry, _OpenEntry())
        if slot.total not in (None, total):
            raise PositionError(f"entry {entry}: {total} rows, but {slot.total} when it was read before")
        slot.total = total
        if slot.rows.bounds and slot.rows.bounds[-1] > total:
            raise PositionError(f"entry {entry}: {total} rows, but row {slot.rows.bounds[-1] - 1} is done")
        self._close(entry, slot)

    def merge(self, record: Position) -> None:
        """Take in what another record holds. Raises PositionError where both hold the same row."""
        for closed in record._closed.ranges():
            known = [entry for entry in self._open if entry in closed]
            twice = next((entry for entry in known if self._open[entry].rows.bounds), None)
            if twice is not None or not self._closed.add(closed.start, closed.stop):
                raise PositionError(f"entry {closed.start if twice is None else twice}: rows recorded twice")
            for entry in known:  # its end alone
                del self._open[entry]
        for entry, slot in record._open.items():
            for done in slot.rows.ranges():
                self.add(entry, done.start, len(done))
            if slot.total is not None:
                self.end(entry, slot.total)

    def done(self, entry: int) -> list[range]:
        """Return the ordinals of an open entry that are done, as sorted disjoint ranges."""
        slot = self._open.get(entry)
        return list(slot.rows.ranges()) if slot else []

    def remaining(self, entries: int) -> list[range]:
        """Return the entries below `entries` that still have, or may have, rows to do."""
        edges = [0, *self._closed.bounds, entries]
        gaps = (range(start, min(end, entries)) for start, end in zip(edges[::2], edges[1::2], strict=True))
        return [gap for gap in gaps if gap]

    def to_json(self) -> dict[str, Any]:
        """Return the position as JSON values."""
        entries = sorted(self._open.items())
        return {
            "closed": self._closed.to_json(),
            "open": [[entry, slot.total, slot.rows.to_json()] for entry, slot in entries],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Position:
        """Return the position that `to_json` wrote."""
        position = cls()
        position._closed = Ranges.from_json(value["closed"])
        position._open = {e: _OpenEntry(Ranges.from_json(rows), total) for e, total, rows in value["open"]}
        return position

    def _close(self, entry: int, slot: _OpenEntry) -> None:
        if slot.complete:
            del self._open[entry]
            self._closed.add(entry, entry + 1)
