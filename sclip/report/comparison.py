"""Write `comparison.html` for several evaluations: which differences are real, where they lie, and the training curves.

A difference is called real if its p-value (McNemar's test) stays low after Holm's adjustment for the number of
comparisons. The page prints the p-value before this adjustment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sclip.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH
from sclip.report.page import render
from sclip.report.score_bars import FigureRow, called, listed, percent, score_row
from sclip.report.side_by_side import FoldedSides, sides
from sclip.report.steps import Points, chart
from sclip.report.texts import MOST_CHARACTERS, shortened

if TYPE_CHECKING:
    from sclip.evaluate.compare import Comparison, Difference
    from sclip.evaluate.result import Evaluation, Result

__all__ = ["LEVEL", "PAGE", "letter", "write"]

PAGE = "comparison.html"
LEVEL = 0.05
"""Adjusted p-value below which a difference is called real."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Model:
    """A compared model. A letter stands for its name where space is short."""

    index: int
    letter: str
    name: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Headline score of one model, and a verdict on its difference from the first model's score."""

    row: FigureRow
    change: str
    """Signed difference in percentage points; empty for the first model."""
    words: str
    kind: str
    """"good" or "bad" if the model is clearly better or worse than the first one, else "even"."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark; its verdicts and values are in the order of the models."""

    name: str
    headline: str
    definition: str
    notes: list[str]
    verdicts: list[Verdict]
    scores: list[tuple[str, list[str]]]
    """Name of each score except the headline, with the values of all models."""
    sides: FoldedSides


def write(
    comparison: Comparison,
    folder: Path,
    curves: Mapping[str, Mapping[str, Points]] | None = None,
    title: str = "",
) -> Path:
    """Write the page, create the folder if it is missing, and return the page's path.

    Raises EvaluationError if there is no benchmark.

    Up to 8 models have distinct colors. `curves` holds, for each metric, the values by step of each model. Metrics that
    are scores ("vg-relation/macro") are drawn in percent, with the chance level.
    """
    evaluations = comparison.evaluations
    evaluations[0].require_results()
    models = [Model(index, letter(index), shortened(e.model, 120)) for index, e in enumerate(evaluations)]
    adjusted = comparison.adjusted()
    benchmarks = [_benchmark(comparison, result, adjusted) for result in evaluations[0].results]
    facts = _facts(evaluations)
    html = render(
        "comparison.html",
        title=shortened(title, 120) or f"Comparison of {len(models)} models",
        notes=_notes(evaluations),
        models=models,
        level=LEVEL,
        comparisons=len(comparison.differences),
        glance=_glance(models, benchmarks),
        benchmarks=benchmarks,
        charts=[
            chart(name, points_by_model, evaluations) for name, points_by_model in (curves or {}).items()
        ],
        plot={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "bottom": BOTTOM},
        differ={name: values for name, values in facts.items() if len(set(values)) > 1},
        shared={name: values[0] for name, values in facts.items() if len(set(values)) == 1},
    )
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    page.write_text(html, encoding="utf-8")
    return page


def letter(index: int) -> str:
    """Return the letter of a model: "A" for index 0, "Z" for index 25. Later models get numbers: "27" for index 26."""
    return _LETTERS[index] if index < len(_LETTERS) else str(index + 1)


def _benchmark(comparison: Comparison, first: Result, adjusted: Mapping[tuple[str, int], float]) -> Benchmark:
    results = [next(r for r in e.results if r.name == first.name) for e in comparison.evaluations]
    verdicts = [Verdict(score_row("", first.scores[first.headline]), "", "", "even")]
    for index, result in enumerate(results[1:], start=1):
        difference = comparison.of(first.name, index)
        words, kind = verdict(difference, adjusted[first.name, index], len(first.won))
        row = score_row("", result.scores[first.headline])
        verdicts.append(Verdict(row, _points(difference.change), words, kind))
    names = dict.fromkeys(name for result in results for name in result.scores if name != first.headline)
    values = [
        (called(name), [percent(r.scores[name].value) if name in r.scores else "" for r in results])
        for name in names
    ]
    notes = dict.fromkeys(shortened(note, MOST_CHARACTERS) for result in results for note in result.notes)
    return Benchmark(
        shortened(first.name, 80),
        called(first.headline),
        shortened(first.definition, MOST_CHARACTERS),
        list(notes),
        verdicts,
        values,
        sides([result.groups for result in results]),
    )


def verdict(difference: Difference, adjusted: float, cases: int) -> tuple[str, str]:
    """Return a verdict in words and as `Verdict.kind`. `adjusted` is the p-value after Holm's adjustment."""
    p_value = _p(difference.p_value)
    if difference.p_value < LEVEL <= adjusted:
        return f"no clear difference among so many comparisons, {p_value}", "even"
    if adjusted >= LEVEL:
        return f"no clear difference on {cases:,} cases, {p_value}", "even"
    wins = difference.only_other > difference.only_first
    if difference.change and (difference.change > 0) is not wins:
        cases_won, score = ("more", "lower") if wins else ("fewer", "higher")
        return f"wins {cases_won} cases, but its score is {score}, {p_value}", "even"
    return ("better, " if wins else "worse, ") + p_value, "good" if wins else "bad"


def _p(value: float) -> str:
    shown = "p < 0.001" if value < 0.001 else f"p = {value:.2g}" if value < 0.1 else f"p = {value:.2f}"
    return shown.replace(" ", "\N{NO-BREAK SPACE}")


def _points(change: float) -> str:
    return f"{100 * change:+.1f}".replace("-", "−") if math.isfinite(change) else "no number"


def _glance(models: Sequence[Model], benchmarks: Sequence[Benchmark]) -> list[tuple[Model, str]]:
    """Return a summary for each model except the first: where it is better or worse than the first."""
    summaries = []
    for model in models[1:]:
        names_by_kind: dict[str, list[str]] = {"good": [], "bad": [], "even": []}
        for benchmark in benchmarks:
            names_by_kind[benchmark.verdicts[model.index].kind].append(benchmark.name)
        parts = [
            f"{label} on {listed(names_by_kind[kind])}"
            for label, kind in (("better", "good"), ("worse", "bad"))
            if names_by_kind[kind]
        ]
        even = names_by_kind["even"]
        if len(even) == len(benchmarks) > 1:
            parts.append(f"no clear difference on any of {len(even)} benchmarks")
        elif even:
            parts.append(
                f"no clear difference on {listed(even) if len(even) < 4 else f'the other {len(even)}'}"
            )
        summaries.append((model, "; ".join(parts)))
    return summaries


def _notes(evaluations: Sequence[Evaluation]) -> list[str]:
    known = {result.name for result in evaluations[0].results}
    more = dict.fromkeys(r.name for e in evaluations[1:] for r in e.results if r.name not in known)
    return (
        [f"Not compared, because {shortened(evaluations[0].model, 80)} lacks it: {listed(list(more))}."]
        if more
        else []
    )


def _facts(evaluations: Sequence[Evaluation]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for evaluation in evaluations for name in evaluation.facts)
    return {name: [evaluation.facts.get(name, "") for evaluation in evaluations] for name in names}
