"""Write `ablation.html`: the scores of each row over seeds (table, charts), and what tuning gained and kept.

A row is a recipe that runs once for each seed. If an ablation has a start row, the other rows tune the start row's
model on a new task. Two shares compare these rows:

- gain share: the row's score on the new task minus the start row's, divided by this gain of the first tuned row
- kept share: the row's score on the old task, divided by the start row's score on it

A blend row is not trained: its weights are (1 - a) * start row + a * tuned row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from sclip.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Curves, Strips, curves, strips
from sclip.report.comparison import letter
from sclip.report.page import render
from sclip.report.texts import shortened

if TYPE_CHECKING:
    from sclip.evaluate.seeds import Cell

__all__ = ["PAGE", "Forgetting", "Layout", "write"]

PAGE = "ablation.html"

Point = tuple[float, float]
"""(gain share, kept share), as the module docstring defines them."""


@dataclass(frozen=True)
class Forgetting:
    """Gain shares and kept shares of the rows of an ablation with a start row."""

    points: Mapping[str, Sequence[Point]]
    """Points of each row, one point for each of its runs."""
    lines: Mapping[str, Sequence[tuple[float, Point]]]
    """For each blend row, pairs of `a` and the mean point over the seeds."""
    reached: float
    """Kept shares are compared among rows with at least this gain share. The page draws a line there."""


@dataclass(frozen=True)
class Layout:
    """Labels and sources that the page shows beside the scores."""

    title: str
    rows: Mapping[str, str]
    """Label of each row, in display order."""
    scores: Mapping[str, str]
    """Heading of each score, in display order."""
    seeds: int
    """Number of seeds; a row has fewer runs if some failed."""
    reference: str = ""
    """Key of the row that the significance tests compare the other rows with; empty means no tests."""
    start: str = ""
    """Key of the start row; empty means that rows are trained independently."""
    published: str = ""
    """Source of the published scores that the page shows below the measured ones; empty means none."""


@dataclass(frozen=True, slots=True)
class _Entry:
    mean: str
    is_best: bool
    details: list[str]
    published: str


@dataclass(frozen=True, slots=True)
class _Chart:
    heading: str
    drawing: Strips | None
    entries: list[_Entry]


def write(
    layout: Layout,
    cells: Mapping[str, Mapping[str, Cell]],
    folder: Path,
    forgetting: Forgetting | None = None,
    comparison: str = "",
) -> Path:
    """Write the page into the folder; return its path. `cells` are the results by row and score.

    `forgetting` is for an ablation with a start row. `comparison` is the file name of the page that compares the runs
    of the first seed, if there is one.
    """
    charts = [_chart(layout, score, cells) for score in layout.scores]
    html = render(
        "ablation.html",
        title=shortened(layout.title, 120),
        notes=[],
        layout=layout,
        rows=[(letter(index), shortened(label, 120)) for index, label in enumerate(layout.rows.values())],
        lines=list(zip(*(chart.entries for chart in charts), strict=True)),
        charts=charts,
        plane=_plane(layout, forgetting) if forgetting else None,
        forgetting=forgetting,
        comparison=comparison,
        plot={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "bottom": BOTTOM},
    )
    page = folder / PAGE
    page.write_text(html, encoding="utf-8")
    return page


def _chart(layout: Layout, score: str, cells: Mapping[str, Mapping[str, Cell]]) -> _Chart:
    score_cells = {row: cells[row][score] for row in layout.rows}
    means = {
        row: f"{cell.mean:.3f}"
        for row, cell in score_cells.items()
        if row != layout.start and math.isfinite(cell.mean)
    }
    best = max(means.values(), key=float) if len(means) > 1 else ""
    reference = score_cells[layout.reference].mean if layout.reference in score_cells else math.nan
    entries = [_entry(cell, means.get(row) == best != "", layout.seeds) for row, cell in score_cells.items()]
    drawing = strips([(cell.values, cell.interval) for cell in score_cells.values()], reference)
    return _Chart(shortened(layout.scores[score], 80), drawing, entries)


def _entry(cell: Cell, is_best: bool, seeds: int) -> _Entry:
    if not cell.values:
        return _Entry("–", False, [], _published(cell))
    details = [f"{cell.interval[0]:.3f} to {cell.interval[1]:.3f}"] if cell.interval else []
    if cell.p_value is not None:
        details.append("p < 0.001" if cell.p_value < 0.001 else f"p = {cell.p_value:.3f}")
    if len(cell.values) < seeds:
        details.append(f"{len(cell.values)} of {seeds} seeds")
    mean = f"{cell.mean:.3f}" if math.isfinite(cell.mean) else "no number"
    return _Entry(
        mean, is_best, [detail.replace(" ", "\N{NO-BREAK SPACE}") for detail in details], _published(cell)
    )


def _published(cell: Cell) -> str:
    return "" if cell.published == "–" else shortened(cell.published, 80)


@dataclass(frozen=True, slots=True)
class _Dot:
    row: int
    kind: str
    """"mean", "seed" or "blend": decides how the circle is drawn."""
    name: str
    point: Point
    place: Point = (0.0, 0.0)
    """x and y in pixels."""


@dataclass(frozen=True, slots=True)
class _Plane:
    """Chart of gain shares (x) and kept shares (y), as the module docstring defines them."""

    axes: Curves
    reached: str
    """SVG path of the vertical line at `Forgetting.reached` on the x axis."""
    lines: list[tuple[int, str]]
    """Index and SVG path of each blend row."""
    dots: list[_Dot]


def _plane(layout: Layout, forgetting: Forgetting) -> _Plane | None:
    numbers = {row: index for index, row in enumerate(layout.rows)}
    lines = {
        numbers[row]: drawable
        for row, line in forgetting.lines.items()
        if (drawable := [(a, point) for a, point in line if all(map(math.isfinite, point))])
    }
    runs = {
        numbers[row]: finite
        for row, points in forgetting.points.items()
        if (finite := [point for point in points if all(map(math.isfinite, point))])
    }
    if not runs:
        return None
    dots = [_Dot(row, "blend", f"a = {a:g}", point) for row, line in lines.items() for a, point in line]
    dots += [_Dot(row, "seed", "one seed", point) for row, points in runs.items() for point in points]
    for row, points in runs.items():
        gain, kept = (fmean(values) for values in zip(*points, strict=True))
        dots.append(_Dot(row, "mean", f"gain {gain:.3f}, kept {kept:.3f}", (gain, kept)))
    heights = [dot.point[1] for dot in dots]
    series = [[(forgetting.reached, min(heights)), (forgetting.reached, max(heights))]]
    series += [[point for _, point in line] for line in lines.values()]
    axes = curves([*series, *([dot.point] for dot in dots)], by_step=False)
    assert axes  # every value is finite
    reached, *drawn = axes.lines
    placed = [replace(dot, place=curve.end) for dot, curve in zip(dots, drawn[len(lines) :], strict=True)]
    return _Plane(axes, reached.path, [(row, c.path) for row, c in zip(lines, drawn, strict=False)], placed)
