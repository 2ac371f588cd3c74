"""Format the table of a benchmark: what was measured, the peer, the target, and the result.

A table is shown in a terminal or saved as JSON. `markdown` turns the JSON into a table for a README.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["HEAD", "Found", "Line", "Plain", "Table", "markdown", "padded", "spread", "widths"]

Found = tuple[str, Mapping[str, Sequence[float]]]
"""Result in words, and the figures of every round by name."""

HEAD = ("", "peer", "wanted", "measured, the median (least to most)")


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    what: str
    peer: str
    wanted: str
    found: str
    figures: Mapping[str, Sequence[float]]
    details: str = ""
    traceback: str = ""  # of a row that failed; not printed

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The columns of the table."""
        return self.what, self.peer, self.wanted, self.found


class Plain:
    """Stand-in for rich's console where rich is not installed."""

    def print(self, text: str, **_: object) -> None:
        """Print the text without wrapping it, and flush the output."""
        print(text, flush=True)


@dataclass(frozen=True)
class Table:
    """All rows, and the machine that measured them."""

    lines: list[Line]
    made_on: dict[str, str]
    head: tuple[str, str, str, str] = HEAD

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        return {"made_on": self.made_on, "rows": [vars(line) for line in self.lines]}

    def show(self, console: Console | Plain) -> None:
        """Print the table, with rich's console or `Plain`."""
        rows = [self.head, *(line.cells for line in self.lines)]
        column_widths = widths(rows)
        for cells in rows:
            console.print(padded(cells, column_widths), soft_wrap=True, markup=False)
        self.show_details(console)

    def show_details(self, console: Console | Plain) -> None:
        """Print what follows the rows: the machine, and the details of each row."""
        for name, value in self.made_on.items():
            console.print(f"{name:<18}{value}", soft_wrap=True, markup=False)
        for line in self.lines:
            if line.details:
                console.print(line.details, soft_wrap=True, markup=False)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, followed by the minimum and the maximum, as text."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def widths(rows: Iterable[Sequence[str]]) -> list[int]:
    """Return the width of each column except the last."""
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)][:-1]


def padded(cells: Sequence[str], column_widths: Sequence[int]) -> str:
    """Return one row as text, with its cells padded to the column widths."""
    columns = [cell.ljust(width) for cell, width in zip(cells, column_widths, strict=False)]
    return "  ".join([*columns, *cells[len(columns) :]]).rstrip()


def markdown(saved: Mapping[str, Any]) -> str:
    """Return the Markdown table for a README from the JSON of `Table.to_json`."""
    lines = ["| | peer | measured, the median (least to most) |", "| --- | --- | --- |"]
    for row in saved["rows"]:
        cells = (row[name].replace("|", "\\|") for name in ("what", "peer", "found"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", ", ".join(f"{name} {value}" for name, value in saved["made_on"].items())])
