"""How a run is watched: what happens at a loss that is not finite, and which steps are profiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sclip.config.checks import require


@dataclass(frozen=True)
class HealthConfig:
    """What is watched in a run, and when it stops."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Of a step whose loss or gradient is not finite no update is made; stop: the run ends; skip: it goes on."""
    max_skipped: int = 10
    """Steps that `skip` may leave out in the whole run; one more stops it."""
    profile_steps: tuple[int, int] = (0, 0)
    """First step (from 1) and number of steps of a profiler trace, a file a worker in the run's folder. 0 0: none."""

    def __post_init__(self) -> None:
        require(
            self.max_skipped >= 1, "health.max_skipped", self.max_skipped, "at least 1 (or on_nonfinite=stop)"
        )
        first, count = self.profile_steps
        require(
            (first >= 1 and count >= 1) or first == count == 0,
            "health.profile_steps", self.profile_steps, "a first step and a number of steps, 1 or more; 0 0: none",
        )  # fmt: skip
