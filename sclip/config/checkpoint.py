"""When checkpoints are written, and which are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sclip.config.checks import Section, at_least


@dataclass(frozen=True)
class CheckpointConfig(Section, key="checkpoint"):
    """Checkpoints of a run: weights, optimizer and where the data stands."""

    every: Annotated[int, at_least(1)] = 500
    """Steps between two checkpoints; one is also written at the end."""
    keep_last: Annotated[int, at_least(1)] = 2
    """Newest checkpoints that are kept."""
    keep_best: Annotated[int, at_least(0, "0 (none) or more")] = 0
    """Checkpoints that are kept beside these for the best value of `best_metric`; 0: none."""
    best_metric: str = "loss"
    """Training metric, as reported last before the checkpoint, by which the best are told."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Which value of it is best."""
    asynchronous: bool = True
    """Write while training goes on; off: training waits until it is written."""
    disk_budget_gb: Annotated[float, at_least(0, "0 (no bound) or more")] = 0.0
    """Most that the checkpoints of a run may take, in 10^9 bytes; older ones give way. 0: no bound."""
