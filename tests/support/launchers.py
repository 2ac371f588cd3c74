"""A launcher of the training loop for tests: blocks from a function, reports into a list."""

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
    """One rank on a CPU, of which nothing is requested unless a test says so."""

    blocks: Callable[[Order, int], Iterable[Columns]]
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    reports: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Requested] = field(default_factory=list)
    """Returned one a step, before each the number of steps begun."""
    fulfilled: int = 0

    def feeds(self, order: Order, step: int) -> Sequence[Iterable[Columns]]:
        return [self.blocks(order, step)]

    def report(self, report: dict[str, Any]) -> None:
        self.reports.append(report)

    def requested(self) -> Requested:
        return self.requests.pop(0) if self.requests else Requested()

    def fulfil(self) -> None:
        self.fulfilled += 1
