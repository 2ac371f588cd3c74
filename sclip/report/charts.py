"""Figures -> where their marks stand: intervals and strips in per cent of an axis, curves as the path data of an SVG.

Only numbers go in and out; the templates draw. Whatever a diverged run may hold (NaN, infinity, nothing at all) has
a place here: it is left out of the drawing and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

__all__ = ["Curve", "Curves", "Interval", "Strip", "Strips", "Tick", "curves", "interval", "number", "strips"]

WIDTH, HEIGHT = 330.0, 190.0
"""Of curves with their axes, in pixels: as wide as a phone shows."""
LEFT, RIGHT, TOP, BOTTOM = 56.0, WIDTH - 24.0, 10.0, HEIGHT - 36.0
"""Edges of the plot; the rest is for the axes' ticks and title."""

BUCKETS = 160
"""Steps that fall into the same part of the width are drawn as their first, lowest, highest and last value."""

_LEAST, _MOST = 1e-30, 1e30
"""A larger value is as good as infinite, a smaller one as zero: an axis that showed it would show nothing else."""

_BEYOND = 4.0
"""An interval that leaves its axis is drawn by so many per cent beyond it, where its end is cut off."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval on an axis, in per cent of the axis; None where there is no finite number."""

    value: float | None
    low: float | None
    length: float | None
    """From the lower end of the interval to the upper."""
    chance: float | None


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis."""

    at: float
    """x or y in pixels; on `Strips`, in per cent."""
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve."""

    index: int
    """Of the series it was drawn from, which says its colour."""
    path: str
    """Path data; a single point is a line of no length, which round ends make a dot."""
    end: tuple[float, float]
    """x and y in pixels of the newest finite value."""
    last: float
    """That value."""
    left_out: int
    """Values that are no finite number."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Several curves on the same axes."""

    x: list[Tick]
    y: list[Tick]
    lines: list[Curve]
    chance: float | None
    """y in pixels of what a model that knows nothing reaches; None where that is far from all curves."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Values as dots over their interval, in per cent of the axis."""

    dots: list[float]
    low: float | None
    """None without an interval."""
    length: float | None


@dataclass(frozen=True, slots=True)
class Strips:
    """Several strips on one axis."""

    rows: list[Strip]
    ticks: list[Tick]
    """At equal distances, the first at 0 and the last at 100 %."""
    mark: float | None
    """A value that all are held against, in per cent of the axis."""


def interval(value: float, low: float, high: float, chance: float = math.nan) -> Interval:
    """Return where shares between 0 and 1 stand on an axis from 0 to 100 %."""
    start, end = _percent(low), _percent(high)
    length = None if start is None or end is None else round(max(0.0, end - start), 2)
    return Interval(_percent(value), start, length, _percent(chance))


def _percent(share: float) -> float | None:
    return round(100 * min(1.0, max(0.0, share)), 2) if math.isfinite(share) else None


def strips(
    rows: Sequence[tuple[Sequence[float], tuple[float, float] | None]], mark: float = math.nan
) -> Strips | None:
    """Return rows of (values, interval) on a common axis, or None where none of them has a finite value.

    The axis shows all values. Intervals extend it at each end by at most the values' range, and below zero
    only if a value is: the wide intervals of few seeds would make all rows look alike.
    """
    values = [value for of_row, _ in rows for value in of_row if _is_finite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    ends = [end for _, ends in rows for end in ends or ()]
    least, most = low - (high - low), high + (high - low)
    bounds = max(least, min([low, *ends])), min(most, max([high, *ends]))
    ticks = _ticks(*_span((max(0.0, bounds[0]) if low >= 0 else bounds[0], bounds[1])))

    def at(value: float) -> float:
        return 100 * (value - ticks[0]) / (ticks[-1] - ticks[0])

    def strip(of_row: Sequence[float], ends: tuple[float, float] | None) -> Strip:
        dots = [round(at(value), 2) for value in of_row if _is_finite(value)]
        if ends is None:
            return Strip(dots, None, None)
        start, end = (min(100 + _BEYOND, max(-_BEYOND, at(end))) for end in ends)
        return Strip(dots, round(start, 2), round(end - start, 2))

    is_marked = ticks[0] <= mark <= ticks[-1]
    drawn = [strip(*row) for row in rows]
    return Strips(drawn, _marks(ticks, at), round(at(mark), 2) if is_marked else None)


def curves(
    series: Sequence[Sequence[tuple[float, float]]], chance: float = math.nan, by_step: bool = True
) -> Curves | None:
    """Return series of (step, value) on common axes, or None where none of them has a finite value.

    A value that is no finite number interrupts its curve. Without `by_step` the points of a series are joined in their
    own order, whatever stands at the x axis.
    """
    finite = [(step, value) for points in series for step, value in points if _is_finite(value)]
    if not finite:
        return None
    values = [value for _, value in finite]
    near = max(values) - min(values)
    is_near = min(values) - near <= chance <= max(values) + near  # else the curves would be flat beside it
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
    return abs(value) <= _MOST  # a NaN is not


def _runs(
    points: Sequence[tuple[float, float]], steps: tuple[float, float]
) -> Iterator[list[tuple[float, float]]]:
    """Yield the stretches that are drawn as one line, of few points however many there were."""

    def bucket(point: tuple[float, float]) -> int:
        return int(BUCKETS * (point[0] - steps[0]) / (steps[1] - steps[0]))

    run: list[tuple[float, float]] = []
    for _, group in groupby(points, bucket):
        together = list(group)
        finite = [(at, point) for at, point in enumerate(together) if _is_finite(point[1])]
        if finite:
            by_value = sorted(finite, key=lambda entry: entry[1][1])
            kept = dict([finite[0], by_value[0], by_value[-1], finite[-1]])
            run += [kept[at] for at in sorted(kept)]
        if len(finite) < len(together) and run:
            yield run
            run = []
    if run:
        yield run


def _path(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *others = points
    line = "".join(f"L{x:.1f} {y:.1f}" for x, y in others)
    return f"M{x:.1f} {y:.1f}{line or 'h0'}"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    largest = max(abs(low), abs(high))
    if largest < _LEAST:
        return -0.5, 0.5
    # Around one value there is room; of a narrow span the axis would have no room for all the digits.
    more = largest / 2 if low == high else max(0.0, 1e-3 * largest - (high - low)) / 2
    return low - more, high + more


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return two to `most` round numbers, the first not above `low`, the last not below `high`."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (factor * power for factor in (1, 2, 2.5, 5, 10, 20, 25, 50, 100)):
        first, last = math.floor(low / step + 0.001), math.ceil(high / step - 0.001)
        if last - first < most:
            break
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def _marks(places: Sequence[float], at: Callable[[float], float]) -> list[Tick]:
    """Return the ticks of an axis, with as many digits as they have."""
    digits = next(d for d in range(4, 18) if d == 17 or all(float(f"{p:.{d}g}") == p for p in places))
    return [Tick(round(at(place), 1), number(place, digits)) for place in places]


def number(value: float, digits: int = 4) -> str:
    """Return a number as it stands at an axis: 250, 20k, 1.5M, 0.001."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if max(size, 1e4) <= abs(value) < 1e15:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value + 0.0:.{digits}g}"  # no minus before a zero
