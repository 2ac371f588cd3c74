"""The page of an ablation: all rows in a table, their seeds in charts, and what tuning forgot as lines and points."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from sclip.evaluate.seeds import Cell
from sclip.report.ablation import Forgetting, Layout, write
from support.evaluations import HOSTILE, text_of

LAYOUT = Layout(
    "x, seeds 0, 1", {"clip": "CLIP", "both": "both", "more": "both + more"}, {"r": "relation"}, 2
)
CELLS = {
    "clip": {"r": Cell([0.5, 0.6], "near 0.6", 0.0123)},
    "both": {"r": Cell([0.9, 0.7004], "0.851", 0.0001)},
    "more": {"r": Cell([0.8], "–")},
}


def bold(page: str) -> list[str]:
    return re.findall(r"<td[^>]*><b>(.*?)</b>", page)


def test_a_row_shows_mean_interval_p_value_published_figure_and_a_dot_per_seed(tmp_path: Path) -> None:
    layout = dataclasses.replace(LAYOUT, reference="more", published="Somebody et al.")
    page = write(layout, CELLS, tmp_path, comparison="comparison.html").read_text()
    table, charts = text_of(page).replace("\N{NO-BREAK SPACE}", " ").split("By score")
    # By hand: half of CLIP's interval is t(0.975, 1) = 12.706 times 0.05.
    assert "A CLIP 0.550 -0.085 to 1.185 p = 0.012 published near 0.6 B both 0.800 " in table
    assert "p < 0.001 published 0.851 C both + more 0.800 1 of 2 seeds Means" in table
    assert "t-test against both + more , seed by seed" in table
    assert "Published figures: Somebody et al." in table
    assert 'href="comparison.html"' in page
    assert bold(page) == ["0.800", "0.800"]  # rounded as on the page, both are the same
    assert "A 0.550 CLIP B 0.800 both C 0.800 both + more" in charts
    rows = page.split('<li class="versus">')[1:]
    marks = [[row.count(f'class="{mark}"') for row in rows] for mark in ("dot", "whisker", "chance")]
    assert [counts[:2] for counts in marks] == [[2, 2], [1, 1], [1, 1]]
    assert text_of(page).count("mean of both + more") == 1


def test_the_page_draws_what_tuned_rows_kept_and_never_marks_the_start_as_best(
    tmp_path: Path,
) -> None:
    cells = CELLS | {"clip": {"r": Cell([1.0, 1.0], "–")}}
    points = {"clip": [(0.0, 1.0)] * 2, "both": [(0.5, 0.6), (1.0, 0.2)], "more": []}
    forgetting = Forgetting(points, {"more": [(0.0, (0.0, 1.0)), (0.5, (0.75, 0.8)), (1.0, (1.0, 0.2))]}, 0.9)
    layout = dataclasses.replace(LAYOUT, start="clip")
    page = write(layout, cells, tmp_path, forgetting).read_text()
    assert bold(page) == ["0.800", "0.800"]
    circles = re.findall(r'<circle class="(\w+) m(\d)" .*<title>(.*)</title>', page)
    assert circles[:3] == [("blend", "2", f"C, a = {a}") for a in ("0", "0.5", "1")]
    assert circles[3:] == [
        *[("seed", row, f"{name}, one seed") for row, name in (("0", "A"), ("0", "A"), ("1", "B"), ("1", "B"))],
        ("mean", "0", "A, gain 0.000, kept 1.000"), ("mean", "1", "B, gain 0.750, kept 0.400"),
    ]  # fmt: skip
    assert page.count('<path class="curve m2"') == 1
    assert "a = 0.5 gain 0.750, kept 0.800" in text_of(page)
    without = write(layout, cells, tmp_path, Forgetting({"both": []}, {"more": []}, 0.9)).read_text()
    assert "no row has a share of plain tuning's gain" in text_of(without)


@pytest.mark.parametrize("values", [[], [float("nan")] * 2])
def test_a_score_without_values_is_reported_and_labels_are_escaped(
    values: list[float], tmp_path: Path
) -> None:
    layout = Layout(HOSTILE, {"a": HOSTILE}, {"r": HOSTILE}, 1)
    page = write(layout, {"a": {"r": Cell(values, HOSTILE)}}, tmp_path).read_text()
    assert "no values" in text_of(page)
    assert "<script" not in page
