"""What each blend of two models gains and keeps on a development split, in; the blend to take, out.

The rule: of the blends that keep at least a share of the start's kept score, the one that gains most; of several, the
one that keeps most, then the one nearest to the start. The start itself keeps all of it, so there always is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from statistics import fmean

from sclip.evaluate.result import Evaluation, EvaluationError, Score

__all__ = ["Point", "Tradeoff", "cheapest", "choose", "point"]

_ROUNDING = 1e-9
"""0.98 of 0.5 is more than 0.49 in binary."""


@dataclass(frozen=True, slots=True)
class Point:
    """One blend on the development split."""

    a: float
    """Share of the trained model."""
    gained: Score
    kept: Score


@dataclass(frozen=True)
class Tradeoff:
    """The blends by rising `a`, and the chosen one."""

    gained: str
    """Name of the score, "benchmark/score"."""
    kept: str
    keep: float
    """The least share of the start's kept score."""
    points: list[Point]
    """The first one is the start, the last one the trained model."""
    chosen: Point


def point(a: float, measured: Evaluation, gained: str, kept: str) -> Point:
    """Return what was measured of a blend. Raises EvaluationError where it has no score of such a name.

    "relation/accuracy+attribute/accuracy" is the mean of the two, its interval the mean of theirs.
    """
    try:
        return Point(a, _mean(measured, gained), _mean(measured, kept))
    except KeyError as error:
        there = ", ".join(f"{r.name}/{score}" for r in measured.results for score in r.scores)
        raise EvaluationError(f"the development split has no score {error}; it has {there}") from error


def choose(points: Sequence[Point], gained: str, kept: str, keep: float) -> Tradeoff:
    """Return the trade-off of points by rising `a`, the first of the start.

    Raises EvaluationError where the start's own scores are none to compare with.
    """
    start = points[0]
    if not (start.kept.value > 0 and math.isfinite(start.gained.value)):
        values = f"{kept} {start.kept.value:g} and {gained} {start.gained.value:g}"
        raise EvaluationError(f"the start has {values}: nothing to keep, or nothing to compare a gain with")
    least = keep * start.kept.value - _ROUNDING
    able = [p for p in points if math.isfinite(p.gained.value) and p.kept.value >= least]
    best = max(able, key=lambda p: (p.gained.value, p.kept.value, -p.a))
    return Tradeoff(gained, kept, keep, list(points), best)


def cheapest(points: Sequence[Point], target: float) -> Point:
    """Return the point that keeps most of those whose gained score is the target or more; without one, the nearest."""
    able = [p for p in points if p.gained.value >= target - _ROUNDING]
    if not able:
        return max(points, key=lambda p: (p.gained.value, p.kept.value, -p.a))
    return max(able, key=lambda p: (p.kept.value, p.gained.value, -p.a))


def _mean(measured: Evaluation, names: str) -> Score:
    scores = (astuple(measured.score(name)) for name in names.split("+"))
    return Score(*(fmean(values) for values in zip(*scores, strict=True)))
