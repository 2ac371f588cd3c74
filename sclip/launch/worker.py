"""Run the training loop in a worker of Ray Train, with the worker's context, streams and queues."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.train.torch import get_device
from ray.util.queue import Queue

from sclip.data import stream
from sclip.data.batches import Columns
from sclip.data.order import Order
from sclip.launch.control import RequestPoller, RunControl
from sclip.train.launcher import Requested, TrainJob
from sclip.train.loop import train


@dataclass(frozen=True, repr=False)
class WorkerArguments:
    """Arguments of every worker. Their values are not in the repr, which Ray Train would show on its dashboard."""

    job: TrainJob
    plan: stream.StreamPlan
    reports: Queue
    """Queue of reports for the driver: dictionaries with a "kind"."""
    control: RunControl


def train_worker(config: dict[str, Any]) -> None:
    """Train this worker's share of the run; Ray Train calls it on every worker with `{"arguments": ...}`."""
    arguments: WorkerArguments = config["arguments"]
    launcher = RayLauncher(arguments)
    try:
        train(arguments.job, launcher)
    finally:
        launcher.close()


class RayLauncher:
    """The `sclip.train.launcher.Launcher` of a Ray Train worker."""

    def __init__(self, arguments: WorkerArguments) -> None:
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = get_device()
        self._arguments = arguments
        self._poller = RequestPoller(arguments.control if self.rank == 0 else None)

    def feeds(self, order: Order, step: int) -> Sequence[Iterable[Columns]]:
        """Start this worker's streams at a step; return an iterable over the blocks of each stream."""
        streams = stream.build(
            self._arguments.plan, order, step, self.rank, self.world_size,
            functools.partial(_report_wait, self._arguments.reports),
        )  # fmt: skip
        return stream.blocks(streams)

    def report(self, report: dict[str, Any]) -> None:
        """Put a report on the driver's queue."""
        self._arguments.reports.put_nowait(report)

    def requested(self) -> Requested:
        """Return the newest request that the poller has seen; ranks other than 0 see none."""
        return self._poller.newest()

    def fulfil(self) -> None:
        """Mark the last request that `requested` returned as fulfilled."""
        self._poller.fulfil()

    def close(self) -> None:
        """End the poller's thread."""
        self._poller.close()


def _report_wait(reports: Queue, reason: str) -> None:
    reports.put_nowait({"kind": "waiting", "reason": reason})
