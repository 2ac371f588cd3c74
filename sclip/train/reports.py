"""Reports of the steps: what they returned, how the stream keeps up and the model's health in; metrics out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sclip.config import ConfigError
from sclip.train.accounts import SampleAccounts
from sclip.train.flops import peak_flops
from sclip.train.health import HealthMonitor, parameter_norms
from sclip.train.launcher import Launcher, TrainJob, report
from sclip.train.meter import StepMeter
from sclip.train.prefetch import ReadyBatch
from sclip.train.run_folder import RunFolder
from sclip.train.stages import StageMeter, limiting_stage
from sclip.train.step import TrainStep

__all__ = ["StepReports"]


class StepReports:
    """Gathers what is reported of the steps, and sends it to the driver; a report is made by all ranks together.

    `last_good` returns the newest complete checkpoint, for the error of a run that diverged.
    """

    def __init__(
        self, job: TrainJob, launcher: Launcher, step: TrainStep, accounts: SampleAccounts,
        last_good: Callable[[], str],
    ) -> None:  # fmt: skip
        self._job, self._launcher = job, launcher
        self._step, self._accounts, self._last_good = step, accounts, last_good
        self._folder = RunFolder(job.folder)
        device = launcher.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self._peak_flops = peak_flops(name, job.config.train.precision)
        self._meter, self._stages = StepMeter(device), StageMeter()
        self._monitor = HealthMonitor(job.config.health, job.shard)
        self.metrics: dict[str, float] = {}
        """Of the last report."""

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block's time as waiting for data."""
        started = time.perf_counter()
        yield
        self._meter.wait_s += time.perf_counter() - started

    def receive(self, ready: ReadyBatch) -> None:
        """Add what the stages of the stream did for a batch."""
        self._stages.add(ready.batch.notes, ready.batch.queued)

    def add(self, metrics: dict[str, Tensor], ready: ReadyBatch, rows: int, tokens: int, gflops: int) -> None:
        """Add what the last step returned, this rank's batch in it, and the counts of all ranks."""
        self._meter.add(metrics, samples=rows, tokens=tokens, gflops=gflops)
        self._monitor.add(self._accounts.progress.step, metrics, ready.batch.entries)

    def count_skipped(self) -> None:
        """Count the steps without an update; before a report and a checkpoint, so that neither holds too many.

        Raises TrainingDiverged on every rank.
        """
        progress = self._accounts.progress
        progress.skipped += self._monitor.count_skipped(progress.skipped, self._last_good)

    def send(self) -> None:
        """Report the steps since the last report, if there are any."""
        if not self._meter.steps:
            return
        self.count_skipped()
        config, progress, accounts = self._job.config, self._accounts.progress, self._accounts
        metrics = self._meter.take()
        if self._peak_flops:
            metrics["mfu"] = metrics["gflops_per_s"] * 1e9 / (self._launcher.world_size * self._peak_flops)
        metrics |= {name: float(norm) for name, norm in parameter_norms(self._step.model).items()}
        done = progress.samples + accounts.filtered
        metrics["epoch"] = done / self._job.samples * config.train.epochs
        metrics |= {
            "quarantined": accounts.quarantined, "filtered": accounts.filtered, "skipped": progress.skipped
        }  # fmt: skip
        keep = config.checkpoint
        if keep.keep_best and keep.best_metric not in metrics:
            raise ConfigError(
                f"checkpoint.best_metric={keep.best_metric!r}: no such metric; one of {', '.join(sorted(metrics))}"
            )
        self.metrics = metrics
        if self._launcher.rank == 0:
            self._folder.touch()
        stream = self._stages.take()
        report(
            self._launcher, "metrics", step=progress.step, samples=progress.samples, metrics=metrics, stream=stream,
            limit=limiting_stage(stream, metrics["data_wait"]),
        )  # fmt: skip
