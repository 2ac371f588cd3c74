"""Chart one metric of several models by step, with the newest value of each model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sclip.report.charts import Curves, curves, number
from sclip.report.texts import shortened

if TYPE_CHECKING:
    from sclip.evaluate.result import Evaluation

Points = Sequence[tuple[int, float]]
"""Values by step; a value that is not finite interrupts the curve."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Chart of one metric."""

    name: str
    unit: str
    """"%" or empty."""
    drawing: Curves | None
    """Curves of the metric; None if there is no finite value."""
    last: list[tuple[int, str]]
    """(index of a model, its newest value) pairs."""
    left_out: int
    """Number of values that are not finite."""


def chart(name: str, points_by_model: Mapping[str, Points], evaluations: Sequence[Evaluation]) -> Chart:
    """Return the chart of a metric. If the metric is a score of the evaluations, draw percent and the chance level."""
    scores = {
        f"{r.name}/{key}": score for e in evaluations for r in e.results for key, score in r.scores.items()
    }
    factor, unit = (100.0, "%") if name in scores else (1.0, "")
    chance = factor * scores[name].chance if name in scores else math.nan
    series = [
        [(step, factor * value) for step, value in points_by_model.get(e.model, ())] for e in evaluations
    ]
    drawing = curves(series, chance)
    lines = drawing.lines if drawing else []
    last = [(line.index, f"{line.last:.1f}" if unit else number(line.last)) for line in lines]
    return Chart(shortened(name, 80), unit, drawing, last, sum(line.left_out for line in lines))
