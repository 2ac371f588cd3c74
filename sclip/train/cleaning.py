"""What the runs of a storage folder take on disk, and what of it can go.

Folders of runs go in, a line for each comes out. Nothing is removed here, and nothing of a run that may be training is
offered for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from sclip.storage.paths import StoragePath
from sclip.train.run_folder import ALIVE, LEASE, RunFolder, size_of

__all__ = ["RunUse", "runs"]

TRAINING_S = 3600.0
"""A run that gave a sign of life within this time may be training: reports are seconds to minutes apart."""


@dataclass(frozen=True)
class RunUse:
    """What one run takes."""

    path: StoragePath
    state: str
    """training, finished, resumable (its checkpoints go on) or begun (it has none yet)."""
    idle_s: float
    """Since it last gave a sign of life, in seconds."""
    bytes: int
    checkpoints: tuple[StoragePath, ...]
    """Complete ones; of a finished run the exported model stays without them."""
    leftovers: tuple[StoragePath, ...]
    """Checkpoints that a crash left half-written, and damaged ones that were set aside."""

    def removable(
        self, finished: bool, leftovers: bool, older_than_s: float | None
    ) -> tuple[StoragePath, ...]:
        """Return what may go, by the kinds that are asked for; nothing of a run that may be training."""
        if self.state == "training":
            return ()
        if older_than_s is not None and self.idle_s > older_than_s:
            return (self.path,)
        chosen = self.checkpoints if finished and self.state == "finished" else ()
        return chosen + (self.leftovers if leftovers else ())


def runs(storage: StoragePath) -> Iterator[RunUse]:
    """Yield the runs of a storage folder by name."""
    found: list[StoragePath] = [*(storage / "runs").glob("*/")]
    for path in sorted(found, key=lambda path: path.name):
        if not (path / "config.json").is_file():
            continue
        folder = RunFolder(path)
        named = [path / ALIVE, path / "config.json", path / "result.json"]
        signs = [*(file for file in named if file.exists()), *(path / LEASE).glob("*.json")]
        # Clocks of object stores and of this machine agree to seconds, which is enough here.
        idle_s = time.time() - max(file.stat().st_mtime for file in signs)
        complete = folder.checkpoints()
        if folder.result is not None:
            state = "finished"
        elif idle_s < TRAINING_S:
            state = "training"
        else:
            state = "resumable" if complete else "begun"
        half = [half for half in path.glob("step-*") if half not in complete]
        leftovers = sorted([*half, *path.glob("damaged-*")], key=lambda path: path.name)
        yield RunUse(path, state, idle_s, size_of(path), tuple(reversed(complete)), tuple(leftovers))
