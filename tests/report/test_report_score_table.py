"""A table of scores is complete as LaTeX, Markdown and HTML, for any names of models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sclip.evaluate.score_table import Cell, ScoreTable, TableRow
from sclip.report.score_table import FORMATS, write
from support.evaluations import HOSTILE, text_of

NAMES = ["my_run-2", HOSTILE, r"[0] \input{x} 50% & $x^2$ #1 {~}", "*a|b--c*", "\\", "}{"]
TABLE = ScoreTable(
    columns=[("VG-Relation", "macro"), ("Wino_ground", "text"), ("Wino_ground", "image")],
    published=[TableRow("CLIP", [Cell("59.9"), Cell("31.2", is_bold=True), Cell()], "a")],
    measured=[TableRow(name, [Cell("60.0", "58.1 to 61.7", is_bold=True), Cell("31.0", is_partial=True), Cell()])
              for name in NAMES],
    caption=["The 95 % interval of a_b & c."],
)  # fmt: skip


@pytest.fixture
def latex(tmp_path: Path) -> str:
    return write(TABLE, tmp_path / "my_table.tex").read_text()


def bare(latex: str) -> str:
    """Remove comments and escaped characters from LaTeX, so that every remaining special character is active."""
    return re.sub(r"\\[\\{}$&#_%]|(?m:^%.*$)", lambda sign: r"\\" if sign[0] == r"\\" else "", latex)


def test_latex_is_balanced_and_names_bring_in_no_active_characters(
    latex: str,
) -> None:
    text = bare(latex)
    depth = 0
    for sign in text:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    assert re.findall(r"\\(begin|end)\{(.*?)\}", text) == [
        ("begin", "table*"), ("begin", "tabular"), ("end", "tabular"), ("end", "table*"),
    ]  # fmt: skip
    assert not set("$#_%^~<>|") & set(text)
    # no arguments of \\ and no dashes
    assert not [match for match in re.findall(r"\\\\\s*\[|\\\\\s*\*|--", text) if match]
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    assert "input" not in commands
    assert latex.startswith("% in the preamble: \\usepackage{booktabs}\n")
    assert "\\label{tab:my-table}" in latex


def test_every_latex_row_has_as_many_cells_as_there_are_columns(latex: str) -> None:
    (columns,) = re.findall(r"\\begin\{tabular\}\{(lc*)\}", latex)
    rows = [line for line in bare(latex).splitlines() if line.endswith(r"\\")]
    assert len(rows) == 2 + 2 + len(TABLE.published) + len(TABLE.measured)
    for row in rows:
        wide = sum(int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", row))
        assert row.count("&") + 1 + wide == len(columns) == 4
    assert r"\cmidrule(lr){2-2}\cmidrule(lr){3-4}" in latex
    assert r"CLIP\textsuperscript{a} & 59.9 & \textbf{31.2} & \textendash{} \\" in latex
    assert r"my\_run-2 & \textbf{60.0} & 31.0\textsuperscript{\dag} & \textendash{} \\" in latex


def test_markdown_rows_have_a_cell_for_each_column_and_names_are_escaped(tmp_path: Path) -> None:
    text = write(TABLE, tmp_path / "table.md").read_text()
    rows = [re.sub(r"\\[\\|]", "", line) for line in text.splitlines() if line.startswith("|")]
    assert [row.count("|") for row in rows] == [5] * (2 + 2 + 1 + len(NAMES))
    assert "| CLIP (a) | 59.9 | **31.2** | – |" in text
    assert r"| my\_run-2 | **60.0** | 31.0† | – |" in text
    assert r"\<script\>" in text
    assert text.endswith("\nThe 95 % interval of a\\_b \\& c.\n")


def test_the_page_has_all_rows_with_intervals_and_names_are_escaped(tmp_path: Path) -> None:
    page = write(TABLE, tmp_path / "table.html").read_text()
    assert "<script" not in page
    assert '<td title="58.1 to 61.7"><b>60.0</b></td><td>31.0†</td><td>–</td>' in page
    assert page.count('scope="row"') == 1 + len(NAMES)
    assert "VG-Relation Wino_ground macro text image published CLIP a 59.9 31.2 –" in text_of(page)
    assert FORMATS.keys() == {".tex", ".md", ".html"}
