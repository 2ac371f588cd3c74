"""When checkpoints are written, and which are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sclip.config.checks import require


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints of a run: weights, optimizer and where the data stands."""

    every: int = 500
    """Steps between two checkpoints; one is also written at the end."""
    keep_last: int = 2
    """Newest checkpoints that are kept."""
    keep_best: int = 0
    """Checkpoints that are kept beside these for the best value of `best_metric`; 0: none."""
    best_metric: str = "loss"
    """Training metric, as reported last before the checkpoint, by which the best are told."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Which value of it is best."""
    asynchronous: bool = True
    """Write while training goes on; off: training waits until it is written."""
    disk_budget_gb: float = 0.0
    """Most that the checkpoints of a run may take, in 10^9 bytes; older ones give way. 0: no bound."""

    def __post_init__(self) -> None:
        for name in ("every", "keep_last"):
            require(getattr(self, name) >= 1, f"checkpoint.{name}", getattr(self, name), "at least 1")
        require(self.keep_best >= 0, "checkpoint.keep_best", self.keep_best, "0 (none) or more")
        require(
            self.disk_budget_gb >= 0, "checkpoint.disk_budget_gb", self.disk_budget_gb, "0 (no bound) or more"
        )
