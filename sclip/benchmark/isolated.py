"""Measure the rows of a benchmark, each in its own process and within a time limit.

A row may raise, crash, hang, run out of memory or leave the GPU's context unusable: its line says so, and the next
row is measured. Figures arrive after every round, so that a row whose time is up keeps those of its finished rounds.
This module does not import torch; a row's process imports what the row needs.
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
"""Receives the figures of all rounds so far after each round; only the last call counts."""

_SHORTEST_S = 5.0
"""Minimum seconds that must be left to start a row; starting its process alone takes that long."""


@dataclass(frozen=True)
class Row:
    """Row to be measured; `measure` and `case` are pickled for its process."""

    what: str
    peer: str
    wanted: str
    measure: Callable[..., str]
    """Called with case, rounds and a `Report`; returns details for the table's end."""
    words: Callable[..., str]
    """Called with this row's figures and those of the row `compared_with` (or an empty mapping); returns the result."""
    case: Any
    rounds: int
    limit_s: float
    compared_with: str = ""
    """Name of an earlier row; `words` and `adapt` get its figures."""
    adapt: Callable[[Any, Figures], Any] = lambda case, _: case
    """Called in this process; returns the case to measure, given the figures of the row `compared_with`."""


@dataclass(frozen=True)
class Outcome:
    """Report of a row's process; `error` is empty if all rounds were measured."""

    figures: Figures
    details: str = ""
    error: str = ""
    traceback: str = ""


def measure_rows(
    rows: Sequence[Row], seconds: float = float("inf"), on_round: Callable[[int], None] = lambda _: None
) -> Iterator[Line]:
    """Yield each row's line as soon as it is measured; rows not started within `seconds` say that no time was left."""
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
            text = f"not measured: {outcome.error or 'it reported no figures'}"
        else:
            measured[row.what] = outcome.figures
            text = row.words(outcome.figures, compared)
            if outcome.error:
                text += f"; not all rounds: {outcome.error}"
        yield Line(row.what, row.peer, row.wanted, text, outcome.figures, outcome.details, outcome.traceback)


def outcome_of(row: Row, limit_s: float, on_round: Callable[[int], None] = lambda _: None) -> Outcome:
    """Measure a row in its own process, and kill that process after `limit_s` seconds."""
    context = multiprocessing.get_context("forkserver")
    # The fork server has already imported the row's modules, which takes many seconds, and has not touched the GPU.
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
    os.setsid()  # one process group with its children, such as a compiler's
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        outcome = Outcome({}, details=measure(case, rounds, sender.send))
    except Exception as error:  # any error becomes this row's text
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
        return "its process was killed, probably for taking too much memory"
    return f"its process ended with exit code {exit_code}"


def _kill(process: BaseProcess) -> None:
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(_SHORTEST_S)
