"""Turn the scores and groups of an evaluation into rows of a figure: words, numbers, and the position of the bar."""

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
"""Number of rows of a list that are shown; the rest is folded."""

DIVERGED = "the model has diverged"
"""Verdict on a score that is not a number."""

_RECALL = re.compile(r"(image_to_text|text_to_image)_r(\d+)")


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One bar of a figure."""

    label: str
    value: str
    """Score in percent."""
    bar: Interval
    detail: str
    """Context of the score: its interval, the chance level, the number of cases."""
    verdict: str = ""
    """Verdict on the score in words, such as "above chance"."""
    verdict_class: str = ""
    """"good", "bad" or "even" (no clear difference); decides the color of the verdict."""
    link: str = ""
    """Anchor of the page's section about the score."""
    part: str = ""
    """Name of the score if `label` names only the benchmark."""
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Folding:
    """List of rows. The page shows those in `open` until the reader unfolds the others."""

    open: list[FigureRow]
    folded: list[FigureRow]
    uncounted: list[FigureRow]
    """Rows of groups that do not enter the benchmark's mean; they are in neither of the other lists."""


def percent(share: float) -> str:
    """Return a share (0 to 1) in percent: "45.2", or "0.02" instead of "0.0"."""
    if not math.isfinite(share):
        return "no number"
    return f"{100 * share:.1g}" if 0 < share < 0.0005 else f"{100 * share:.1f}"


def called(score: str) -> str:
    """Return the readable name of a score: "image to text R@1" for image_to_text_r1."""
    recall = _RECALL.fullmatch(score)
    return shortened(f"{recall[1]} R@{recall[2]}" if recall else score, 80).replace("_", " ")


def against_chance(score: Score) -> tuple[str, str]:
    """Return (verdict, CSS class): the verdict says how the score's interval compares with the chance level."""
    if math.isnan(score.value):
        return DIVERGED, "bad"
    if score.low > score.chance:
        return "above chance", "good"
    if score.high < score.chance:
        return "below chance", "bad"
    return "no clear difference from chance", "even"


def score_row(label: str, score: Score, link: str = "") -> FigureRow:
    """Return the row of a score."""
    bar = interval(score.value, score.low, score.high, score.chance)
    known = f"{percent(score.low)} to {percent(score.high)}, " if math.isfinite(score.value) else ""
    detail = f"{known}chance {percent(score.chance)}"
    return FigureRow(label, percent(score.value), bar, detail, *against_chance(score), link)


def headline_row(result: Result, link: str = "") -> FigureRow:
    """Return the row of a benchmark's headline score."""
    row = score_row(shortened(result.name, 80), result.scores[result.headline], link)
    return replace(row, part=called(result.headline))


def group_row(group: Group) -> FigureRow:
    """Return the row of one relation, pair of attributes or class."""
    share = group.accuracy if group.cases else math.nan
    detail = f"{group.correct:,} of {group.cases:,}, {percent(group.low)} to {percent(group.high)}"
    bar = interval(share, group.low, group.high)
    return FigureRow(shortened(group.name, 80), percent(share), bar, detail, counted=group.counted)


def folded_groups(groups: Sequence[Group]) -> Folding:
    """Return the groups' rows, lowest accuracy first. At equal accuracy, groups with more cases come first."""
    ordered = sorted(
        groups, key=lambda group: (group.accuracy if group.cases else 2, -group.cases, group.name)
    )
    rows = [group_row(group) for group in ordered]
    counted = [row for row in rows if row.counted]
    return Folding(counted[:OPEN_ROWS], counted[OPEN_ROWS:], [row for row in rows if not row.counted])


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: "a, b and c"."""
    shown = [shortened(name, 80) for name in names]
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))
