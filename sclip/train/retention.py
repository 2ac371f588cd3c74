"""Remove a run's older checkpoints, by the config's rules for what to keep and its disk budget."""

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
    """Remove checkpoints that need not be kept, never the newest. One rank calls it, while no rank reads a checkpoint.

    Also removes what an earlier removal left behind: folders without a manifest, older than the newest checkpoint.
    """
    complete = folder.checkpoints()
    kept = {*complete[: keep.keep_last], *_best(complete, keep)}
    for path in folder.step_folders():
        is_old = bool(complete) and path.name < complete[0].name
        if is_old and path not in kept and not folder.is_held(path.name):
            _remove(path)


def make_room(folder: RunFolder, bytes_needed: int, keep: CheckpointConfig) -> None:
    """Remove older checkpoints until a checkpoint of `bytes_needed` fits into the disk budget, if there is a budget.

    The best ones are removed last, the newest never. Raises CheckpointError if there still is no room.
    """
    complete = folder.checkpoints()
    best = _best(complete, keep)
    used = {path: size_of(path) for path in complete}
    budget = keep.disk_budget_gb * 1e9
    oldest_first = sorted(complete[1:], key=lambda path: (path in best, path.name))
    while budget and oldest_first and sum(used.values()) + bytes_needed > budget:
        _remove(path := oldest_first.pop(0))
        del used[path]
    previous = max(sum(used.values()), bytes_needed)  # at the start: what the first checkpoint will take
    if budget and previous + bytes_needed > budget:
        raise CheckpointError(
            f"checkpoint.disk_budget_gb={keep.disk_budget_gb:g}: a checkpoint takes {bytes_needed / 1e9:.2f} GB, "
            f"and the one before it ({previous / 1e9:.2f} GB) stays until it is whole; raise it to "
            f"{(bytes_needed + previous) / 1e9:.2f} or more"
        )
    disk, free = free_bytes(folder.path)
    if free < bytes_needed:
        raise CheckpointError(
            f"{disk}: {free / 1e9:.2f} GB free, a checkpoint takes {bytes_needed / 1e9:.2f} GB; make room "
            "(sclip clean lists what can go), lower checkpoint.keep_last, or set checkpoint.disk_budget_gb"
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
    (path / manifest.MANIFEST).unlink(missing_ok=True)  # first: a half-removed checkpoint is incomplete
    remove(path, ignore_errors=True)  # a file that a network folder still holds must not stop a run
