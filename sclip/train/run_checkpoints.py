"""Write, resume and remove the checkpoints of a run.

A run starts from its newest checkpoint, and writes others while training continues, at most one at a time. The config
says which older ones stay, and how much disk space all may take.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sclip.config import CheckpointConfig
from sclip.storage.paths import StoragePath, free_bytes, remove
from sclip.train import checkpoint, manifest
from sclip.train.launcher import Launcher, report
from sclip.train.manifest import CheckpointError
from sclip.train.optimizer import EMA
from sclip.train.ranks import in_unison
from sclip.train.run_folder import RunFolder, size_of
from sclip.train.sample_accounts import SampleAccounts
from sclip.train.sharding import kind_of
from sclip.train.step import TrainStep
from sclip.train.teacher import check_start

__all__ = ["RunCheckpoints", "make_room", "prune"]

_log = logging.getLogger("sclip.train")


class RunCheckpoints:
    """Write the checkpoints of one run, with the model and optimizer of `step`. Report complete checkpoints.

    All ranks call every method together, at the same step.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: CheckpointConfig,
        step: TrainStep,
        ema: EMA | None,
        launcher: Launcher,
        start: Mapping[str, str] | None = None,
    ) -> None:
        """Create the writer. On rank 0, `start` has digests of the "teacher" (loss.distil) and the "towers" (LoRA)."""
        self._folder, self._config, self._launcher = folder, config, launcher
        self._step, self._ema, self._start = step, ema, dict(start or {})
        self._saver = checkpoint.Saver(step.config.train.collective_timeout_s)
        step.before_update = self._saver.until_copied
        self._bytes = checkpoint.size_bytes(step.model, ema is not None)
        self._start_called = self._stall_s = 0.0
        self.saved_step = self.started_step = 0
        """Steps of the newest complete checkpoint and of the newest started one."""

    @property
    def is_written(self) -> bool:
        """Whether a checkpoint is in progress and this rank has written it (`checkpoint.Saver.is_done`)."""
        return self._saver.is_done

    def resume(self) -> dict[str, Any] | None:
        """Load the newest checkpoint, if any, and return its state. Make room on the disk for another checkpoint."""
        state, latest = None, self._folder.latest()
        if latest is not None:
            path, self.saved_step = latest
            self.started_step = self.saved_step
            state = checkpoint.load(path, self._step.model, self._step.optimizer, self._ema)
            in_unison(functools.partial(self._check_start, state), CheckpointError)
            self._tell_sharding(path.name, state)
        self._make_room()
        return state

    def start(self, accounts: SampleAccounts, metrics: Mapping[str, float]) -> None:
        """Start to write a checkpoint, which is complete once `finish` returns."""
        self._start_called = time.perf_counter()
        self.finish()
        step = accounts.progress.step
        # Write the quarantine before the manifest. A resume can remove lines that no checkpoint counts, but it could
        # not restore missing lines that a checkpoint counts.
        accounts.settle(step)
        accounts.sync()
        self._make_room()
        state = {
            "progress": dict(vars(accounts.progress)),
            "metrics": {name: value for name, value in metrics.items() if math.isfinite(value)},
            "start": self._start,
            "sharding": kind_of(self._step.model),
        }
        self.started_step = step
        self._saver.start(
            self._folder.step_path(step), self._step.model, self._step.optimizer, state, self._ema,
            afterwards=lambda: prune(self._folder, self._config),
        )  # fmt: skip
        self._stall_s = time.perf_counter() - self._start_called
        if not self._config.asynchronous:
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint in progress, if any, is complete on every rank, and report it."""
        if self.started_step == self.saved_step:
            return
        self._saver.wait()
        if self._config.asynchronous:
            self._stall_s += self._saver.waited_s()
        else:
            self._stall_s = time.perf_counter() - self._start_called
        self.saved_step = self.started_step
        _log.info("the checkpoint is complete", extra={"step": self.saved_step})
        path = self._folder.step_path(self.saved_step)
        report(self._launcher, "checkpoint", path=str(path), step=self.saved_step, seconds=self._stall_s)

    def last_good(self) -> str:
        """Finish the checkpoint in progress. Return the path of the newest complete checkpoint, or "none yet"."""
        self.finish()
        return str(self._folder.step_path(self.saved_step)) if self.saved_step else "none yet"

    def _check_start(self, state: Mapping[str, Any]) -> dict[str, Any]:
        for name, present in self._start.items():
            check_start(state.get("start", {}).get(name, ""), present, self._folder.path)
        return {}

    def _tell_sharding(self, name: str, state: Mapping[str, Any]) -> None:
        now = kind_of(self._step.model)
        if (before := state.get("sharding", now)) != now:
            means = f"train.sharding={self._step.config.train.sharding} now means {now}"
            report(self._launcher, "note", line=f"{name} was trained with {before}; {means}")

    def _make_room(self) -> None:
        def on_rank_0() -> dict[str, Any]:
            if self._launcher.rank == 0:
                self._folder.touch()
                make_room(self._folder, self._bytes, self._config)
            return {}

        in_unison(on_rank_0, CheckpointError)


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
