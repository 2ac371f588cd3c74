"""How a run is watched: what happens at a loss that is not finite, and which steps are profiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sclip.config.checks import Limit, Section, at_least

_PROFILED = Limit(
    "a first step and a number of steps, 1 or more; 0 0: none",
    lambda steps: min(steps) >= 1 or steps == (0, 0),
)


@dataclass(frozen=True)
class HealthConfig(Section, key="health"):
    """What is watched in a run, and when it stops."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Of a step whose loss or gradient is not finite no update is made; stop: the run ends; skip: it goes on."""
    max_skipped: Annotated[int, at_least(1, "at least 1 (or on_nonfinite=stop)")] = 10
    """Steps that `skip` may leave out in the whole run; one more stops it."""
    profile_steps: Annotated[tuple[int, int], _PROFILED] = (0, 0)
    """First step (from 1) and number of steps of a profiler trace, a file a worker in the run's folder. 0 0: none."""
