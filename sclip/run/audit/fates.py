"""What became of the rows of one visit of a shard, in a byte each.

Two bits for each of trained, filtered and quarantined: never, once, more often. A visit whose rows were all trained on
once needs no bytes any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fates", "ranges", "words"]
__all__ += ["FILTERED_ONCE", "MISSED", "QUARANTINED_ONCE", "REPEATED", "TRAINED_ONCE"]

KINDS = ("trained", "filtered", "quarantined")
_SHIFTS = {kind: 2 * at for at, kind in enumerate(KINDS)}
_REST = 1 << 2 * len(KINDS)
"""Of the row that stands for the unreadable rest of a tar, where it was not simply set aside."""
_WAITING = 4096
"""Rows of a visit that are counted at a time."""
MISSED = 0
TRAINED_ONCE, FILTERED_ONCE, QUARANTINED_ONCE = (1 << shift for shift in _SHIFTS.values())
REPEATED = 2 * TRAINED_ONCE


class Fates:
    """What became of the rows of one visit."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._beyond: list[NDArray[np.int64]] = []
        self._waiting: dict[str, list[int]] = {}
        self._codes: NDArray[np.uint8] | None = np.zeros(rows, np.uint8)
        self._untouched = rows

    def add(self, kind: str, rows: Sequence[int]) -> None:
        """Count rows as one of KINDS, by their places in the tar."""
        waiting = self._waiting.setdefault(kind, [])
        waiting += rows
        # A step has a few rows of a visit: they are counted together, and when the visit may be through.
        if len(waiting) >= min(_WAITING, self._untouched):
            self._count(kind)

    def _count(self, kind: str) -> None:
        found, times = np.unique(np.array(self._waiting.pop(kind), np.int64), return_counts=True)
        inside = (found >= 0) & (found < self.rows)
        if not inside.all():
            self._beyond.append(found[~inside])
            found, times = found[inside], times[inside]
        codes, shift = self._all_codes(), _SHIFTS[kind]
        before = codes[found]
        known = before >> shift & 3
        codes[found] = before + ((np.minimum(known + times, 2) - known) << shift)
        self._untouched -= int(np.count_nonzero(before == MISSED))
        self._codes = None if not self._untouched and (codes == TRAINED_ONCE).all() else codes

    def codes(self, *, with_rest: bool) -> NDArray[np.uint8]:
        """Return uint8 [rows]; where the last row is the unreadable rest, it can only be set aside or missed."""
        self._count_all()
        codes = self._all_codes()
        if with_rest and codes[-1] not in (MISSED, QUARANTINED_ONCE):
            codes = codes.copy()
            codes[-1] |= _REST
        return codes

    def beyond(self) -> NDArray[np.int64]:
        """Return the indices that the tar does not have, ascending, each once."""
        self._count_all()
        return np.unique(np.concatenate(self._beyond)) if self._beyond else np.zeros(0, np.int64)

    def _count_all(self) -> None:
        for kind in list(self._waiting):
            self._count(kind)

    def _all_codes(self) -> NDArray[np.uint8]:
        return np.full(self.rows, TRAINED_ONCE, np.uint8) if self._codes is None else self._codes


def words(code: int) -> str:
    """Return what a code says."""
    often = {1: "once", 2: "repeatedly"}
    found = [f"{kind} {often[n]}" for kind, shift in _SHIFTS.items() if (n := code >> shift & 3)]
    return " and ".join(found) + (", but it is the unreadable rest of its tar" if code & _REST else "")


def ranges(numbers: NDArray[np.int64] | NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Return first and last of each run of neighbours among ascending numbers, of which there is one at least."""
    gaps = np.flatnonzero(np.diff(numbers) != 1)
    return zip(numbers[[0, *(gaps + 1)]].tolist(), numbers[[*gaps, -1]].tolist(), strict=True)
