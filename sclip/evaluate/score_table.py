"""Build the score table of a paper: a row for each evaluated model, below rows of published scores."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sclip.evaluate import published
from sclip.evaluate.compare import differing, paired_interval
from sclip.evaluate.result import Evaluation, EvaluationError, Result, Score

__all__ = ["MISSING", "PARTIAL_MARK", "Cell", "ScoreTable", "TableRow", "score_table"]

MISSING = "–"
PARTIAL_MARK = "†"

_BOTH_WAYS = ["image_to_text_r1", "text_to_image_r1"]
_SHORT = {"image_to_text": "I2T", "text_to_image": "T2I"}


@dataclass(frozen=True, slots=True)
class Cell:
    """The score in one column of a row, in per cent."""

    text: str = MISSING
    interval: str = ""
    """The 95 % interval of a score that was measured here, such as "58.1 to 61.7"."""
    is_partial: bool = False
    is_bold: bool = False


@dataclass(frozen=True)
class TableRow:
    """The scores of one model."""

    label: str
    cells: list[Cell]
    source: str = ""
    """Letter that stands for the publication in the table's caption; empty for scores measured here."""


@dataclass(frozen=True)
class ScoreTable:
    """Content of the table."""

    columns: list[tuple[str, str]]
    """For each column, the titles of the benchmark and of the score."""
    published: list[TableRow]
    measured: list[TableRow]
    caption: list[str]
    """Sentences to print below the table."""


@dataclass(frozen=True, slots=True)
class _Figure:
    value: float
    result: Result | None = None
    score: Score | None = None


def score_table(evaluations: Sequence[Evaluation], benchmarks: Sequence[str] = ()) -> ScoreTable:
    """Return a table with the scores of these models, and with published scores on the same benchmarks.

    `benchmarks` names the benchmarks to show, in order; empty means all. A score on part of a benchmark is marked and
    not compared. Raises EvaluationError if two models got different cases, or if there is no column to show.
    """
    by_name = [{result.name: result for result in evaluation.results} for evaluation in evaluations]
    names = list(benchmarks or dict.fromkeys(name for results in by_name for name in results))
    for name in names:
        _require_same_cases(name, evaluations, [results.get(name) for results in by_name])
    columns = [(name, score) for name in names for score in _scores(name, by_name)]
    if not columns:
        raise EvaluationError("no model was evaluated on any of the benchmarks; there is nothing to show")
    scores = [f"{name}/{score}" for name, score in columns]
    rows = [row for row in published.rows().values() if row.scores.keys() & set(scores)]
    sources = published.sources(rows, scores)
    letters = {source: chr(ord("a") + index) for index, source in enumerate(sources)}
    cells = [
        _cells(
            score,
            [
                _Figure(row.scores[f"{name}/{score}"]) if f"{name}/{score}" in row.scores else None
                for row in rows
            ]
            + [_measured(results.get(name), score) for results in by_name],
        )
        for name, score in columns
    ]
    by_row = [list(row) for row in zip(*cells, strict=True)]
    return ScoreTable(
        [(_name(name), _called(score)) for name, score in columns],
        [
            TableRow(f"{row.label}, {row.note}" if row.note else row.label, row_cells, letters[row.source])
            for row, row_cells in zip(rows, by_row, strict=False)
        ],
        [TableRow(e.model, row_cells) for e, row_cells in zip(evaluations, by_row[len(rows) :], strict=True)],
        _caption(
            by_row,
            [score for _, score in columns],
            {letters[s]: f"{s}: {label}" for s, label in sources.items()},
        ),
    )


def _require_same_cases(
    name: str, evaluations: Sequence[Evaluation], results: Sequence[Result | None]
) -> None:
    complete = [
        (evaluation.model, result)
        for evaluation, result in zip(evaluations, results, strict=True)
        if result and not result.is_partial
    ]
    for model, result in complete[1:]:
        if why := differing(complete[0][1], result):
            raise EvaluationError(
                f"{name}: {complete[0][0]} and {model} were tested on {why}; evaluate both on the same files"
            )


