"""Write a table of scores as a file for a paper: LaTeX, Markdown or HTML, by the suffix of the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from sclip.evaluate.score_table import PARTIAL_MARK, Cell, ScoreTable, TableRow
from sclip.report.page import render
from sclip.report.texts import visible

__all__ = ["FORMATS", "write"]

_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "†": r"\dag{}", "–": r"\textendash{}", "…": r"\dots{}",
    **{sign: "\\" + sign for sign in "{}$&#_%"},
    **{sign: f"{{{sign}}}" for sign in "[]*"},  # LaTeX's \\ takes a [ or * after it as an option
})  # fmt: skip
_TITLES = ("published", "measured with sclip")


def write(table: ScoreTable, path: Path) -> Path:
    """Write the table in the format of the file's suffix, a key of `FORMATS`; return the path."""
    path.write_text(FORMATS[path.suffix](table, path.stem), encoding="utf-8")
    return path


def _latex(table: ScoreTable, name: str) -> str:
    """Return a LaTeX `table*` as wide as the page. The only package that it needs is booktabs."""
    heads, rules, last = list[str](), list[str](), 1
    for benchmark, columns in groupby(table.columns, lambda column: column[0]):
        first, last = last + 1, last + len(list(columns))
        heads.append(rf"\multicolumn{{{last - first + 1}}}{{c}}{{{_escaped(benchmark)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
    lines = [
        r"% in the preamble: \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption[Scores]{{{_escaped(' '.join(table.caption))}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', name)}}}",
        rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}",
        r"\toprule",
        _latex_row(["", *heads]),
        "".join(rules),
        _latex_row(["", *(_escaped(score) for _, score in table.columns)]),
    ]
    for title, rows in _groups(table):
        lines += [r"\midrule", rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\emph{{{title}}}}} \\"]
        for row in rows:
            source = rf"\textsuperscript{{{row.source}}}" if row.source else ""
            lines.append(_latex_row([_escaped(row.label) + source, *map(_latex_cell, row.cells)]))
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _latex_cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    text = rf"\textbf{{{text}}}" if cell.is_bold else text
    return rf"{text}\textsuperscript{{\dag}}" if cell.is_partial else text


def _escaped(text: str) -> str:
    """Return text that LaTeX prints unchanged. `{}` separates adjacent hyphens, which LaTeX would print as one dash."""
    return re.sub("-(?=-)", "-{}", visible(text).translate(_LATEX))


def _markdown(table: ScoreTable, _: str) -> str:
    headings = ["", *(_plain(f"{benchmark} {score}") for benchmark, score in table.columns)]
    lines = [headings, ["---", *["---:"] * len(table.columns)]]
    for title, rows in _groups(table):
        lines.append([f"*{title}*", *[""] * len(table.columns)])
        for row in rows:
            source = f" ({row.source})" if row.source else ""
            lines.append([_plain(row.label) + source, *map(_markdown_cell, row.cells)])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{text}\n{_plain(' '.join(table.caption))}\n"


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.is_bold else cell.text
    return text + PARTIAL_MARK * cell.is_partial


def _plain(text: str) -> str:
    """Return text that Markdown shows unchanged, also in a table."""
    return re.sub(r"([\\`*_\[\]|~<>&])", r"\\\1", visible(text))


def _html(table: ScoreTable, name: str) -> str:
    heads = [(title, len(list(group))) for title, group in groupby(table.columns, lambda column: column[0])]
    return render(
        "score_table.html",
        title=f"Scores: {visible(name)}",
        notes=[],
        heads=heads,
        scores=[score for _, score in table.columns],
        groups=_groups(table),
        caption=table.caption,
        partial=PARTIAL_MARK,
    )


def _groups(table: ScoreTable) -> list[tuple[str, Sequence[TableRow]]]:
    rows = zip(_TITLES, (table.published, table.measured), strict=True)
    return [(title, entries) for title, entries in rows if entries]


FORMATS: dict[str, Callable[[ScoreTable, str], str]] = {".tex": _latex, ".md": _markdown, ".html": _html}
"""For each file suffix, the function that takes a table and the file's stem and returns the file's text."""
