"""The choice of a blend, against tables computed by hand."""

from __future__ import annotations

import math

import pytest

from sclip.evaluate.result import EvaluationError, Score
from sclip.evaluate.tradeoff import Point, cheapest, choose, point
from support.registered import RECALL, RELATION, evaluation


def points(*values: tuple[float, float]) -> list[Point]:
    """Return points with these (gained, kept) scores, at evenly spaced a from 0 to 1."""
    steps = len(values) - 1
    return [
        Point(n / steps, *(Score(value, value, value, 0.5) for value in pair))
        for n, pair in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("keep", "values", "chosen"),
    [
        (0.98, [(0.60, 0.50), (0.66, 0.51), (0.72, 0.49), (0.78, 0.48), (0.80, 0.40)], 0.5),  # 0.49 is 98 % of 0.50
        (0.95, [(0.60, 0.50), (0.66, 0.51), (0.72, 0.49), (0.78, 0.48), (0.80, 0.40)], 0.75),
        (0.0, [(0.60, 0.50), (0.66, 0.51), (0.72, 0.49), (0.78, 0.48), (0.80, 0.40)], 1.0),
        (1.0, [(0.60, 0.50), (0.55, 0.60), (0.80, 0.49)], 0.0),  # the only points that keep enough gain nothing
        (0.98, [(0.60, 0.50), (0.70, 0.50), (0.70, 0.52), (0.70, 0.52), (0.60, 0.60)], 0.5),  # ties
        (0.98, [(0.60, 0.50), (math.nan, 0.60), (0.90, math.nan), (0.61, 0.50)], 1.0),  # a model that diverged
    ],
)  # fmt: skip
def test_the_largest_gain_that_keeps_enough_is_taken(
    keep: float, values: list[tuple[float, float]], chosen: float
) -> None:
    assert choose(points(*values), RELATION, RECALL, keep).chosen.a == chosen


@pytest.mark.parametrize(("target", "chosen"), [(0.7, 0.5), (0.72, 0.75), (0.9, 0.75), (0.0, 0.25)])
def test_the_point_that_keeps_most_of_those_that_gain_enough_is_taken_else_the_largest_gain(
    target: float, chosen: float
) -> None:
    values = (0.60, 0.50), (0.66, 0.51), (0.72 - 0.01, 0.49), (0.78, 0.48), (0.76, 0.40)
    assert cheapest(points(*values), target).a == chosen


@pytest.mark.parametrize("start", [(0.6, 0.0), (0.6, math.nan), (math.nan, 0.5)])
def test_a_start_without_a_score_is_refused(start: tuple[float, float]) -> None:
    with pytest.raises(EvaluationError, match=f"the start has {RECALL} .* the first must be above 0"):
        choose(points(start, (0.7, 0.5)), RELATION, RECALL, 0.98)


def test_a_score_is_found_by_name_and_an_unknown_name_is_refused_with_the_known_ones() -> None:
    measured = evaluation({RELATION: 0.7, RECALL: 0.4})
    blend = point(0.5, measured, RELATION, RECALL)
    assert (blend.gained.value, blend.gained.low, blend.kept.value) == (0.7, 0.7 - 0.02, 0.4)
    assert point(0.5, measured, f"{RELATION}+{RECALL}", RECALL).gained.value == pytest.approx(0.55)
    with pytest.raises(EvaluationError, match=f"no score 'coco/top1'; it has {RELATION}, {RECALL}"):
        point(0.5, measured, RELATION, "coco/top1")
