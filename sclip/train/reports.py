"""Report on the steps: turn step results, stream rates and the model's health into metrics for the driver."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from sclip.config import ConfigError
from sclip.train.flops import peak_flops
from sclip.train.health import HealthMonitor, parameter_norms
from sclip.train.launcher import Launcher, TrainJob, report
from sclip.train.prefetch import ReadyBatch
from sclip.train.run_folder import RunFolder
from sclip.train.sample_accounts import SampleAccounts
from sclip.train.step import TrainStep
from sclip.train.stream_rates import StageMeter, limiting_stage

__all__ = ["StepReports"]


class StepReports:
    """Collect the figures of the steps and send them to the driver. All ranks make a report together.

    `last_good` returns the newest complete checkpoint, for the error of a diverged run.
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
        """Metrics of the last report."""

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the `with` block as waiting for data."""
        started = time.perf_counter()
        yield
        self._meter.wait_s += time.perf_counter() - started

    def receive(self, ready: ReadyBatch) -> None:
        """Add the figures of the stream's stages for a batch."""
        self._stages.add(ready.batch.notes, ready.batch.queued)

    def add(self, metrics: dict[str, Tensor], ready: ReadyBatch, rows: int, tokens: int, gflops: int) -> None:
        """Add the last step's metrics, this rank's batch, and the counts over all ranks."""
        self._meter.add(metrics, samples=rows, tokens=tokens, gflops=gflops)
        self._monitor.add(self._accounts.progress.step, metrics, ready.batch.entries)

    def count_skipped(self) -> None:
        """Count the steps without an update. Called before each report and checkpoint, so that both have the new count.

        Raises TrainingDiverged on every rank if there are too many.
        """
        progress = self._accounts.progress
        progress.skipped += self._monitor.count_skipped(progress.skipped, self._last_good)

    def send(self) -> None:
        """Report the steps since the last report, if any. Raises ConfigError for an unknown checkpoint.best_metric."""
        if not self._meter.steps:
            return
        self.count_skipped()
        config, progress, accounts = self._job.config, self._accounts.progress, self._accounts
        metrics = self._meter.take()
        if self._peak_flops:
            metrics["mfu"] = metrics["gflops_per_s"] * 1e9 / (self._launcher.world_size * self._peak_flops)
        metrics |= {name: float(norm) for name, norm in parameter_norms(self._step.model).items()}
        metrics["epoch"] = min(1.0, progress.step / self._job.order.recorded_steps) * config.train.epochs
        metrics |= {
            "quarantined": accounts.quarantined, "filtered": accounts.filtered, "missing": accounts.missing,
            "skipped": progress.skipped,
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


class StepMeter:
    """Add up the metrics of the steps since the last report.

    Args:
        device: device of the model; on a GPU, peak memory is measured too.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start()

    def _start(self) -> None:
        self.steps = 0
        self.wait_s = 0.0
        """Seconds that the loop waited for data; the caller adds them."""
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(2, 0)
        self._counts: Counter[str] = Counter()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._started = time.perf_counter()

    def add(self, metrics: Mapping[str, Tensor], **counts: float) -> None:
        """Add a step's scalar metrics, named alike in every step, and its counts over all ranks, by name."""
        values = torch.stack([value.float() for value in metrics.values()])
        sums = torch.stack([values.nan_to_num(0.0, 0.0, 0.0), values.isfinite().float()])
        self._sums = self._sums + sums if self.steps else sums
        self._names = tuple(metrics)
        self._counts.update(counts)
        self.steps += 1

    def take(self) -> dict[str, float]:
        """Return the values since the last call. All ranks call it together.

        They are: each metric's mean over the steps in which it was finite (NaN if none); each count as `NAME_per_s`;
        `data_wait`, the share of time that this rank waited for data; and on a GPU `peak_memory_bytes`, the maximum
        memory of tensors on any rank.
        """
        sums, finite = self._sums.tolist()
        elapsed = time.perf_counter() - self._started  # after `tolist`, so the device has finished
        means = {
            name: total / steps if steps else math.nan
            for name, total, steps in zip(self._names, sums, finite, strict=True)
        }
        means |= {f"{name}_per_s": count / elapsed for name, count in self._counts.items()}
        means["data_wait"] = self.wait_s / elapsed
        if self._device.type == "cuda":
            peak = torch.tensor(torch.cuda.max_memory_allocated(self._device))
            dist.all_reduce(peak, dist.ReduceOp.MAX)
            means["peak_memory_bytes"] = float(peak)
        self._start()
        return means
