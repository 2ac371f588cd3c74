"""Write `ablation.html`: each row's scores over seeds (table, charts), and what tuning gained and kept.

A row is a recipe that runs once for each seed. If an ablation has a start row, the other rows are tuned from it.
One of them is plain tuning. The gain share of a row is its rise of the new task's score above the start's score,
divided by the rise of plain tuning. The kept share is the row's score on the start's task, divided by the start's.
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
    """Gain shares and kept shares of the rows that are tuned from the start row."""

    points: Mapping[str, Sequence[Point]]
    """Points by row, one for each seed."""
    lines: Mapping[str, Sequence[tuple[float, Point]]]
    """(a, mean point over the seeds) pairs of each blend row. `a` is the trained model's share of the blend."""
    reached: float
    """Gain share that a row must reach to be compared with other rows."""


@dataclass(frozen=True)
class Layout:
    """Labels and sources that the page shows beside the scores."""

    title: str
    rows: Mapping[str, str]
    """Label of each row, in display order."""
    scores: Mapping[str, str]
    """Heading of each score, in display order."""
    seeds: int
    """Number of runs per row if none failed."""
    reference: str = ""
    """Row that the tests compare the other rows with; empty: no tests."""
    start: str = ""
    """Row that the other rows are tuned from; empty: rows are trained independently."""
    published: str = ""
    """Source of the published figures."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Text of a table cell."""

    mean: str
    is_best: bool
    details: list[str]
    published: str


@dataclass(frozen=True, slots=True)
class _Chart:
    """Chart of one score: each row has one value for each seed."""

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
    """Write the page into the folder; return its path.

    Args:
        layout: rows and scores; `cells` must have all of them.
        cells: results by row and score.
        folder: folder that the page is written into.
        forgetting: gain shares and kept shares, for an ablation with a start row.
        comparison: file name of the page that compares the runs of the first seed; empty: no such page.
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
    """A circle on the plane: x is a gain share, y a kept share."""

    row: int
    kind: str
    """"mean", "seed" or "blend": decides how the circle is drawn."""
    name: str
    point: Point
    place: Point = (0.0, 0.0)
    """x and y in pixels."""


@dataclass(frozen=True, slots=True)
class _Plane:
    """Lines and dots on the plane of gain shares (x) and kept shares (y)."""

    axes: Curves
    reached: str
    """SVG path of the vertical line at the gain share `Forgetting.reached`."""
    lines: list[tuple[int, str]]
    """(index of the row, SVG path of its line) pairs of the blend rows."""
    dots: list[_Dot]
    """Dots in drawing order: later dots lie on top."""


def _plane(layout: Layout, forgetting: Forgetting) -> _Plane | None:
    """Return the lines and dots, or None if no row has a point of finite numbers."""
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
