"""Write `report.html` for one evaluation: the scores, what they mean, and wrong cases to judge by eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sclip.report.page import render
from sclip.report.score_bars import (
    DIVERGED,
    FigureRow,
    Folding,
    called,
    folded_groups,
    headline_row,
    listed,
    score_row,
)
from sclip.report.texts import MOST_CHARACTERS, shortened
from sclip.report.wrong import GraphsOf, Wrong, drawn_captions, wrong_cases
from sclip.scenegraph import SceneGraph

if TYPE_CHECKING:
    from sclip.evaluate.result import Evaluation, Result

__all__ = ["PAGE", "GateVerdict", "write"]

PAGE = "report.html"

_GROUPED_BY = {
    "vg-relation": "relation",
    "vg-attribution": "pair of attributes",
    "whatsup-controlled": "relation",
    "whatsup-coco": "relation",
    "whatsup-vg": "relation",
    "mmvp-vlm": "visual pattern",
    "zero-shot": "class",
}
"""What the cases of a group have in common, for each kind of benchmark."""


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Decision of the model registry's gates (conditions that a model must meet to become champion)."""

    title: str
    """Decision in words, such as "refused" or "promoted to champion, version 7"."""
    passed: bool
    gates: list[tuple[str, bool]]
    """Each gate in words with its figures, and whether the model passed it."""


@dataclass(frozen=True, slots=True)
class PageSection:
    """Section of one benchmark."""

    link: str
    name: str
    definition: str
    notes: list[str]
    scores: list[FigureRow]
    counts: list[tuple[str, str]]
    grouped_by: str
    groups: Folding
    wrong: list[Wrong]
    lost: int
    """Number of cases that the model got wrong; `wrong` shows some of them."""


def write(
    evaluation: Evaluation,
    folder: Path,
    *,
    graphs: GraphsOf | None = None,
    decision: GateVerdict | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page, create the folder if it is missing, and return the page's path.

    `graphs` is the parser that the model was trained with; without it, the page shows no graphs. `notes` are lines at
    the top of the page. Raises EvaluationError if there are no results.
    """
    evaluation.require_results()
    results = evaluation.results
    captions = drawn_captions(example for r in results for example in r.examples) if graphs else []
    parsed = dict(zip(captions, graphs(captions), strict=True)) if graphs else {}
    sections = [_section(f"benchmark-{n}", result, parsed) for n, result in enumerate(results, start=1)]
    overview = [headline_row(r, s.link) for r, s in zip(results, sections, strict=True)]
    html = render(
        "evaluation.html",
        title=f"Evaluation of {shortened(evaluation.model, 120)}",
        notes=[_size_line(evaluation), *(shortened(note, MOST_CHARACTERS) for note in notes)],
        glance=_glance(results, overview),
        overview=overview,
        sections=sections,
        decision=decision,
        facts=evaluation.facts,
    )
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    page.write_text(html, encoding="utf-8")
    return page


def _section(link: str, result: Result, parsed: dict[str, SceneGraph]) -> PageSection:
    first = result.headline
    names = [first, *(name for name in result.scores if name != first)]
    return PageSection(
        link,
        shortened(result.name, 80),
        shortened(result.definition, MOST_CHARACTERS),
        [shortened(note, MOST_CHARACTERS) for note in result.notes],
        [score_row(called(name), result.scores[name]) for name in names],
        [(called(name), f"{count:,}") for name, count in result.counts.items()],
        _GROUPED_BY.get(result.kind, "group"),
        folded_groups(result.groups),
        wrong_cases(result.examples, parsed),
        sum(not won for won in result.won.values()),
    )


def _size_line(evaluation: Evaluation) -> str:
    count, cases = len(evaluation.results), sum(len(result.won) for result in evaluation.results)
    suite = evaluation.facts.get("suite", "")
    suffix = f" of the suite {shortened(suite, 80)}" if suite else ""
    return f"{cases:,} cases in {count} {'benchmark' if count == 1 else 'benchmarks'}{suffix}"


def _glance(results: Sequence[Result], overview: Sequence[FigureRow]) -> list[str]:
    names_by_verdict: dict[str, list[str]] = {}
    for result, row in zip(results, overview, strict=True):
        names_by_verdict.setdefault(row.verdict, []).append(result.name)
    above = names_by_verdict.pop("above chance", [])
    lines = [
        f"Above chance on {len(above)} of {len(results)} {'benchmark' if len(results) == 1 else 'benchmarks'}."
    ]
    words = {
        "no clear difference from chance": "No clear difference from chance",
        "below chance": "Below chance",
        DIVERGED: "No number, because the model has diverged",
    }
    lines += [f"{words[verdict]}: {listed(names)}." for verdict, names in names_by_verdict.items()]
    return lines
