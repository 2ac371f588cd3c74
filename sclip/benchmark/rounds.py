"""Run peers on the same work in turns, so that other load on the machine affects all of them alike.

Rates are per second of the process's own CPU time, not of wall-clock time, because other programs share the cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

_Work = TypeVar("_Work")
_Measured = TypeVar("_Measured")


class BenchmarkError(RuntimeError):
    """Error of a benchmark that cannot run; the message says what to change."""


def in_turns(
    peers: Mapping[str, Callable[[int], _Measured]],
    rounds: int,
    on_round: Callable[[int], None] = lambda _: None,
) -> Iterator[dict[str, list[_Measured]]]:
    """Call every peer once per round, in a rotating order. After each round, yield each peer's results so far."""
    names = list(peers)
    measured: dict[str, list[_Measured]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            measured[name].append(peers[name](number))
        on_round(number)
        yield measured


def rates_of(
    peers: Mapping[str, Callable[[Sequence[_Work]], None]],
    rounds: Sequence[Sequence[_Work]],
    on_round: Callable[[int], None],
) -> dict[str, list[float]]:
    """Run the peers in turns; return each peer's elements per CPU second, without the first round, which warms up.

    `rounds` holds each round's elements, such as captions. They never repeat: a peer may be faster on what it has seen.
    """

    def rate(peer: Callable[[Sequence[_Work]], None], number: int) -> float:
        started = time.process_time()
        peer(rounds[number])
        return len(rounds[number]) / max(time.process_time() - started, 1e-9)

    sides = {name: partial(rate, peer) for name, peer in peers.items()}
    *_, per_s = in_turns(sides, len(rounds), on_round)
    return {name: values[1:] for name, values in per_s.items()}
