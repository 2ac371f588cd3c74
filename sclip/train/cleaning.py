"""Find out how much disk space the runs in a storage folder take, and which of their files can be removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from sclip.storage.paths import StoragePath
from sclip.train.run_folder import ALIVE, LEASE, RunFolder, size_of

__all__ = ["RunUse", "runs"]

TRAINING_S = 3600.0
"""Seconds without a sign of life after which a run no longer counts as training. Reports are at most minutes apart."""


@dataclass(frozen=True)
class RunUse:
    """Disk use of one run."""

    path: StoragePath
    state: str
    """`training`, `finished`, `resumable` (with a complete checkpoint) or `begun` (without one)."""
    idle_s: float
    """Seconds since the run's last sign of life."""
    bytes: int
    checkpoints: tuple[StoragePath, ...]
    """Complete checkpoints, oldest first."""
    leftovers: tuple[StoragePath, ...]
    """Incomplete checkpoints that a crash left, and damaged ones (`RunFolder.roll_back`)."""

    def removable(
        self, finished: bool, leftovers: bool, older_than_s: float | None
    ) -> tuple[StoragePath, ...]:
        """Return the paths that `sclip clean` removes with these options; none if the run may be training.

        A run that has been idle for more than `older_than_s` seconds is removed as a whole; None means never.
        """
        if self.state == "training":
            return ()
        if older_than_s is not None and self.idle_s > older_than_s:
            return (self.path,)
        chosen = self.checkpoints if finished and self.state == "finished" else ()
        return chosen + (self.leftovers if leftovers else ())


def runs(storage: StoragePath) -> Iterator[RunUse]:
    """Yield the runs of a storage folder, sorted by name."""
    run_paths: list[StoragePath] = [*(storage / "runs").glob("*/")]
    for path in sorted(run_paths, key=lambda path: path.name):
        if not (path / "config.json").is_file():
            continue
        folder = RunFolder(path)
        files = [path / ALIVE, path / "config.json", path / "result.json"]
        signs = [*(file for file in files if file.exists()), *(path / LEASE).glob("*.json")]
        # An object store's clock agrees with this machine's to within seconds, which is enough here.
        idle_s = time.time() - max(file.stat().st_mtime for file in signs)
        complete = folder.checkpoints()
        if folder.result is not None:
            state = "finished"
        elif idle_s < TRAINING_S:
            state = "training"
        else:
            state = "resumable" if complete else "begun"
        incomplete = [incomplete for incomplete in path.glob("step-*") if incomplete not in complete]
        leftovers = sorted([*incomplete, *path.glob("damaged-*")], key=lambda path: path.name)
        yield RunUse(path, state, idle_s, size_of(path), tuple(reversed(complete)), tuple(leftovers))
