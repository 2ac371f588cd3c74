"""Report on the steps: turn step results, stream rates and the model's health into metrics for the driver.

A report covers several steps. Its values are copied to the host while the device computes the next step, and sent after
that step.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sclip.config import ConfigError
from sclip.train.flops import peak_flops
from sclip.train.health import HealthMonitor, StepValues, parameter_norms
from sclip.train.launcher import Launcher, TrainJob, report
from sclip.train.prefetch import ReadyBatch
from sclip.train.run_folder import RunFolder
from sclip.train.sample_accounts import SampleAccounts
from sclip.train.step import TrainStep
from sclip.train.stream_rates import StageMeter, limiting_stage

__all__ = ["StepReports"]


class StepReports:
    """Collect the figures of the steps and send them to the driver. All ranks make a report together.

    `last_good` returns the path of the newest complete checkpoint, for an error message.
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
        self._begun: Callable[[], None] | None = None
        """Function that sends the pending report; None if there is none."""
        self.metrics: dict[str, float] = {}
        """Metrics of the last report that was sent."""

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the `with` block as waiting for data."""
        started = time.perf_counter()
        yield
        self._meter.wait_s += time.perf_counter() - started

    def receive(self, ready: ReadyBatch) -> None:
        """Add what the stages of the stream (reading, parsing, ...) noted for a batch (`StageMeter.add`)."""
        self._stages.add(ready.batch.notes, ready.batch.queued)

    def add(self, metrics: dict[str, Tensor], ready: ReadyBatch, rows: int, tokens: int, gflops: int) -> None:
        """Add the last step: `rows`, `tokens` and `gflops` are sums over all ranks, `ready` is this rank's batch."""
        self._meter.add(metrics, samples=rows, tokens=tokens, gflops=gflops)
        self._monitor.add(self._accounts.progress.step, metrics, ready.batch.entries)

    def settle(self) -> None:
        """Send the pending report, and bring the count of skipped steps up to date. Raises as `finish` does."""
        self.finish()
        steps, values = self._monitor.take()
        self._count_skipped(steps, values.tolist())

    def begin(self) -> None:
        """Send the pending report, if any. Then prepare the next one, of all steps added since the last `begin`."""
        self.finish()
        if not self._meter.steps:
            return
        progress, accounts, order = self._accounts.progress, self._accounts, self._job.order
        norms = parameter_norms(self._step.model)
        interval, stream = self._meter.take(), self._stages.take()
        steps, values = self._monitor.take()
        copy = HostCopy([interval.sums, values, *norms.values()])
        counts = {
            "epoch": min(1.0, progress.step / order.recorded_steps) * self._job.config.train.epochs,
            "quarantined": accounts.quarantined, "filtered": accounts.filtered, "missing": accounts.missing,
        }  # fmt: skip
        position = {"step": progress.step, "samples": progress.samples}

        def send() -> None:
            sums, step_values, *norm_values = copy.read()
            self._count_skipped(steps, step_values)
            metrics = interval.metrics(sums)
            if self._peak_flops:
                flops = self._launcher.world_size * self._peak_flops
                metrics["mfu"] = metrics["gflops_per_s"] * 1e9 / flops
            metrics |= dict(zip(norms, norm_values, strict=True)) | counts | {"skipped": progress.skipped}
            self._send(metrics, stream, position)

        self._begun = send

    def finish(self) -> None:
        """Send the pending report, if any. All ranks call it together.

        Raises TrainingDiverged if too many steps were skipped, ConfigError for an unknown checkpoint.best_metric.
        """
        begun, self._begun = self._begun, None
        if begun is not None:
            begun()

    def _count_skipped(self, steps: Sequence[StepValues], values: Sequence[Sequence[float]]) -> None:
        progress = self._accounts.progress
        progress.skipped += self._monitor.count_skipped(steps, values, progress.skipped, self._last_good)

    def _send(self, metrics: dict[str, float], stream: dict[str, float], position: Mapping[str, int]) -> None:
        keep = self._job.config.checkpoint
        if keep.keep_best and keep.best_metric not in metrics:
            raise ConfigError(
                f"checkpoint.best_metric={keep.best_metric!r}: no such metric; use one of {', '.join(sorted(metrics))}"
            )
        self.metrics = metrics
        if self._launcher.rank == 0:
            self._folder.touch()
        limit = limiting_stage(stream, metrics["data_wait"])
        report(self._launcher, "metrics", **position, metrics=metrics, stream=stream, limit=limit)


