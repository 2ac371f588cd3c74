"""Curves and intervals stay on their axes, whatever a run has recorded."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sclip.report.charts import BOTTOM, BUCKETS, LEFT, RIGHT, TOP, Curves, curves, interval, number, strips

Series = list[list[tuple[int, float]]]


def points_of(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def drawn(*series: list[tuple[int, float]], chance: float = math.nan) -> Curves:
    chart = curves(series, chance)
    assert chart is not None
    return chart


def test_an_interval_is_given_in_per_cent_of_its_axis_and_cut_at_the_ends() -> None:
    bar, cut = interval(0.5, 0.4, 0.65, 0.25), interval(math.nan, -0.2, 1.3)
    assert (bar.value, bar.low, bar.length, bar.chance) == (50.0, 40.0, 25.0, 25.0)
    assert (cut.value, cut.low, cut.length, cut.chance) == (None, 0.0, 100.0, None)


def test_strips_share_an_axis_that_wide_intervals_of_few_seeds_hardly_extend() -> None:
    chart = strips([([0.2, 0.4, math.nan], (0.1, 0.5)), ([0.6, 1.0], (-3.0, 4.6)), ([], None)], 0.4)
    assert chart
    assert [tick.text for tick in chart.ticks] == ["0", "0.5", "1", "1.5", "2"]
    one, cut, none = chart.rows
    assert (one.dots, one.low, one.length) == ([10.0, 20.0], 5.0, 20.0)
    assert (cut.dots, cut.low, cut.length) == ([30.0, 50.0], -4.0, 108.0)  # both ends lie beyond the axis
    assert (none.dots, none.low, chart.mark) == ([], None, 20.0)
    assert strips([([math.nan], None)]) is None
    alone = strips([([0.5], None)])
    assert alone
    assert (alone.rows[0].dots, alone.mark) == ([50.0], None)


def test_a_curve_runs_from_the_first_step_to_the_last_and_higher_values_stand_higher() -> None:
    chart = drawn([(0, 0.0), (100, 1.0)])
    assert points_of(chart.lines[0].path) == [(LEFT, BOTTOM), (RIGHT, TOP)]
    assert chart.lines[0].end == (RIGHT, TOP)
    assert [tick.text for tick in chart.x] == ["0", "25", "50", "75", "100"]
    assert [tick.text for tick in chart.y] == ["0", "0.25", "0.5", "0.75", "1"]


def test_points_without_steps_are_joined_in_the_given_order() -> None:
    chart = curves([[(50.0, 60.0), (52.0, 70.0), (48.0, 80.0)]], by_step=False)
    assert chart
    (line,) = chart.lines
    assert [x for x, _ in points_of(line.path)] == [(LEFT + RIGHT) / 2, RIGHT, LEFT]
    assert line.end == (LEFT, TOP)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 1e200])
def test_a_value_that_is_no_finite_number_interrupts_its_curve_and_is_counted(broken: float) -> None:
    (line,) = drawn([(0, 1.0), (1, 2.0), (2, broken), (3, 2.0), (4, 1.0)]).lines
    assert (line.path.count("M"), len(points_of(line.path))) == (2, 4)
    assert (line.left_out, line.last) == (1, 1.0)


@pytest.mark.parametrize("series", [[], [[]], [[(0, math.nan)], []]])
def test_there_is_no_chart_without_a_value(series: Series) -> None:
    assert curves(series) is None


def test_a_long_curve_is_thinned_and_keeps_its_ends_and_its_outlier() -> None:
    points = [(step, 1.0 + step / 1e6) for step in range(100_000)]
    points[54_321] = (54_321, 9.0)
    kept = points_of(drawn(points).lines[0].path)
    assert len(kept) <= 4 * (BUCKETS + 1)
    assert (kept[0][0], kept[-1][0]) == (LEFT, RIGHT)
    assert sum(y < BOTTOM - 0.7 * (BOTTOM - TOP) for _, y in kept) == 1
    (broken,) = drawn([(step, math.nan if step % 2 else 1.0) for step in range(50_000)]).lines
    assert len(broken.path) < 20_000
    assert broken.left_out == 25_000


def test_the_chance_level_is_drawn_where_it_does_not_flatten_the_curves() -> None:
    assert drawn([(0, 50.0), (1, 80.0)], chance=50.0).chance == BOTTOM
    assert drawn([(0, 40.0), (1, 41.0)], chance=0.02).chance is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [(250, "250"), (5000, "5000"), (20_000, "20k"), (1.5e6, "1.5M"), (0.001, "0.001"), (-0.0, "0"), (3e20, "3e+20")],
)  # fmt: skip
def test_a_number_at_an_axis_is_short(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(99.9, 100.1, "99.9 99.95 100 100.05 100.1"), (100.0, 100.0 + 1e-9, "99.95 99.975 100 100.025 100.05")],
)
def test_the_ticks_of_a_narrow_span_are_distinct(low: float, high: float, ticks: str) -> None:
    assert [tick.text for tick in drawn([(0, low), (1, high)]).y] == ticks.split()


POINTS = st.tuples(st.integers(0, 10**9), st.floats(allow_nan=True, allow_infinity=True))


@given(st.lists(st.lists(POINTS, max_size=30), max_size=4), st.floats(allow_nan=True))
@example([[(0, 0.0), (1, 5e-324)]], 0.0)
@example([[(0, 1.0), (1, 1.0 + 1e-15)]], math.inf)
@example([[(0, 1e30), (1, -1e30), (2, 1e300)]], 1e30)
def test_every_point_and_tick_lies_on_the_plot(series: Series, chance: float) -> None:
    chart = curves(series, chance)
    if chart is None:
        return
    for line in chart.lines:
        assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in points_of(line.path))
    assert 2 <= len(chart.y) <= 6
    assert all(LEFT <= tick.at <= RIGHT for tick in chart.x)
    assert all(TOP <= tick.at <= BOTTOM for tick in chart.y)
