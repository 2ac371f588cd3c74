"""What the training loop gets from the program that launches it: the job, and a connection for this rank.

Ray Train's side of the connection is `sclip.launch.worker`; a test, torchrun or a notebook passes an object of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from sclip.config import Config
from sclip.data.batches import Columns
from sclip.data.order import Order
from sclip.data.schedule import NamedShard
from sclip.storage.paths import StoragePath

__all__ = ["Launcher", "Requested", "TrainJob", "report"]


@dataclass(frozen=True, repr=False)
class TrainJob:
    """One run to train; without a repr, because a launcher may show it and the config may hold credentials."""

    config: Config
    order: Order
    """Of the samples that are recorded."""
    shards: tuple[tuple[NamedShard, ...], ...]
    """Of each source, their URIs without credentials."""
    image_size: int
    folder: StoragePath

    def shard(self, entry: int) -> str:
        """Return the path or URI of the shard that an entry of the schedule reads."""
        visit = self.order.schedule.visit(entry)
        return self.shards[visit.source][visit.shard].url

    def location(self, entry: int) -> dict[str, Any]:
        """Return source, pass and shard of an entry of the schedule, as the quarantine names them."""
        visit = self.order.schedule.visit(entry)
        name, url = self.shards[visit.source][visit.shard]
        return {"source": visit.source, "pass": visit.pass_, "name": name, "shard": url}


class Requested(NamedTuple):
    """What the driver requests of a training that goes on."""

    checkpoint: bool = False
    """Write a checkpoint after the next step."""
    stop: bool = False
    """Stop after that checkpoint."""


class Launcher(Protocol):
    """One rank's connection to whatever launched it; with several ranks, torch's default process group is set up."""

    rank: int
    world_size: int
    device: torch.device

    def feeds(self, order: Order, step: int) -> Sequence[Iterable[Columns]]:
        """Return streams of this rank's rows of an order from a step on, which ascend by their places.

        They are blocks with the columns of `sclip.data.columns`; some are fetched ahead.
        """

    def report(self, report: dict[str, Any]) -> None:
        """Send a report to the driver without waiting: `note`, `start`, `metrics` or `checkpoint` as its "kind"."""

    def requested(self) -> Requested:
        """Return what is requested and not yet fulfilled, without waiting; called on every rank at every step.

        Rank 0's answer counts: the other ranks return an empty request.
        """

    def fulfil(self) -> None:
        """Report that the checkpoint of the request last returned is complete."""


def report(launcher: Launcher, kind: str, **values: Any) -> None:
    """Send a report to the driver from rank 0; on other ranks do nothing."""
    if launcher.rank == 0:
        launcher.report({"kind": kind} | values)
