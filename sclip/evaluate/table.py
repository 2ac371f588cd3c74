"""Evaluations of one or several models in, a table in a terminal out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from sclip.evaluate.compare import Comparison
from sclip.evaluate.result import Evaluation, Score

__all__ = ["show"]


def show(evaluations: Sequence[Evaluation], comparison: Comparison | None, console: Console) -> None:
    """Print every score with its 95 % interval and its chance; of several models, how sure a difference is.

    The p-value stands at the headline of a benchmark, against the first model.
    """
    first, *others = evaluations
    table = Table(
        Column("score", no_wrap=True), *(Column(e.model, no_wrap=True) for e in evaluations), "chance"
    )
    for result in first.results:
        for name, score in result.scores.items():
            of_others = [other.score(f"{result.name}/{name}") for other in others]
            cells = [_told(score)]
            for model, other in enumerate(of_others, start=1):
                sure = comparison is not None and name == result.headline
                p_value = (
                    comparison.of(result.name, model).p_value if comparison is not None and sure else None
                )
                cells.append(_told(other) + ("" if p_value is None else f" {_p(p_value)}"))
            label = f"{result.name}/{name}"
            table.add_row(
                f"[bold]{label}[/]" if name == result.headline else label, *cells, f"{score.chance:.3f}"
            )
    console.print(table)
    for result in first.results:
        counts = ", ".join(
            f"{count:,} {what.replace('_', ' ')}" for what, count in result.counts.items() if count
        )
        for line in (f"{result.name}: {counts}", *(f"{result.name}: {note}" for note in result.notes)):
            console.print(line, soft_wrap=True, markup=False, highlight=False)


def _told(score: Score) -> str:
    return f"{score.value:.3f} ({score.low:.3f}..{score.high:.3f})"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
