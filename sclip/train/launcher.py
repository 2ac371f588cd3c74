"""Define what the launching program gives to the training loop: the job, and a connection for this rank.

`sclip.launch.worker` implements the connection for Ray Train. A test, torchrun or a notebook passes its own object.
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
    """One run to train. Without a repr, because a launcher may print the job and its config may hold credentials."""

    config: Config
    order: Order
    """Order of the samples that shards.json counts."""
    shards: tuple[tuple[NamedShard, ...], ...]
    """Shards of each source; their URIs have no credentials."""
    image_size: int
    folder: StoragePath

    def shard(self, entry: int) -> str:
        """Return the path or URI of the shard that a schedule entry reads."""
        visit = self.order.schedule.visit(entry)
        return self.shards[visit.source][visit.shard].url

    def location(self, entry: int) -> dict[str, Any]:
        """Return the source (index), pass (from 0), name and shard (URI) of a schedule entry, for quarantine.jsonl."""
        visit = self.order.schedule.visit(entry)
        name, url = self.shards[visit.source][visit.shard]
        return {"source": visit.source, "pass": visit.pass_, "name": name, "shard": url}


class Requested(NamedTuple):
    """What the driver requests of the training loop."""

    checkpoint: bool = False
    """Write a checkpoint after the next step."""
    stop: bool = False
    """Stop training after this checkpoint. If true, `checkpoint` is true too."""


class Launcher(Protocol):
    """One rank's connection to its launcher. With several ranks, torch's default process group is already set up."""

    rank: int
    world_size: int
    device: torch.device

    def feeds(self, order: Order, step: int) -> Sequence[Iterable[Columns]]:
        """Return this rank's streams. Together they hold the rank's rows of `order` from step `step` on.

        A stream yields blocks of rows (`sclip.data.columns`), sorted by their position in the order.
        """

    def report(self, report: dict[str, Any]) -> None:
        """Send a report to the driver without waiting. Its "kind" is `note`, `start`, `metrics` or `checkpoint`."""

    def requested(self) -> Requested:
        """Return the driver's request that `fulfil` has not reported as done; an empty one if there is none.

        Every rank calls it at every step; it does not wait. Only rank 0 gets requests.
        """

    def fulfil(self) -> None:
        """Tell the driver that the requested checkpoint is complete."""


def report(launcher: Launcher, kind: str, **values: Any) -> None:
    """Send a report to the driver from rank 0; do nothing on other ranks."""
    if launcher.rank == 0:
        launcher.report({"kind": kind} | values)
