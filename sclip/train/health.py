"""Watch the health of a run: losses and gradients that are not finite, weight norms, traces of chosen steps.

A step whose loss or gradient is not finite is skipped: it makes no update. So the host may notice it late, when it
reads the values of many steps together for a report (`sclip.train.reports`) or before a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sclip.config import HealthConfig
from sclip.model.structure_clip import Part, part_of
from sclip.storage.paths import StoragePath, send, staged
from sclip.train.ranks import gather_json
from sclip.train.step import unwrapped

__all__ = ["HealthMonitor", "ProfilerTrace", "StepValues", "TrainingDiverged", "parameter_norms"]

_READ = ("skipped", "loss", "grad_norm", "logit_scale", "learning_rate")
_MAX_SHARDS_NAMED = 8


class TrainingDiverged(RuntimeError):
    """The loss or the gradient was not finite in more steps than the config allows."""


@dataclass(frozen=True, slots=True)
class StepValues:
    """Values of one step that its health check reads."""

    number: int
    values: Tensor
    """[5] on the device: skipped (1 or 0), loss, grad_norm, logit_scale, learning_rate."""
    entries: NDArray[np.int64]
    """Schedule entries (readings of shards, see `sclip.data.schedule`) that this rank's samples come from."""


class HealthMonitor:
    """Count the skipped steps, and stop the run if there are too many. `shard` returns the URI of an entry's shard."""

    def __init__(self, config: HealthConfig, shard: Callable[[int], str]) -> None:
        self._config, self._shard = config, shard
        self._steps: list[StepValues] = []

    def add(self, number: int, metrics: Mapping[str, Tensor], entries: NDArray[np.int64]) -> None:
        """Store a step's number, the metrics from `TrainStep` and the schedule entries of this rank's samples."""
        values = torch.stack([metrics[name] for name in _READ])
        self._steps.append(StepValues(number, values, np.unique(entries)))

    def take(self) -> tuple[list[StepValues], Tensor]:
        """Return the steps since the last call, and a copy of their `values` as one tensor [steps, 5] on the device."""
        steps, self._steps = self._steps, []
        return steps, torch.stack([s.values for s in steps]) if steps else torch.zeros(0, len(_READ))

    def count_skipped(
        self, steps: Sequence[StepValues], values: Sequence[Sequence[float]], skipped: int,
        last_good: Callable[[], str],
    ) -> int:  # fmt: skip
        """Return how many of `steps` were skipped. All ranks call it together.

        `steps` and `values` come from `take`; `skipped` is the number of earlier skipped steps. Raises TrainingDiverged
        on every rank if the config allows fewer. The error names the checkpoint that `last_good` returns.
        """
        # The values are global, so every rank finds the same steps without communication.
        bad = [index for index, (was_skipped, *_) in enumerate(values) if was_skipped]
        skips = self._config.on_nonfinite == "skip"
        allowed = self._config.max_skipped - skipped if skips else 0
        # `allowed` < 0: the run was resumed with a limit below its skips so far. Only the next skip ends it.
        if not bad or len(bad) <= allowed:
            return len(bad)
        first = bad[max(allowed, 0)]
        shards = self._shards_of(steps[first].entries)
        _, loss, norm, scale, rate = values[first]
        causes = {"loss": loss, "grad_norm": norm}
        cause = ", ".join(f"{name} is {value}" for name, value in causes.items() if not math.isfinite(value))
        raise TrainingDiverged(
            f"step {steps[first].number}: {cause} at logit scale {scale:.1f}, learning rate {rate:.2e}; its samples "
            f"are from {shards}; the step changed no weight, and the last good checkpoint is {last_good()}. "
            + (
                f"More than health.max_skipped={self._config.max_skipped} steps were skipped: check these samples, "
                "raise this limit, "
                if skips
                else "Check these samples, skip such steps (health.on_nonfinite=skip), "
            )
            + "or start a run with a lower train.learning_rate or a longer train.warmup"
        )

    def _shards_of(self, entries: NDArray[np.int64]) -> str:
        urls = {"shards": sorted({self._shard(int(entry)) for entry in entries})}
        shards = sorted({url for rank_urls in gather_json(urls) for url in rank_urls["shards"]})
        more = f" and {len(shards) - _MAX_SHARDS_NAMED} more" if len(shards) > _MAX_SHARDS_NAMED else ""
        return ", ".join(shards[:_MAX_SHARDS_NAMED]) + more


def parameter_norms(model: nn.Module) -> dict[str, Tensor]:
    """Return {norm_PART: Euclidean norm of the part's weights} of a wrapped model. All ranks call it together."""
    parts: dict[Part, list[Tensor]] = {}
    for name, parameter in unwrapped(model).named_parameters():
        if (part := part_of(name)) is not None:
            parts.setdefault(part, []).append(parameter.detach())
    norms = {f"norm_{part}": nn.utils.get_total_norm(tensors) for part, tensors in sorted(parts.items())}
    return {name: n.full_tensor() if isinstance(n, DTensor) else n for name, n in norms.items()}


class ProfilerTrace:
    """Run torch's profiler over some steps, and write its trace even if the run ends during them.

    `steps` are the first step and the number of steps; (0, 0) means none. `file` gets this rank's Chrome trace.
    """

    def __init__(self, steps: tuple[int, int], file: StoragePath) -> None:
        first, count = steps
        self._steps, self._file = range(first, first + count), file
        self._profile: torch.profiler.profile | None = None

    def before(self, step: int) -> None:
        """Start the trace if `step` is its first step; end it if `step` follows its last. Call it before each step."""
        if step in self._steps and self._profile is None:
            self._profile = torch.profiler.profile()
            self._profile.start()
        elif step not in self._steps:
            self.close()

    def close(self) -> None:
        """End the trace and write it, if one was started."""
        if self._profile is not None:
            self._profile.stop()
            with staged(self._file.parent) as folder:
                self._profile.export_chrome_trace(str(folder / self._file.name))
                send(folder, self._file.parent)
            self._profile = None
