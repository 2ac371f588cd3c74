"""What a benchmark found, as a table with bars and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sclip.benchmark.rounds import Rates

_WIDTH = 12


@dataclass(frozen=True, slots=True)
class PeerRow:
    """One peer."""

    name: str
    rates: Rates | None
    why_not: str = ""
    """Why it did not run."""


@dataclass(frozen=True, slots=True)
class PeerTable:
    """The table of one benchmark."""

    title: str
    rows: list[PeerRow]
    against: dict[str, str]
    """Heading of a column of ratios -> the peer that all are compared with."""
    made_on: dict[str, str]

    def ratio(self, row: PeerRow, heading: str) -> float | None:
        """Return how many times as fast a row is as the peer of a column; None where one of the two did not run."""
        other = next(found.rates for found in self.rows if found.name == self.against[heading])
        return row.rates.ratio(other) if row.rates and other else None

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "title": self.title,
            "made_on": self.made_on,
            "rows": [
                {
                    "name": row.name,
                    "median_per_s": row.rates.median if row.rates else None,
                    "per_s": list(row.rates.per_s) if row.rates else [],
                    "why_not": row.why_not,
                    "ratios": {self.against[heading]: self.ratio(row, heading) for heading in self.against},
                }
                for row in self.rows
            ],
        }

    def show(self, console: Console) -> None:
        """Print the table, then what it was made on."""
        console.print(self.title)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("", no_wrap=True)
        for heading in ("median", "min", "max", *self.against):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        most = max((row.rates.median for row in self.rows if row.rates), default=1.0)
        for row in self.rows:
            if row.rates is None:
                table.add_row(row.name)
                continue
            rates = (row.rates.median, min(row.rates.per_s), max(row.rates.per_s))
            ratios = [self.ratio(row, heading) for heading in self.against]
            table.add_row(
                row.name,
                *(f"{rate:,.0f}" for rate in rates),
                *("-" if ratio is None else f"{ratio:.2f} x" for ratio in ratios),
                "█" * max(1, round(_WIDTH * row.rates.median / most)),
            )
        console.print(table)
        for row in self.rows:
            if row.why_not:
                console.print(f"{row.name}: {row.why_not}", soft_wrap=True, markup=False)
        for name, value in self.made_on.items():
            console.print(f"{name:<18}{value}", soft_wrap=True, markup=False)
