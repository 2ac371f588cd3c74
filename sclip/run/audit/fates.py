"""Record what became of the rows of one visit (one pass over one shard), with a code of one byte for each row.

A code holds three counters of two bits: how often the row was trained on, filtered and quarantined. A counter is 0, 1,
or 2 for "more often". When all rows of a visit were trained on once, the visit's codes are all equal and not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fates", "ranges", "words"]
__all__ += ["FILTERED_ONCE", "MISSED", "QUARANTINED_ONCE", "REPEATED", "TRAINED_ONCE"]

KINDS = ("trained", "filtered", "quarantined")
_SHIFTS = {kind: 2 * index for index, kind in enumerate(KINDS)}
_REST = 1 << 2 * len(KINDS)
"""Bit that marks a fault: a shard's unreadable end was trained on or filtered, or quarantined more than once."""
_WAITING = 4096
MISSED = 0
TRAINED_ONCE, FILTERED_ONCE, QUARANTINED_ONCE = (1 << shift for shift in _SHIFTS.values())
REPEATED = 2 * TRAINED_ONCE


class Fates:
    """The fate of each row of one visit."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._beyond: list[NDArray[np.int64]] = []
        self._waiting: dict[str, list[int]] = {}
        self._codes: NDArray[np.uint8] | None = np.zeros(rows, np.uint8)
        self._untouched = rows

    def add(self, kind: str, rows: Sequence[int]) -> None:
        """Count rows, given by their indices in the shard, as one of KINDS."""
        waiting = self._waiting.setdefault(kind, [])
        waiting += rows
        # A step has few rows of a visit, so collect many before counting, unless they may complete the visit.
        if len(waiting) >= min(_WAITING, self._untouched):
            self._count(kind)

    def _count(self, kind: str) -> None:
        indices, times = np.unique(np.array(self._waiting.pop(kind), np.int64), return_counts=True)
        inside = (indices >= 0) & (indices < self.rows)
        if not inside.all():
            self._beyond.append(indices[~inside])
            indices, times = indices[inside], times[inside]
        codes, shift = self._all_codes(), _SHIFTS[kind]
        before = codes[indices]
        known = before >> shift & 3
        codes[indices] = before + ((np.minimum(known + times, 2) - known) << shift)
        self._untouched -= int(np.count_nonzero(before == MISSED))
        self._codes = None if not self._untouched and (codes == TRAINED_ONCE).all() else codes

    def codes(self, *, with_rest: bool) -> NDArray[np.uint8]:
        """Return the code of each row, uint8 [rows]. `with_rest`: the last row is the shard's unreadable end."""
        self._count_all()
        codes = self._all_codes()
        if with_rest and codes[-1] not in (MISSED, QUARANTINED_ONCE):
            codes = codes.copy()
            codes[-1] |= _REST
        return codes

    def beyond(self) -> NDArray[np.int64]:
        """Return the indices passed to `add` that are no rows of the shard, sorted, each once."""
        self._count_all()
        return np.unique(np.concatenate(self._beyond)) if self._beyond else np.zeros(0, np.int64)

    def _count_all(self) -> None:
        for kind in list(self._waiting):
            self._count(kind)

    def _all_codes(self) -> NDArray[np.uint8]:
        return np.full(self.rows, TRAINED_ONCE, np.uint8) if self._codes is None else self._codes


def words(code: int) -> str:
    """Describe the code of a row in words."""
    often = {1: "once", 2: "repeatedly"}
    parts = [f"{kind} {often[n]}" for kind, shift in _SHIFTS.items() if (n := code >> shift & 3)]
    return " and ".join(parts) + (", but it is the unreadable rest of its tar" if code & _REST else "")


def ranges(numbers: NDArray[np.int64] | NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Return the first and last number of each series of consecutive numbers. `numbers` ascends and is not empty."""
    gaps = np.flatnonzero(np.diff(numbers) != 1)
    return zip(numbers[[0, *(gaps + 1)]].tolist(), numbers[[*gaps, -1]].tolist(), strict=True)
