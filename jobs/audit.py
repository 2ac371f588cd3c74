"""Prove that a run trained on every row exactly once: `python jobs/audit.py RUN`, its folder or its name.

The tars are counted anew and compared with the ledger that every worker wrote, step by step. One line says the result,
then follows what was set aside, and every row that was missed or repeated.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sclip.config import RunConfig
from sclip.run.audit.account import Audit, AuditError, Rows, audit
from sclip.storage.paths import storage_path

_LISTED = 20
"""Lines of a kind, and ranges of a line, where not all are asked for."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, by path or URI, or its name (run.name)")
    parser.add_argument("--storage", default=RunConfig().storage, help="run.storage of a run that is named")
    parser.add_argument(
        "--shards",
        nargs="+",
        default=(),
        metavar="URI",
        help="shards whose URIs hold credentials, which no run records",
    )
    parser.add_argument("--all", action="store_true", help="list every row, where else there are limits")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the same, without limits, as JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where nothing is missed or repeated, 1 where something is, 2 where it cannot be audited."""
    given = _arguments(argv)
    try:
        run = storage_path(given.run)
        if not run.is_dir():
            run = storage_path(given.storage) / "runs" / given.run
        found = audit(run, given.shards)
        if given.json:
            given.json.write_text(json.dumps({"run": str(run)} | _tree(found), indent=1) + "\n")
    except (AuditError, OSError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("audit: interrupted", file=sys.stderr)
        return 130
    try:
        _show(found, sys.maxsize if given.all else _LISTED)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (`head`) has seen enough; Python would flush once more, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if found.exact else 1


def _show(found: Audit, most: int) -> None:
    print(_summary(found))
    for note in found.notes:
        print(note)
    set_aside = [
        f"{row.shard} row {row.row}: {row.key or 'the rest of the shard'}: {row.reason}"
        + (f" ({row.passes} passes)" if row.passes > 1 else "")
        for row in found.quarantined_rows
    ]
    _list("quarantined", set_aside, most)
    _list("missed", [_line(rows, most) for rows in found.missed_rows], most)
    _list("repeated", [_line(rows, most) for rows in found.repeated_rows], most)
    _list("unknown", [_line(rows, most) for rows in found.unknown_rows], most)


def _summary(found: Audit) -> str:
    names = ["epochs", "expected", "trained_once", "missed", "repeated", "quarantined"]
    names += [name for name in ("filtered", "unknown") if getattr(found, name)]
    return " ".join(f"{name}={getattr(found, name)}" for name in names)


def _tree(found: Audit) -> dict[str, Any]:
    return asdict(found, dict_factory=lambda fields: {name.rstrip("_"): value for name, value in fields})


def _list(kind: str, lines: Sequence[str], most: int) -> None:
    for line in lines[:most]:
        print(f"{kind:12}{line}")
    if len(lines) > most:
        print(f"{kind:12}... and {len(lines) - most} more (--all lists them)")


def _line(rows: Rows, most: int) -> str:
    ranges = [str(first) if first == last else f"{first}-{last}" for first, last in rows.ranges]
    if len(ranges) > most:
        ranges[most:] = [f"... and {len(ranges) - most} more ranges"]
    return f"{rows.shard} pass {rows.pass_}: rows {', '.join(ranges)}" + (
        f": {rows.reason}" if rows.reason else ""
    )


if __name__ == "__main__":
    sys.exit(main())
