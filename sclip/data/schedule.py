"""Compute the source and shard of each entry of a run's schedule, by arithmetic instead of a list.

A run is a sequence of entries 0, 1, 2, ...; each entry is a visit: one reading of one shard. Sources alternate in a
fixed cycle that follows their weights. A source is read pass after pass, and each pass has its own shard order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sclip.seeding import digest64

_CYCLE = 1000
"""Approximate number of entries in a cycle of several sources. The cycle follows the weights to about a thousandth."""


class NamedShard(NamedTuple):
    """One shard of a run. Its name stays the same wherever the shard is stored."""

    name: str
    """`NUMBER/PATH`: the index of its pattern in data.shards, and its path below that pattern's fixed folder."""
    url: str

    def identity(self, key: str) -> str:
        """Return the identity of a sample in this shard. A key alone is unique only within its shard."""
        return f"{self.name}/{key}"


class Visit(NamedTuple):
    """One reading of a shard. Each entry of the schedule is one visit."""

    source: int
    pass_: int
    """Number of the pass over the source's shards, from 0. With a single source, this is the epoch."""
    shard: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Entries of a run over one or several sources of shards."""

    seed: int
    epochs: int
    shards: tuple[int, ...]
    """Number of shards of each source."""
    cycle: tuple[int, ...] = (0,)
    """The source of each entry; the cycle repeats."""

    @classmethod
    def weighted(
        cls, seed: int, epochs: int, samples: Sequence[Sequence[int]], weights: Sequence[float]
    ) -> Schedule:
        """Return the schedule of a run that draws from weighted sources.

        In an epoch, the run reads as many shards as all sources together have. `samples` holds the sample count of each
        shard of each source. `weights` are the sources' relative shares of the samples; by default, their sizes.
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
        """Return the source, the pass and the shard of an entry."""
        cycles, position = divmod(entry, len(self.cycle))
        source = self.cycle[position]
        turn = cycles * self.cycle.count(source) + self.cycle[:position].count(source)
        pass_, index = divmod(turn, self.shards[source])
        return Visit(source, pass_, self._permuted(source, pass_, index))

    def samples(self, samples: Sequence[Sequence[int]], entries: int | None = None) -> int:
        """Return the sample count of the first `entries` entries (default: all), given the count of each shard."""
        cycles, rest = divmod(len(self) if entries is None else entries, len(self.cycle))
        total = 0
        for source, counts in enumerate(samples):
            turns = cycles * self.cycle.count(source) + self.cycle[:rest].count(source)
            passes, begun = divmod(turns, self.shards[source])
            total += passes * sum(counts)
            total += sum(counts[self._permuted(source, passes, index)] for index in range(begun))
        return total

    def _permuted(self, source: int, pass_: int, index: int) -> int:
        """Return the shard at an index in the shuffled order of a pass.

        A balanced Feistel network permutes the numbers below 4 ** n, with the smallest n that covers all shard numbers.
        A result that is not a shard number goes through the network again ("cycle walking"; Black and Rogaway, "Ciphers
        with Arbitrary Finite Domains", 2002).
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
