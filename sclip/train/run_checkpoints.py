"""Write and resume the checkpoints of a run: start from the newest, and write others while training continues.

At most one checkpoint is being written at a time. All ranks call every method together, at the same step.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from sclip.config import CheckpointConfig
from sclip.train import checkpoint, retention
from sclip.train.launcher import Launcher, report
from sclip.train.manifest import CheckpointError
from sclip.train.optimizer import EMA
from sclip.train.ranks import in_unison
from sclip.train.run_folder import RunFolder
from sclip.train.sample_accounts import SampleAccounts
from sclip.train.sharding import kind_of
from sclip.train.step import TrainStep
from sclip.train.teacher import check_start

__all__ = ["RunCheckpoints"]

_log = logging.getLogger("sclip.train")


class RunCheckpoints:
    """Write the checkpoints of one run, with the model and optimizer of `step`. Report complete checkpoints."""

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
            afterwards=lambda: retention.prune(self._folder, self._config),
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
                retention.make_room(self._folder, self._bytes, self._config)
            return {}

        in_unison(on_rank_0, CheckpointError)