def _scores(name: str, by_name: Sequence[Mapping[str, Result]]) -> list[str]:
    """Return the scores to show: those that papers report, else R@1 in both directions, else the headline."""
    results = [row[name] for row in by_name if name in row]
    reported = published.headings()[name].scores if name in published.headings() else []
    if not results or any(result.scores.keys() & set(reported) for result in results):
        return reported
    result = results[0]
    return _BOTH_WAYS if result.scores.keys() >= set(_BOTH_WAYS) else [result.headline]


def _measured(result: Result | None, score: str) -> _Figure | None:
    if result is None or score not in result.scores:
        return None
    return _Figure(result.scores[score].value, result, result.scores[score])


def _cells(score: str, figures: Sequence[_Figure | None]) -> list[Cell]:
    compared = [
        figure for figure in figures
        if figure and math.isfinite(figure.value) and not (figure.result and figure.result.is_partial)
    ]  # fmt: skip
    best = max(compared, key=lambda figure: figure.value, default=None)
    cells = []
    for figure in figures:
        cell = _cell(figure)
        if best and figure in compared and figure:
            cell = replace(cell, is_bold=_is_level(figure, best, score))
        cells.append(cell)
    return cells


def _cell(figure: _Figure | None) -> Cell:
    if figure is None:
        return Cell()
    if not math.isfinite(figure.value):
        return Cell("no number")
    if not (figure.result and figure.score):
        return Cell(f"{100 * figure.value:.1f}")
    interval = f"{100 * figure.score.low:.1f} to {100 * figure.score.high:.1f}"
    return Cell(f"{100 * figure.value:.1f}", interval, figure.result.is_partial)


def _is_level(figure: _Figure, best: _Figure, score: str) -> bool:
    """Return whether a score is not clearly lower than its column's best, by the rule that `_caption` prints."""
    if figure.value == best.value:
        return True
    if figure.result and best.result and score == figure.result.headline == best.result.headline:
        low, high = paired_interval(best.result, figure.result)
        return low <= 0 <= high
    if figure.score:
        return figure.score.low <= best.value <= figure.score.high
    return best.score is not None and best.score.low <= figure.value <= best.score.high


def _name(benchmark: str) -> str:
    known = published.headings().get(benchmark)
    return known.name if known else benchmark


def _called(score: str) -> str:
    """Return a score's short name: "I2T R@1" for image_to_text_r1."""
    for long, short in _SHORT.items():
        score = score.replace(long, short)
    score = re.sub(r"_r(\d+)$", r" R@\1", score)
    return re.sub(r"^top(?=\d)", "top ", score).replace("_", " ")


def _caption(rows: Sequence[Sequence[Cell]], scores: Sequence[str], sources: Mapping[str, str]) -> list[str]:
    cells = [cell for row in rows for cell in row]
    sentences = ["Scores in per cent, higher is better."]
    if "macro" in scores:
        sentences.append("macro: mean over the benchmark's groups, each counting alike.")
    if any(score.startswith(tuple(_SHORT)) for score in scores):
        sentences.append("I2T: finding the caption of an image; T2I: finding the image of a caption.")
    sentences.append(
        "Bold: the best score of a column, and those that are not clearly lower. A score is clearly lower if the 95 % "
        "interval of its difference from the best, paired over the cases, excludes 0. Without the answers to the "
        "cases, the 95 % interval of the lower score (or else of the best) must exclude the other score."
    )
    if any(cell.text == MISSING for cell in cells):
        sentences.append(f"{MISSING}: not measured, or not published.")
    if any(cell.is_partial for cell in cells):
        sentences.append(f"{PARTIAL_MARK}: measured on a part of the benchmark, so not compared.")
    if sources:
        sentences.append("Published, for ViT-B/32 unless the row says otherwise:")
        sentences[-1] += " " + "; ".join(f"({letter}) {labels}" for letter, labels in sources.items()) + "."
    return sentences
