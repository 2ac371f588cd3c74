"""Rank the trials of a sweep, and print them as a table in the terminal, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sclip.report.texts import shortened

__all__ = ["TrialLike", "ranked", "show"]

_NO_SCORES = ("cases", "images", "captions")


class TrialLike(Protocol):
    """Properties of `sclip.run.sweep.Trial` that the table shows."""

    @property
    def name(self) -> str:
        """Name of the trial's run."""
        ...

    @property
    def point(self) -> Mapping[str, Any]:
        """Settings of the trial, by dotted key."""
        ...

    @property
    def scores(self) -> Mapping[str, float]:
        """Scores of the trial by name; empty if it failed."""
        ...

    @property
    def error(self) -> str:
        """Reason why the trial failed; empty if it did not."""
        ...


_Trial = TypeVar("_Trial", bound=TrialLike)


def ranked(trials: Sequence[_Trial], score: str) -> list[_Trial]:
    """Return the trials by a score, highest first; trials without the score come last."""

    def rank(trial: _Trial) -> float:
        value = trial.scores.get(score, math.nan)
        return math.inf if math.isnan(value) else -value

    return sorted(trials, key=rank)


def show(trials: Sequence[TrialLike], score: str, console: Console) -> None:
    """Print a table of the trials, then the errors of failed trials.

    The columns are the run, the settings, `score`, and the first score of each other benchmark.
    """
    keys = list(dict.fromkeys(key for trial in trials for key in trial.point))
    names = [name for trial in trials for name in trial.scores if name.rpartition("/")[2] not in _NO_SCORES]
    first = {name.partition("/")[0]: name for name in [*reversed(names), score]}
    shown = [score, *(name for name in reversed(first.values()) if name != score)] if names else []
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("run", *keys, *shown):
        table.add_column(
            heading,
            justify="left" if heading == "run" else "right",
            overflow="fold",
            no_wrap=heading in ("run", score),
        )
    for trial in ranked(trials, score):
        cells = [f"{trial.scores[name]:.3f}" if name in trial.scores else "–" for name in shown]
        table.add_row(trial.name, *(escape(str(trial.point.get(key, ""))) for key in keys), *cells)
    console.print(table)
    for trial in trials:
        if trial.error:
            line = f"{trial.name} failed: {shortened(trial.error, 300)}"
            console.print(line, soft_wrap=True, markup=False, highlight=False)
