"""Arrange the groups' bars of several models side by side; groups in which the models differ most come first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sclip.report.charts import Interval
from sclip.report.score_bars import group_row
from sclip.report.texts import shortened

if TYPE_CHECKING:
    from sclip.evaluate.result import Group


OPEN_BARS = 36
"""Approximate number of bars shown for all models together; the rest is folded."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One model's accuracy in a group."""

    model: int
    value: str
    bar: Interval


@dataclass(frozen=True, slots=True)
class Side:
    """One group (a relation, pair of attributes or class), with a bar for each model that has it."""

    name: str
    cases: str
    bars: list[Bar]
    counted: bool


@dataclass(frozen=True, slots=True)
class FoldedSides:
    """List of sides. At first, the page shows only `open`; a click unfolds the others."""

    open: list[Side]
    folded: list[Side]
    uncounted: list[Side]
    """Sides of groups that do not enter the benchmark's mean; they are in neither of the other lists."""


def sides(models: Sequence[Sequence[Group]]) -> FoldedSides:
    """Return the groups of all models, matched by name; `models` holds the groups of each model.

    Groups in which the models differ most come first. Their differences are weighted by the square root of the number
    of cases, because random differences are larger in small groups.
    """
    groups_by_name = [{group.name: group for group in groups} for groups in models]
    names = dict.fromkeys(name for groups in groups_by_name for name in groups)
    matched = [[groups.get(name) for groups in groups_by_name] for name in names]
    matched.sort(key=lambda groups: -_stands_out([group for group in groups if group]))
    all_sides = [_side(groups) for groups in matched]
    counted = [side for side in all_sides if side.counted]
    most = max(4, OPEN_BARS // len(models))
    return FoldedSides(counted[:most], counted[most:], [side for side in all_sides if not side.counted])


def _stands_out(groups: Sequence[Group]) -> float:
    shares = [group.accuracy for group in groups if group.cases]
    return (max(shares) - min(shares)) * math.sqrt(groups[0].cases) if shares else 0.0


def _side(groups: Sequence[Group | None]) -> Side:
    first = next(group for group in groups if group)
    rows = [(model, group_row(group)) for model, group in enumerate(groups) if group]
    bars = [Bar(model, row.value, row.bar) for model, row in rows]
    return Side(shortened(first.name, 80), f"{first.cases:,}", bars, first.counted)
