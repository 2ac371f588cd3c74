"""Choose a blend of a start model and a trained model by two scores on a development split.

The weights of a blend are (1 - a) * start + a * trained. A blend should raise one score (`gained`) and
keep the other high (`kept`). A blend is a candidate if its kept score is at least `keep` times the start model's.
The candidate with the highest gained score is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from statistics import fmean

from sclip.evaluate.result import Evaluation, EvaluationError, Score

__all__ = ["Point", "Tradeoff", "cheapest", "choose", "point"]

_ROUNDING = 1e-9
"""Tolerance for rounding: Python computes 0.98 * 0.67 as a little more than 0.6566."""


@dataclass(frozen=True, slots=True)
class Point:
    """Scores of one blend on the development split."""

    a: float
    """Share of the trained model in the blend."""
    gained: Score
    kept: Score


@dataclass(frozen=True)
class Tradeoff:
    """The blends in order of rising `a`, and the chosen one."""

    gained: str
    """Name of the score to raise, "benchmark/score"."""
    kept: str
    keep: float
    """Minimum kept score of a candidate, as a share of the start model's kept score."""
    points: list[Point]
    """The first point is the start model, the last one the trained model."""
    chosen: Point


def point(a: float, measured: Evaluation, gained: str, kept: str) -> Point:
    """Return the scores of a blend. Raises EvaluationError if its evaluation lacks a score.

    The name "relation/accuracy+attribute/accuracy" stands for the mean of these two scores.
    """
    try:
        return Point(a, _mean(measured, gained), _mean(measured, kept))
    except KeyError as error:
        available = ", ".join(f"{r.name}/{score}" for r in measured.results for score in r.scores)
        raise EvaluationError(f"the development split has no score {error}; it has {available}") from error


def choose(points: Sequence[Point], gained: str, kept: str, keep: float) -> Tradeoff:
    """Choose a blend. `points` must be in order of rising `a`; the first point is the start model.

    Raises EvaluationError if the start model's kept score is not positive, or its gained score is not finite.
    """
    start = points[0]
    if not (start.kept.value > 0 and math.isfinite(start.gained.value)):
        values = f"{kept} {start.kept.value:g} and {gained} {start.gained.value:g}"
        raise EvaluationError(f"the start has {values}: the first must be above 0, the second finite")
    least = keep * start.kept.value - _ROUNDING
    candidates = [p for p in points if math.isfinite(p.gained.value) and p.kept.value >= least]
    best = max(candidates, key=lambda p: (p.gained.value, p.kept.value, -p.a))
    return Tradeoff(gained, kept, keep, list(points), best)


def cheapest(points: Sequence[Point], target: float) -> Point:
    """Return the point with the highest kept score among points that gain at least `target`.

    If there is none, return the point with the highest gained score.
    """
    candidates = [p for p in points if p.gained.value >= target - _ROUNDING]
    if not candidates:
        return max(points, key=lambda p: (p.gained.value, p.kept.value, -p.a))
    return max(candidates, key=lambda p: (p.kept.value, p.gained.value, -p.a))


def _mean(measured: Evaluation, names: str) -> Score:
    # The ends of the interval are averaged too.
    scores = (astuple(measured.score(name)) for name in names.split("+"))
    return Score(*(fmean(values) for values in zip(*scores, strict=True)))
