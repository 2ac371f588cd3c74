"""Format an audit as lines for the user, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from sclip.run.audit.account import Audit, Rows
from sclip.storage.paths import StoragePath

LISTED = 20
"""Maximum lines of each kind, and ranges in a line, that `sclip audit` prints without --all."""


def to_json(run: StoragePath, audit: Audit) -> str:
    """Return the whole audit as JSON text."""
    tree = asdict(audit, dict_factory=lambda fields: {name.rstrip("_"): value for name, value in fields})
    return json.dumps({"run": str(run), "order": audit.order} | tree, indent=1)


def lines(audit: Audit, most: int) -> Iterator[str]:
    """Yield the summary, the notes, and at most `most` lines of each kind, such as `missed`, and ranges in a line."""
    names = ["epochs", "expected", "trained_once", "missed", "repeated", "quarantined"]
    names += [name for name in ("filtered", "unknown") if getattr(audit, name)]
    lost = [f"lost_shards={len(audit.lost)}"] if audit.lost else []
    yield " ".join([*(f"{name}={getattr(audit, name)}" for name in names), *lost, f"order={audit.order}"])
    yield from audit.notes
    yield from _kind("lost", [f"{entry.shard}: {entry.reason}" for entry in audit.lost], most)
    set_aside = [
        f"{row.shard} row {row.row}: {row.key or 'the rest of the shard'}: {row.reason}"
        + (f" ({row.passes} passes)" if row.passes > 1 else "")
        for row in audit.quarantined_rows
    ]
    yield from _kind("quarantined", set_aside, most)
    yield from _kind("missed", [_line(rows, most) for rows in audit.missed_rows], most)
    yield from _kind("repeated", [_line(rows, most) for rows in audit.repeated_rows], most)
    yield from _kind("unknown", [_line(rows, most) for rows in audit.unknown_rows], most)
    if difference := audit.first_difference:
        yield f"{'differs':12}step {difference.step} is the first whose rows differ from the order"
        yield from _kind("lacks", [_line(rows, most) for rows in difference.lacks], most)
        yield from _kind("extra", [_line(rows, most) for rows in difference.extra], most)


def _kind(kind: str, rows: Sequence[str], most: int) -> Iterator[str]:
    for row in rows[:most]:
        yield f"{kind:12}{row}"
    if len(rows) > most:
        yield f"{kind:12}... and {len(rows) - most} more (--all lists them)"


def _line(rows: Rows, most: int) -> str:
    ranges = [str(first) if first == last else f"{first}-{last}" for first, last in rows.ranges]
    if len(ranges) > most:
        ranges[most:] = [f"... and {len(ranges) - most} more ranges"]
    return f"{rows.shard} pass {rows.pass_}: rows {', '.join(ranges)}" + (
        f": {rows.reason}" if rows.reason else ""
    )
