"""Remove a run's older checkpoints. The config says which to keep and how much disk space they may take."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

from sclip.config import CheckpointConfig
from sclip.storage.paths import StoragePath, free_bytes, remove
from sclip.train import manifest
from sclip.train.manifest import CheckpointError
from sclip.train.run_folder import RunFolder, size_of

__all__ = ["make_room", "prune"]


def prune(folder: RunFolder, keep: CheckpointConfig) -> None:
    """Remove the checkpoints that `keep` does not keep, and incomplete ones that are older than the newest.

    Only one rank calls it, and no rank may be reading a checkpoint.
    """
    complete = folder.checkpoints()
    kept = {*complete[: keep.keep_last], *_best(complete, keep)}
    for path in folder.step_folders():
        is_old = bool(complete) and path.name < complete[0].name
        if is_old and path not in kept and not folder.is_held(path.name):
            _remove(path)


def make_room(folder: RunFolder, bytes_needed: int, keep: CheckpointConfig) -> None:
    """Remove older checkpoints until a new one of `bytes_needed` fits into the disk budget, if there is a budget.

    Removes the best ones last, and the newest never. Raises CheckpointError if budget or disk are too small.
    """
    complete = folder.checkpoints()
    best = _best(complete, keep)
    used = {path: size_of(path) for path in complete}
    budget = keep.disk_budget_gb * 1e9
    oldest_first = sorted(complete[1:], key=lambda path: (path in best, path.name))
    while budget and oldest_first and sum(used.values()) + bytes_needed > budget:
        _remove(path := oldest_first.pop(0))
        del used[path]
    previous = max(sum(used.values()), bytes_needed)  # before the first: as large as the new one
    if budget and previous + bytes_needed > budget:
        raise CheckpointError(
            f"checkpoint.disk_budget_gb={keep.disk_budget_gb:g}: a checkpoint takes {bytes_needed / 1e9:.2f} GB, "
            f"and the previous one ({previous / 1e9:.2f} GB) stays until the new one is complete; raise the budget to "
            f"{(bytes_needed + previous) / 1e9:.2f} or more"
        )
    disk, free = free_bytes(folder.path)
    if free < bytes_needed:
        raise CheckpointError(
            f"{disk}: {free / 1e9:.2f} GB free, a checkpoint takes {bytes_needed / 1e9:.2f} GB; make room "
            "(sclip clean lists what it can remove), lower checkpoint.keep_last, or set checkpoint.disk_budget_gb"
        )


def _best(complete: Sequence[StoragePath], keep: CheckpointConfig) -> list[StoragePath]:
    if not keep.keep_best:
        return []
    values = {}
    for path in complete:
        with contextlib.suppress(CheckpointError):  # a damaged checkpoint is never among the best
            values[path] = manifest.read_state(path).get("metrics", {}).get(keep.best_metric)
    sign = 1 if keep.best_is == "lowest" else -1
    measured = [path for path, value in values.items() if value is not None and math.isfinite(value)]
    return sorted(measured, key=lambda path: sign * values[path])[: keep.keep_best]


def _remove(path: StoragePath) -> None:
    (path / manifest.MANIFEST).unlink(missing_ok=True)  # first: what remains then counts as incomplete
    remove(path, ignore_errors=True)  # a run goes on if a network folder still holds a file
