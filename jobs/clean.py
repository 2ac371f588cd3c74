"""What runs take on disk, and making room: `python jobs/clean.py STORAGE`, the run.storage of the runs.

Lists every run with its state, age and size. With --finished, --leftovers or --older-than it lists what would go, and
with --yes removes it. A run that gave a sign of life within the last hour is left alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from rich.console import Console
from rich.table import Table

from sclip.storage.paths import StoragePath, remove, storage_path
from sclip.train.cleaning import RunUse, runs
from sclip.train.run_folder import size_of

_DAY_S = 86400.0


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not days > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of days above 0")
    return days


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("storage", metavar="STORAGE", help="folder or URI that run.storage names")
    parser.add_argument(
        "--finished", action="store_true", help="checkpoints of finished runs; model and scores stay"
    )
    parser.add_argument(
        "--leftovers", action="store_true", help="checkpoints that are half-written or damaged"
    )
    parser.add_argument(
        "--older-than", type=_days, metavar="DAYS", help="whole runs without a sign of life for so long"
    )
    parser.add_argument("--yes", action="store_true", help="remove it, where else it is only listed")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where the folder was read, 2 where there is none or something cannot be removed."""
    given = _arguments(argv)
    console = Console()
    storage = storage_path(given.storage)
    if not (storage / "runs").is_dir():
        print(f"clean: {storage}: no folder of runs (run.storage of the runs is meant)", file=sys.stderr)
        return 2
    older_than_s = given.older_than * _DAY_S if given.older_than else None
    found = list(runs(storage))
    chosen = {use.path: use.removable(given.finished, given.leftovers, older_than_s) for use in found}
    console.print(_table(found, {path: sum(map(size_of, paths)) for path, paths in chosen.items()}))
    paths = [path for of_run in chosen.values() for path in of_run]
    if not given.yes:
        for path in paths:
            print(f"would remove {path}")
        if paths:
            print("nothing was removed; add --yes")
        return 0
    for path in paths:
        try:
            remove(path)
        except OSError as error:
            print(f"clean: {path}: cannot be removed ({error})", file=sys.stderr)
            return 2
        print(f"removed {path}")
    return 0


def _table(found: list[RunUse], freed: dict[StoragePath, int]) -> Table:
    table = Table("run", "state", "idle", "checkpoints", "leftovers", "size", "goes")
    for use in found:
        idle = f"{use.idle_s / _DAY_S:.1f} d" if use.idle_s >= _DAY_S else f"{use.idle_s / 3600:.1f} h"
        counts = (str(len(use.checkpoints)), str(len(use.leftovers)))
        table.add_row(use.path.name, use.state, idle, *counts, _gb(use.bytes), _gb(freed[use.path]))
    return table


def _gb(count: int) -> str:
    return f"{count / 1e9:.3f} GB" if count else ""


if __name__ == "__main__":
    sys.exit(main())
