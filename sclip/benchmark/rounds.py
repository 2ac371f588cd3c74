"""Peers on the same work in turns: so that what else the machine does hits all alike.

Time is what the process spent on its core, not what passed: other programs on the machine take turns with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

_Work = TypeVar("_Work")


class BenchmarkError(RuntimeError):
    """A benchmark that cannot run; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What one peer did in a second, in each round."""

    per_s: tuple[float, ...]

    @property
    def median(self) -> float:
        """The rate that stands in the table."""
        return median(self.per_s)

    def ratio(self, other: Rates) -> float:
        """Return how many times the other's rate this is: the median over the rounds, in each of which both ran."""
        return median(one / two for one, two in zip(self.per_s, other.per_s, strict=True))


def in_turns(
    peers: Mapping[str, Callable[[Sequence[_Work]], None]],
    rounds: Sequence[Sequence[_Work]],
    on_round: Callable[[int], None],
) -> dict[str, Rates]:
    """Run every peer on every round's work, each round beginning with another peer; the first round does not count.

    A round has work of its own: no peer is faster for having seen it before.
    """
    names = list(peers)
    per_s: dict[str, list[float]] = {name: [] for name in names}
    for number, work in enumerate(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.process_time()
            peers[name](work)
            elapsed_s = time.process_time() - started
            if number:
                per_s[name].append(len(work) / max(elapsed_s, 1e-9))
        on_round(number)
    return {name: Rates(tuple(values)) for name, values in per_s.items()}
