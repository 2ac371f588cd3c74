"""Print a table of the evaluations of one or several models in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sclip.evaluate.compare import Comparison
from sclip.evaluate.result import Evaluation, Score

__all__ = ["show"]


def show(evaluations: Sequence[Evaluation], comparison: Comparison | None, console: Console) -> None:
    """Print every score with its 95 % interval and its chance level, in a table for each model.

    A `comparison` puts all models in one table, with p-values of each headline's difference from the first model.
    """
    if comparison is None and len(evaluations) > 1:
        for evaluation in evaluations:
            console.print(evaluation.model, markup=False)
            show([evaluation], None, console)
        return
    several = comparison is not None
    p_values = comparison.adjusted() if comparison is not None else {}
    table = Table(
        Column("score", overflow="fold"),
        Column("95 % interval", no_wrap=True),
        Column("chance", no_wrap=True),
    )
    if several:
        table.add_column("p", no_wrap=True)
    for result in evaluations[0].results:
        for name, first in result.scores.items():
            label = f"{result.name}/{name}"
            label = f"[bold]{label}[/]" if name == result.headline else label
            table.add_row(label, "" if several else _with_interval(first), f"{first.chance:.3f}")
            if not several:
                continue
            for model, evaluation in enumerate(evaluations):
                tested = model > 0 and name == result.headline
                p_value = _p(p_values[result.name, model]) if tested else ""
                score = evaluation.score(f"{result.name}/{name}")
                last = model == len(evaluations) - 1
                table.add_row(
                    Text(f"  {evaluation.model}"), _with_interval(score), "", p_value, end_section=last
                )
    console.print(table)
    if several:
        console.print("p: McNemar's exact test against the first model, adjusted by Holm", highlight=False)
    for result in evaluations[0].results:
        counts = ", ".join(
            f"{count:,} {unit.replace('_', ' ')}" for unit, count in result.counts.items() if count
        )
        for line in (f"{result.name}: {counts}", *(f"{result.name}: {note}" for note in result.notes)):
            console.print(line, soft_wrap=True, markup=False, highlight=False)


def _with_interval(score: Score) -> str:
    return f"{score.value:.3f} ({score.low:.3f}..{score.high:.3f})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
