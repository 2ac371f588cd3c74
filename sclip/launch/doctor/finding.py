"""Findings of the checks, as a table or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Status = Literal["ok", "warn", "fail"]
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_RANK = ("ok", "warn", "fail")
_MOST_ALIKE = 4


@dataclass(frozen=True)
class CheckFinding:
    """Result of one check."""

    check: str
    where: str
    """Name of a node, or "cluster", "driver" or "all N nodes"."""
    status: Status
    found: str
    remedy: str = ""
    """What the user should do if the status is not ok."""


def worst(findings: Sequence[CheckFinding]) -> Status:
    """Return the worst status; "ok" if there are no findings."""
    return max((finding.status for finding in findings), key=_RANK.index, default="ok")


def show(findings: Sequence[CheckFinding], console: Console) -> None:
    """Print the table, and the remedies below it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "check", "where", "found"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "")
    for finding in _few(findings):
        status = Text(finding.status, _STYLES[finding.status])
        table.add_row(status, finding.check, Text(finding.where), Text(finding.found))
    console.print(table)
    for finding in findings:
        if finding.remedy:
            console.print(
                f"{finding.status}: {finding.check}, {finding.where}: {finding.remedy}",
                soft_wrap=True, markup=False, highlight=False,
            )  # fmt: skip


def _few(findings: Sequence[CheckFinding]) -> Iterator[CheckFinding]:
    """Yield the findings for the table. If a check has more than `_MOST_ALIKE` ok findings, they become one finding."""
    ok = [finding for finding in findings if finding.status == "ok"]
    num_ok = Counter(finding.check for finding in ok)
    shown: set[str] = set()
    for finding in findings:
        if finding.status != "ok" or num_ok[finding.check] <= _MOST_ALIKE:
            yield finding
        elif finding.check not in shown:
            shown.add(finding.check)
            nodes = {alike.where for alike in ok if alike.check == finding.check}
            yield replace(finding, where=f"{len(nodes)} nodes", found=f"such as {finding.found}")


def to_json(findings: Sequence[CheckFinding]) -> str:
    """Return the findings and the worst status as JSON."""
    record = {"status": worst(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(record, indent=1)
