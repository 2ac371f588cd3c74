"""What the training loop needs of the program that launched it: who this rank is, its rows, and the run's driver.

Ray Train's side is `sclip.launch.worker`; a test, torchrun or a notebook passes an object of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch

from sclip.data.batches import Columns

__all__ = ["Launcher", "Requested", "report"]


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

    def blocks(self, prefetched_rows: int) -> Iterable[Columns]:
        """Return this rank's share of the stream, the columns of `sclip.data.columns`, some rows fetched ahead."""

    def report(self, report: dict[str, Any]) -> None:
        """Send a report to the driver without waiting: `start`, `metrics` or `checkpoint` as its "kind"."""

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
