"""One metric of several models by step -> its chart, with the newest value of each model."""

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
"""Values by step; what is no finite number interrupts the curve."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One metric."""

    name: str
    unit: str
    """"%" or nothing."""
    drawing: Curves | None
    """None where there is no value to draw."""
    last: list[tuple[int, str]]
    """Index of the model, its newest value."""
    left_out: int
    """Values that are no finite number."""


def chart(name: str, by_model: Mapping[str, Points], evaluations: Sequence[Evaluation]) -> Chart:
    """Return the chart of a metric; of a score of the evaluations in per cent, and with its chance level."""
    scores = {
        f"{r.name}/{key}": score for e in evaluations for r in e.results for key, score in r.scores.items()
    }
    factor, unit = (100.0, "%") if name in scores else (1.0, "")
    chance = factor * scores[name].chance if name in scores else math.nan
    series = [[(step, factor * value) for step, value in by_model.get(e.model, ())] for e in evaluations]
    drawing = curves(series, chance)
    lines = drawing.lines if drawing else []
    last = [(line.index, f"{line.last:.1f}" if unit else number(line.last)) for line in lines]
    return Chart(shortened(name, 80), unit, drawing, last, sum(line.left_out for line in lines))
