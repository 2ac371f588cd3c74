"""Scores and groups of an evaluation -> rows of a figure: in words, in numbers, and where the bar stands."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sclip.report.charts import Interval, interval
from sclip.report.texts import shortened

if TYPE_CHECKING:
    from sclip.evaluate.result import Group, Result, Score

OPEN_ROWS = 12
"""Of a longer list the first so many are open, the rest folds."""

DIVERGED = "the model has diverged"
"""What a score that is no number says."""

_RECALL = re.compile(r"(image_to_text|text_to_image)_r(\d+)")


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One bar of a figure."""

    label: str
    value: str
    """In per cent."""
    bar: Interval
    detail: str
    """What the number is to be read with: its interval, the chance level, the number of cases."""
    verdict: str = ""
    """What it says, in words."""
    verdict_class: str = ""
    """"good", "bad" or "even": how the words are coloured."""
    link: str = ""
    """Of the page's section about it."""
    part: str = ""
    """Which of several figures of that name it is."""
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Folding:
    """A list of rows of which only the first are open."""

    open: list[FigureRow]
    folded: list[FigureRow]
    uncounted: list[FigureRow]
    """What the benchmark's mean leaves out."""


def percent(share: float) -> str:
    """Return a share as the reader sees it: 45.2, and 0.02 where one digit would be none."""
    if not math.isfinite(share):
        return "no number"
    return f"{100 * share:.1g}" if 0 < share < 0.0005 else f"{100 * share:.1f}"


def called(score: str) -> str:
    """Return the name of a score as it is read: "image to text R@1" for image_to_text_r1."""
    recall = _RECALL.fullmatch(score)
    return shortened(f"{recall[1]} R@{recall[2]}" if recall else score, 80).replace("_", " ")


def against_chance(score: Score) -> tuple[str, str]:
    """Return what the interval says of the chance level, and its class."""
    if math.isnan(score.value):
        return DIVERGED, "bad"
    if score.low > score.chance:
        return "above chance", "good"
    if score.high < score.chance:
        return "below chance", "bad"
    return "not told from chance", "even"


def score_row(label: str, score: Score, link: str = "") -> FigureRow:
    """Return the row of a score."""
    bar = interval(score.value, score.low, score.high, score.chance)
    known = f"{percent(score.low)} to {percent(score.high)}, " if math.isfinite(score.value) else ""
    detail = f"{known}chance {percent(score.chance)}"
    return FigureRow(label, percent(score.value), bar, detail, *against_chance(score), link)


def headline_row(result: Result, link: str = "") -> FigureRow:
    """Return the row of a benchmark's published figure."""
    row = score_row(shortened(result.name, 80), result.scores[result.headline], link)
    return replace(row, part=called(result.headline))


def group_row(group: Group) -> FigureRow:
    """Return the row of one relation, pair of attributes or class."""
    share = group.accuracy if group.cases else math.nan
    detail = f"{group.correct:,} of {group.cases:,}, {percent(group.low)} to {percent(group.high)}"
    bar = interval(share, group.low, group.high)
    return FigureRow(shortened(group.name, 80), percent(share), bar, detail, counted=group.counted)


def folded_groups(groups: Sequence[Group]) -> Folding:
    """Return the rows of the groups, the lowest accuracy first, and of equal ones that of more cases."""
    ordered = sorted(
        groups, key=lambda group: (group.accuracy if group.cases else 2, -group.cases, group.name)
    )
    rows = [group_row(group) for group in ordered]
    counted = [row for row in rows if row.counted]
    return Folding(counted[:OPEN_ROWS], counted[OPEN_ROWS:], [row for row in rows if not row.counted])


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them: "a, b and c"."""
    shown = [shortened(name, 80) for name in names]
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))
