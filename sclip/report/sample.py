"""Draw a fixed number of values at random from a stream of any length; the order of the stream does not matter.

This is a bottom-k sample: it keeps the values whose keys have the k smallest digests. Actors can draw samples of parts,
which merge into a sample of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from sclip.seeding import digest64

_Value = TypeVar("_Value")


class SeededSample(Generic[_Value]):
    """Sample of the `size` values with the smallest key digests. Equal keys must have equal values and count once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: dict[int, _Value] = {}
        self._largest = -1

    def wants(self, *key: object) -> bool:
        """Return whether `add` would keep a value with this key. Call it before making the value."""
        digest = digest64("sample", *key)
        return digest not in self._kept and (len(self._kept) < self.size or digest < self._largest)

    def add(self, value: _Value, *key: object) -> None:
        """Keep the value if the digest of its key is among the smallest so far."""
        if self.wants(*key):
            self._insert(digest64("sample", *key), value)

    def merge(self, other: SeededSample[_Value]) -> None:
        """Merge the sample of another stream, so that this is the sample of both streams."""
        for digest, value in other._kept.items():
            if digest not in self._kept:
                self._insert(digest, value)

    def __iter__(self) -> Iterator[_Value]:
        return (self._kept[digest] for digest in sorted(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def _insert(self, digest: int, value: _Value) -> None:
        self._kept[digest] = value
        if len(self._kept) > self.size:
            del self._kept[max(self._kept)]
        self._largest = max(self._kept, default=-1)
