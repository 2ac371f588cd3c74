"""List the disk use of a storage folder's runs, and the paths that can be removed."""

from __future__ import annotations

from rich.table import Table

from sclip.storage.paths import StoragePath
from sclip.train.cleaning import runs
from sclip.train.run_folder import size_of

_DAY_S = 86400.0


def listed(
    storage: StoragePath, finished: bool, leftovers: bool, older_than_days: float | None
) -> tuple[Table, list[StoragePath]]:
    """Return the table of all runs, and the removable paths that the other arguments select (`RunUse.removable`)."""
    older_than_s = None if older_than_days is None else older_than_days * _DAY_S
    table = Table("run", "state", "idle", "checkpoints", "leftovers", "size", "goes")
    removable: list[StoragePath] = []
    for use in runs(storage):
        paths = use.removable(finished, leftovers, older_than_s)
        removable += paths
        idle = f"{use.idle_s / _DAY_S:.1f} d" if use.idle_s >= _DAY_S else f"{use.idle_s / 3600:.1f} h"
        counts = (str(len(use.checkpoints)), str(len(use.leftovers)))
        sizes = (_gb(use.bytes), _gb(sum(map(size_of, paths))))
        table.add_row(use.path.name, use.state, idle, *counts, *sizes)
    return table, removable


def _gb(count: int) -> str:
    return f"{count / 1e9:.3f} GB" if count else ""
