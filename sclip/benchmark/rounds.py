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
_Measured = TypeVar("_Measured")


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
    peers: Mapping[str, Callable[[int], _Measured]], rounds: int, on_round: Callable[[int], None]
) -> dict[str, list[_Measured]]:
    """Call every peer with the number of every round, each round beginning with another peer; return what they did."""
    names = list(peers)
    measured: dict[str, list[_Measured]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            measured[name].append(peers[name](number))
        on_round(number)
    return measured


def rates_of(
    peers: Mapping[str, Callable[[Sequence[_Work]], None]],
    rounds: Sequence[Sequence[_Work]],
    on_round: Callable[[int], None],
) -> dict[str, Rates]:
    """Run every peer on every round's work in turns; the first round does not count.

    A round has work of its own: no peer is faster for having seen it before.
    """

    def timed(peer: Callable[[Sequence[_Work]], None]) -> Callable[[int], float]:
        def rate(number: int) -> float:
            started = time.process_time()
            peer(rounds[number])
            return len(rounds[number]) / max(time.process_time() - started, 1e-9)

        return rate

    per_s = in_turns({name: timed(peer) for name, peer in peers.items()}, len(rounds), on_round)
    return {name: Rates(tuple(values[1:])) for name, values in per_s.items()}
