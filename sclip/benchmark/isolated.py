"""Rows of a benchmark, each measured in its own process and within a time limit.

A row may raise, crash, hang, run out of memory or leave the GPU's context unusable: its line says so, and the next
row is measured. Figures arrive after every round, so that a row whose time is up keeps those of its finished rounds.
Without torch; what a row imports, its process imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from sclip.benchmark.table import Line

__all__ = ["Figures", "Outcome", "Report", "Row", "measure_rows", "outcome_of"]

Figures = Mapping[str, Sequence[float]]
"""The figures of all rounds so far, by name."""
Report = Callable[[Figures], None]
"""Takes the figures whenever a round is finished; only the last call counts."""

_SHORTEST_S = 5.0
"""A row is not begun with less: its process alone takes as long to start."""


@dataclass(frozen=True)
class Row:
    """A row to be measured; `measure` and `case` travel to another process."""

    what: str
    peer: str
    wanted: str
    measure: Callable[..., str]
    """Called with case, rounds and a `Report`; returns details for the table's end."""
    words: Callable[..., str]
    """Called with the figures, and with those of the row `compared_with`, if that was measured."""
    case: Any
    rounds: int
    limit_s: float
    compared_with: str = ""
    """The name of an earlier row, whose figures `adapt` gets as well."""
    adapt: Callable[[Any, Figures], Any] = lambda case, _: case
    """Called in this process; returns the case to measure, given the figures of the row `compared_with`."""


@dataclass(frozen=True)
class Outcome:
    """What a process reported; `error` is empty where the row was measured to its end."""

    figures: Figures
    details: str = ""
    error: str = ""
    traceback: str = ""


def measure_rows(
    rows: Sequence[Row], seconds: float = float("inf"), on_round: Callable[[int], None] = lambda _: None
) -> Iterator[Line]:
    """Yield the line of each row as soon as it is measured; after `seconds` the rest says that no time was left."""
    deadline = time.monotonic() + seconds
    measured: dict[str, Figures] = {}
    for row in rows:
        left_s = deadline - time.monotonic()
        if left_s < _SHORTEST_S:
            yield Line(row.what, row.peer, row.wanted, "not measured: no time was left for it", {})
            continue
        compared = measured.get(row.compared_with, {})
        case = row.adapt(row.case, compared) if compared else row.case
        outcome = outcome_of(replace(row, case=case), min(row.limit_s, left_s), on_round)
        if not outcome.figures:
            found = f"not measured: {outcome.error or 'it reported no figures'}"
        else:
            measured[row.what] = outcome.figures
            found = row.words(outcome.figures, compared)
            if outcome.error:
                found += f"; not all rounds: {outcome.error}"
        yield Line(row.what, row.peer, row.wanted, found, outcome.figures, outcome.details, outcome.traceback)


def outcome_of(row: Row, limit_s: float, on_round: Callable[[int], None] = lambda _: None) -> Outcome:
    """Measure a row in a process of its own, which is killed after `limit_s` seconds."""
    context = multiprocessing.get_context("forkserver")
    # Forked where its modules are imported already, which takes many seconds, and nothing has touched the GPU.
    context.set_forkserver_preload([getattr(row.measure, "func", row.measure).__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_in_process, args=(sender, row.measure, row.case, row.rounds))
    figures: Figures = {}
    number = 0
    process.start()  # the first time, this waits for the imports
    deadline = time.monotonic() + limit_s
    sender.close()
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            try:
                message = receiver.recv()
            except EOFError:
                process.join(_SHORTEST_S)
                return Outcome(figures, error=_ending(process.exitcode))
            if isinstance(message, Outcome):
                process.join(_SHORTEST_S)
                return replace(message, figures=figures)
            figures, number = message, number + 1
            on_round(number)
        return Outcome(figures, error=f"stopped after {limit_s:.0f} s")
    finally:
        _kill(process)


def _in_process(sender: Connection, measure: Callable[..., str], case: Any, rounds: int) -> None:
    os.setsid()  # one group with the processes that it starts, a compiler's for instance
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        outcome = Outcome({}, details=measure(case, rounds, sender.send))
    except Exception as error:  # whatever it is, it is this row's text
        outcome = Outcome({}, error=_first_line(error), traceback=traceback.format_exc())
    sender.send(outcome)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _ending(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "its process was killed, as one is that takes too much memory"
    return f"its process ended with exit code {exit_code}"


def _kill(process: BaseProcess) -> None:
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(_SHORTEST_S)
