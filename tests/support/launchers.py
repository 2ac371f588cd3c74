"""A launcher of the training loop for tests: a function yields the blocks, a list collects the reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sclip.data.batches import Columns
from sclip.data.order import Order
from sclip.train.launcher import Requested


@dataclass
class ListLauncher:
    """A launcher of one rank on a CPU. It returns no requests unless a test sets some."""

    blocks: Callable[[Order, int], Iterable[Columns]]
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    reports: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Requested] = field(default_factory=list)
    """Requests to return, one per step; later steps get an empty request."""
    fulfilled: int = 0

    def feeds(self, order: Order, step: int) -> Sequence[Iterable[Columns]]:
        return [self.blocks(order, step)]

    def report(self, report: dict[str, Any]) -> None:
        self.reports.append(report)

    def requested(self) -> Requested:
        return self.requests.pop(0) if self.requests else Requested()

    def fulfil(self) -> None:
        self.fulfilled += 1
