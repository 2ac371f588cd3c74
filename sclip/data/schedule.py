"""The order of a run: which shard of which source is read when, as arithmetic instead of a list.

A run is a row of entries 0, 1, 2, ..., each a visit of one shard. Sources take turns in a fixed cycle, by their
weights; the visits of one source are its passes, one after the other, each in an order of its own. Which shard an
entry reads comes from a permutation that is computed for one index at a time, so that a schedule of millions of
entries costs nothing to plan, to send or to resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sclip.seeding import digest64

_CYCLE = 1000
"""Entries of a cycle of several sources: weights are kept to a thousandth."""


class NamedShard(NamedTuple):
    """One tar of a run, known by its name wherever it lies."""

    name: str
    """`NUMBER/PATH`: the number of its pattern in data.shards, and its path below that pattern's fixed folder."""
    url: str
    """Path or URI that opens it."""

    def identity(self, key: str) -> str:
        """Return what a sample of the shard is known by: a key is unique only within its shard."""
        return f"{self.name}/{key}"


class Visit(NamedTuple):
    """What an entry reads."""

    source: int
    pass_: int
    """Which time, from 0, that the source's shards are gone through; of one source, the epoch."""
    shard: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Entries of a run over one or several sources of shards."""

    seed: int
    epochs: int
    shards: tuple[int, ...]
    """Shards of each source."""
    cycle: tuple[int, ...] = (0,)
    """The source of each entry, over and over."""

    @classmethod
    def weighted(
        cls, seed: int, epochs: int, samples: Sequence[Sequence[int]], weights: Sequence[float]
    ) -> Schedule:
        """Return the schedule in which source i gives weights[i] of the samples, whatever its shards hold.

        Args:
            seed: the run's.
            epochs: the run has this many times as many entries as there are shards.
            samples: of each shard of each source.
            weights: relative shares of the samples, of each source; without any, by their size.
        """
        shards = tuple(len(counts) for counts in samples)
        if len(shards) == 1:
            return cls(seed, epochs, shards)
        weights = weights or [sum(counts) for counts in samples]
        rates = [
            weight * len(counts) / max(1, sum(counts))
            for weight, counts in zip(weights, samples, strict=True)
        ]
        turns = [max(1, round(_CYCLE * rate / sum(rates))) for rate in rates]
        order = sorted(
            ((turn + 0.5) / counts, source) for source, counts in enumerate(turns) for turn in range(counts)
        )
        return cls(seed, epochs, shards, tuple(source for _, source in order))

    def __len__(self) -> int:
        return self.epochs * sum(self.shards)

    def visit(self, entry: int) -> Visit:
        """Return what an entry reads."""
        cycles, place = divmod(entry, len(self.cycle))
        source = self.cycle[place]
        turn = cycles * self.cycle.count(source) + self.cycle[:place].count(source)
        pass_, index = divmod(turn, self.shards[source])
        return Visit(source, pass_, self._permuted(source, pass_, index))

    def samples(self, samples: Sequence[Sequence[int]], entries: int | None = None) -> int:
        """Return the samples of the first entries, by default of all, given those of each shard of each source."""
        cycles, rest = divmod(len(self) if entries is None else entries, len(self.cycle))
        total = 0
        for source, counts in enumerate(samples):
            turns = cycles * self.cycle.count(source) + self.cycle[:rest].count(source)
            passes, begun = divmod(turns, self.shards[source])
            total += passes * sum(counts)
            total += sum(counts[self._permuted(source, passes, index)] for index in range(begun))
        return total

    def _permuted(self, source: int, pass_: int, index: int) -> int:
        """Return the shard at a place in the order of a pass.

        A balanced Feistel network on the smallest even number of bits that holds the shards is a permutation of
        a power of four; values outside the range are sent through again ("cycle walking"; Black and Rogaway,
        "Ciphers with Arbitrary Finite Domains", 2002), which leaves a permutation of the range.
        """
        shards = self.shards[source]
        half = max(1, ((shards - 1).bit_length() + 1) // 2)
        mask = (1 << half) - 1
        while True:
            left, right = index >> half, index & mask
            for turn in range(4):
                left, right = right, left ^ (digest64("order", self.seed, source, pass_, turn, right) & mask)
            index = left << half | right
            if index < shards:
                return index
