"""Measure the rows of a benchmark, each in its own process and within a time limit.

A row may raise, crash, hang, run out of memory or leave the GPU's context unusable. Then its line in the table says so,
and the next row is measured. The row's process sends its figures after every round, so a row that runs out of time
keeps the figures of finished rounds. This module does not import torch.
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
"""Lists of numbers by name, such as "step_s": one number per finished round, or one for the whole row."""
Report = Callable[[Figures], None]
"""Function that a row calls after each round with its figures so far. Each call replaces the earlier figures."""

_SHORTEST_S = 5.0
"""Minimum seconds that must be left to start a row: starting its process takes as long."""


@dataclass(frozen=True)
class Row:
    """Row to be measured. `measure` and `case` are pickled for the row's process."""

    what: str
    peer: str
    wanted: str
    measure: Callable[..., str]
    """Function (case, rounds, report) that measures the row; it returns details for the end of the table."""
    words: Callable[..., str]
    """Function (figures of this row, figures of the row `compared_with` or {}) that returns the result as text."""
    case: Any
    rounds: int
    limit_s: float
    compared_with: str = ""  # `what` of an earlier row
    adapt: Callable[[Any, Figures], Any] = lambda case, _: case
    """Function (case, figures of the row `compared_with`) that returns the case to measure."""


@dataclass(frozen=True)
class Outcome:
    """Result of a row's process; `error` is empty if all rounds were measured."""

    figures: Figures
    details: str = ""
    error: str = ""
    traceback: str = ""


def measure_rows(
    rows: Sequence[Row], seconds: float = float("inf"), on_round: Callable[[int], None] = lambda _: None
) -> Iterator[Line]:
    """Yield each row's line as soon as the row is measured. If `seconds` end before a row starts, its line says so."""
    deadline = time.monotonic() + seconds
    measured: dict[str, Figures] = {}
    for row in rows:
        remaining_s = deadline - time.monotonic()
        if remaining_s < _SHORTEST_S:
            yield Line(row.what, row.peer, row.wanted, "not measured: no time was left for it", {})
            continue
        compared = measured.get(row.compared_with, {})
        case = row.adapt(row.case, compared) if compared else row.case
        outcome = outcome_of(replace(row, case=case), min(row.limit_s, remaining_s), on_round)
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
    # The fork server imports the row's modules once, which takes many seconds, and does not touch the GPU.
    context.set_forkserver_preload([getattr(row.measure, "func", row.measure).__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_in_process, args=(sender, row.measure, row.case, row.rounds))
    figures: Figures = {}
    number = 0
    process.start()  # the first start waits for the imports
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
    os.setsid()  # a new process group, which includes children such as compilers
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