class HostCopy:
    """Values of several tensors, brought to the host in one copy. Only `read` waits for the device."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._shapes = [tensor.shape for tensor in tensors]
        values = torch.cat([tensor.float().flatten().to(tensors[0].device) for tensor in tensors])
        self._values = values.to("cpu", non_blocking=True)  # into pinned memory
        self._copied = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def read(self) -> list[Any]:
        """Wait for the copy; return the values of each tensor as `Tensor.tolist` does."""
        if self._copied is not None:
            self._copied.synchronize()
        parts = torch.split(self._values, [shape.numel() for shape in self._shapes])
        return [part.view(shape).tolist() for part, shape in zip(parts, self._shapes, strict=True)]


class StepMeter:
    """Add up the metrics of the steps since the last report; on a GPU, measure the peak memory too."""

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
        self._started = self._now()

    def _now(self) -> float | torch.cuda.Event:
        if self._device.type == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def add(self, metrics: Mapping[str, Tensor], **counts: float) -> None:
        """Add a step's scalar metrics (the same names in every step), and counts such as samples over all ranks."""
        values = torch.stack([value.float() for value in metrics.values()])
        sums = torch.stack([values.nan_to_num(0.0, 0.0, 0.0), values.isfinite().float()])
        self._sums = self._sums + sums if self.steps else sums
        self._names = tuple(metrics)
        self._counts.update(counts)
        self.steps += 1

    def take(self) -> Interval:
        """Return the steps since the last call. All ranks call it together."""
        peak = reduced = None
        if self._device.type == "cuda":
            peak = torch.tensor(torch.cuda.max_memory_allocated(self._device))
            reduced = dist.all_reduce(peak, dist.ReduceOp.MAX, async_op=True)
        started = self._started
        interval = (self._names, self._sums, self._counts, self.wait_s, started)
        self._start()
        return Interval(*interval, self._started, peak, reduced)


@dataclass(frozen=True, slots=True)
class Interval:
    """Sums over the steps between two reports."""

    names: tuple[str, ...]
    sums: Tensor
    """[2, metrics] on the device: row 0 has the sum of each metric's finite values, row 1 their number."""
    counts: Counter[str]
    wait_s: float
    started: float | torch.cuda.Event
    ended: float | torch.cuda.Event
    peak_bytes: Tensor | None
    reduced: dist.Work | None
    """Collective that puts the maximum of all ranks into `peak_bytes`; None on a CPU."""

    def metrics(self, sums: Sequence[Sequence[float]]) -> dict[str, float]:
        """Return the metrics. `sums` is the copy of `self.sums` on the host, made after the device finished the steps.

        NAME: mean over the steps in which the metric was finite, NaN if it never was. NAME_per_s: rate of a count.
        data_wait: share of time that this rank waited for data. peak_memory_bytes (GPUs): maximum over the ranks.
        """
        elapsed = _seconds(self.started, self.ended)
        means = {
            name: total / steps if steps else math.nan
            for name, total, steps in zip(self.names, *sums, strict=True)
        }
        means |= {f"{name}_per_s": count / elapsed for name, count in self.counts.items()}
        means["data_wait"] = self.wait_s / elapsed
        if self.peak_bytes is not None and self.reduced is not None:
            self.reduced.wait()
            means["peak_memory_bytes"] = float(self.peak_bytes)
        return means


def _seconds(started: float | torch.cuda.Event, ended: float | torch.cuda.Event) -> float:
    if isinstance(started, torch.cuda.Event):
        assert isinstance(ended, torch.cuda.Event)
        return float(started.elapsed_time(ended)) / 1000
    assert isinstance(ended, float)
    return ended - started
