"""A benchmark of several kinds of rows: what was measured beside whom, what is wanted, what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Found", "Line", "Plain", "Table"]

Found = tuple[str, Mapping[str, Sequence[float]]]
"""In words, and the figures of every round by name."""


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    what: str
    peer: str
    wanted: str
    found: str
    figures: Mapping[str, Sequence[float]]


class Plain:
    """What the table is shown with where rich is not installed."""

    def print(self, text: str, soft_wrap: bool = True) -> None:
        """Print a line; nothing wraps it."""
        print(text)


@dataclass(frozen=True)
class Table:
    """All rows, and what they were measured on."""

    lines: list[Line]
    profile: str
    made_on: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {"made_on": self.made_on, "rows": [vars(line) for line in self.lines], "profile": self.profile}

    def show(self, console: Console | Plain) -> None:
        """Print it, with rich's console or `Plain`."""
        head = ("", "peer", "wanted", "measured, the median (least to most)")
        rows = [head, *((of.what, of.peer, of.wanted, of.found) for of in self.lines)]
        widths = [max(len(cells[k]) for cells in rows) for k in range(len(head))]
        for cells in rows:
            padded = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            console.print(padded.rstrip(), soft_wrap=True)
        for name, value in self.made_on.items():
            console.print(f"{name:<18}{value}", soft_wrap=True)
        if self.profile:
            console.print(self.profile, soft_wrap=True)
