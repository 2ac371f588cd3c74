"""Compute where the parts of a chart lie: intervals and rows of dots in percent of an axis, curves as SVG path data.

Numbers go in and positions come out; the templates draw. Values that are not finite (NaN or infinity, from a
diverged run) are counted, but not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

__all__ = ["Curve", "Curves", "Interval", "Strip", "Strips", "Tick", "curves", "interval", "number", "strips"]

WIDTH, HEIGHT = 330.0, 190.0
"""Size in pixels of a chart of curves with its axes; it fits a phone."""
LEFT, RIGHT, TOP, BOTTOM = 56.0, WIDTH - 24.0, 10.0, HEIGHT - 36.0
"""Edges of the plot in pixels; ticks and titles of the axes lie outside."""

BUCKETS = 160
"""Number of buckets across the plot. Each bucket keeps its first, lowest, highest and last value."""

_LEAST, _MOST = 1e-30, 1e30
"""Limits of absolute values. Values above _MOST count as infinite; values below _LEAST are drawn as zero."""

_BEYOND = 4.0
"""Distance beyond the end of the axis at which a longer interval is cut off, in percent of the axis."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval, in percent of the axis; None for a number that is not finite."""

    value: float | None
    low: float | None
    length: float | None
    """Distance from the lower to the upper end of the interval."""
    chance: float | None


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    """x or y in pixels; for `Strips`, in percent."""
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """Curve of one series."""

    index: int
    """Index of the series that the curve shows; it decides the color."""
    path: str
    """SVG path data. A single point is a line of length zero; its round ends make it a dot."""
    end: tuple[float, float]
    """x and y in pixels of the last finite value."""
    last: float
    left_out: int
    """Number of values that are not finite."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves on the same axes."""

    x: list[Tick]
    y: list[Tick]
    lines: list[Curve]
    chance: float | None
    """y in pixels of the chance level; None if it is unknown or far from all curves."""


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of a chart: dots for values and one interval behind them, in percent of the axis."""

    dots: list[float]
    low: float | None
    length: float | None


@dataclass(frozen=True, slots=True)
class Strips:
    """Several strips on one axis."""

    rows: list[Strip]
    ticks: list[Tick]
    """Ticks at equal distances, the first at 0 and the last at 100 %."""
    mark: float | None
    """Reference value for all rows, in percent of the axis; None if it is off the axis."""


def interval(value: float, low: float, high: float, chance: float = math.nan) -> Interval:
    """Return the positions of these shares (each from 0 to 1) on an axis from 0 to 100 %."""
    start, end = _percent(low), _percent(high)
    length = None if start is None or end is None else round(max(0.0, end - start), 2)
    return Interval(_percent(value), start, length, _percent(chance))


def _percent(share: float) -> float | None:
    return round(100 * min(1.0, max(0.0, share)), 2) if math.isfinite(share) else None


def strips(
    rows: Sequence[tuple[Sequence[float], tuple[float, float] | None]], mark: float = math.nan
) -> Strips | None:
    """Return rows of (values, interval) on a common axis, or None if no row has a finite value.

    The axis covers all values, but may cut off wide intervals. `mark` is a reference value.
    """
    values = [value for row_values, _ in rows for value in row_values if _is_finite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    ends = [end for _, ends in rows for end in ends or ()]
    # The axis extends beyond the values at most by their range: wide intervals would hide differences.
    least, most = low - (high - low), high + (high - low)
    bounds = max(least, min([low, *ends])), min(most, max([high, *ends]))
    ticks = _ticks(*_span((max(0.0, bounds[0]) if low >= 0 else bounds[0], bounds[1])))

    def position(value: float) -> float:
        return 100 * (value - ticks[0]) / (ticks[-1] - ticks[0])

    def strip(row_values: Sequence[float], ends: tuple[float, float] | None) -> Strip:
        dots = [round(position(value), 2) for value in row_values if _is_finite(value)]
        if ends is None:
            return Strip(dots, None, None)
        start, end = (min(100 + _BEYOND, max(-_BEYOND, position(end))) for end in ends)
        return Strip(dots, round(start, 2), round(end - start, 2))

    is_marked = ticks[0] <= mark <= ticks[-1]
    drawn = [strip(*row) for row in rows]
    return Strips(drawn, _marks(ticks, position), round(position(mark), 2) if is_marked else None)


def curves(
    series: Sequence[Sequence[tuple[float, float]]], chance: float = math.nan, by_step: bool = True
) -> Curves | None:
    """Return series of (step, value) on common axes, or None if no series has a finite value.

    A value that is not finite interrupts its curve. With `by_step`, the points are sorted by step first.
    """
    finite = [(step, value) for points in series for step, value in points if _is_finite(value)]
    if not finite:
        return None
    values = [value for _, value in finite]
    near = max(values) - min(values)
    is_near = min(values) - near <= chance <= max(values) + near  # a far level would flatten the curves
    values += [chance] if is_near else []
    steps = min(step for step, _ in finite), max(step for step, _ in finite)
    x_ticks, y_ticks = _ticks(*steps) if steps[0] < steps[1] else [steps[0]], _ticks(*_span(values))
    steps = steps if steps[0] < steps[1] else (steps[0] - 1, steps[1] + 1)
    bounds = min(y_ticks[0], *values), max(y_ticks[-1], *values)

    def x(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * (step - steps[0]) / (steps[1] - steps[0])

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - bounds[0]) / (bounds[1] - bounds[0])

    lines = []
    for index, points in enumerate(series):
        ordered = sorted(points, key=lambda point: point[0]) if by_step else list(points)
        known = [(step, value) for step, value in ordered if _is_finite(value)]
        if known:
            runs = _runs(ordered, steps)
            path = "".join(_path([(x(step), y(value)) for step, value in run]) for run in runs)
            step, last = known[-1]
            end = round(x(step), 1), round(y(last), 1)
            lines.append(Curve(index, path, end, last, len(ordered) - len(known)))
    return Curves(
        _marks([step for step in x_ticks if steps[0] <= step <= steps[1]], x),
        _marks(y_ticks, y),
        lines,
        round(y(chance), 1) if is_near else None,
    )


def _is_finite(value: float) -> bool:
    return abs(value) <= _MOST  # False for NaN


def _runs(
    points: Sequence[tuple[float, float]], steps: tuple[float, float]
) -> Iterator[list[tuple[float, float]]]:
    """Split a curve into parts that are each drawn as one line, with at most four points per bucket."""

    def bucket(point: tuple[float, float]) -> int:
        return int(BUCKETS * (point[0] - steps[0]) / (steps[1] - steps[0]))

    run: list[tuple[float, float]] = []
    for _, group in groupby(points, bucket):
        together = list(group)
        finite = [(index, point) for index, point in enumerate(together) if _is_finite(point[1])]
        if finite:
            ascending = sorted(finite, key=lambda entry: entry[1][1])
            kept = dict([finite[0], ascending[0], ascending[-1], finite[-1]])
            run += [kept[index] for index in sorted(kept)]
        if len(finite) < len(together) and run:
            yield run
            run = []
    if run:
        yield run


def _path(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = points
    line = "".join(f"L{x:.1f} {y:.1f}" for x, y in rest)
    return f"M{x:.1f} {y:.1f}{line or 'h0'}"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    largest = max(abs(low), abs(high))
    if largest < _LEAST:
        return -0.5, 0.5
    # Leave room around a single value, and widen a narrow span, whose ticks would need too many digits.
    more = largest / 2 if low == high else max(0.0, 1e-3 * largest - (high - low)) / 2
    return low - more, high + more


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return 2 to `most` round numbers at equal distances: the first is at most `low`, the last at least `high`."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (factor * power for factor in (1, 2, 2.5, 5, 10, 20, 25, 50, 100)):
        first, last = math.floor(low / step + 0.001), math.ceil(high / step - 0.001)
        if last - first < most:
            break
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def _marks(values: Sequence[float], position: Callable[[float], float]) -> list[Tick]:
    digits = next(d for d in range(4, 18) if d == 17 or all(float(f"{p:.{d}g}") == p for p in values))
    return [Tick(round(position(value), 1), number(value, digits)) for value in values]


def number(value: float, digits: int = 4) -> str:
    """Return a number as the text of an axis tick: 250, 20k, 1.5M, 0.001."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if max(size, 1e4) <= abs(value) < 1e15:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value + 0.0:.{digits}g}"  # turn -0.0 into 0.0
