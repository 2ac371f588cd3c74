"""The order of a run: which shard is read when, as arithmetic instead of a list.

A run is `epochs` visits of `shards` tars, laid out as entries 0 .. epochs * shards - 1. Entry e belongs to
epoch e // shards; which shard it is comes from a permutation seeded by (seed, epoch) and computed for one
index at a time, so that a schedule of millions of entries costs nothing to plan, to send or to resume.
"""

from __future__ import annotations

from dataclasses import dataclass

from sclip.seeding import digest64


@dataclass(frozen=True, slots=True)
class Schedule:
    """Entries of a run over `shards` tars."""

    seed: int
    epochs: int
    shards: int

    def __len__(self) -> int:
        return self.epochs * self.shards

    def epoch(self, entry: int) -> int:
        """Return the epoch, from 0, that an entry belongs to."""
        return entry // self.shards

    def shard(self, entry: int) -> int:
        """Return the index of the shard that an entry reads.

        A balanced Feistel network on the smallest even number of bits that holds `shards` is a permutation of
        a power of four; values outside the range are sent through again ("cycle walking"; Black and Rogaway,
        "Ciphers with Arbitrary Finite Domains", 2002), which leaves a permutation of the range.
        """
        epoch, index = divmod(entry, self.shards)
        half = max(1, ((self.shards - 1).bit_length() + 1) // 2)
        mask = (1 << half) - 1
        while True:
            left, right = index >> half, index & mask
            for turn in range(4):
                left, right = right, left ^ (digest64("order", self.seed, epoch, turn, right) & mask)
            index = left << half | right
            if index < self.shards:
                return index
