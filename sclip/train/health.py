"""The watch over a run: steps that are not finite, norms of the weights, traces of chosen steps.

What a step returns goes in as tensors of the device and stays there: it is read once, at a report or before a
checkpoint. Until then nothing is at risk, since a step whose loss or gradient is not finite makes no update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sclip.config import HealthConfig
from sclip.model.structure_clip import CLIP_PREFIX
from sclip.storage.paths import StoragePath, send, staged
from sclip.train.collectives import gather_json
from sclip.train.step import unwrapped

__all__ = ["Trace", "TrainingDiverged", "Watch", "parameter_norms"]

_READ = ("skipped", "loss", "grad_norm", "logit_scale", "learning_rate")
_MOST_SHARDS = 8
"""Shards that an error names."""


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is no longer finite, more often than the config allows."""


@dataclass(frozen=True, slots=True)
class _Step:
    number: int
    values: Tensor
    """[5], those of _READ, on the device."""
    entries: NDArray[np.int64]
    """Of the schedule, those of this rank's samples."""


class Watch:
    """Finds steps that were skipped, first of all which, without reading a step's values one by one.

    Args:
        config: whether the first such step ends the run, or how many may be left out.
        shard: name of the shard of an entry of the schedule, for the error.
    """

    def __init__(self, config: HealthConfig, shard: Callable[[int], str]) -> None:
        self._config, self._shard = config, shard
        self._steps: list[_Step] = []

    def add(self, number: int, metrics: Mapping[str, Tensor], entries: NDArray[np.int64]) -> None:
        """Note a step: its number, what `TrainStep` returned of it and the entries of this rank's samples."""
        values = torch.stack([metrics[name] for name in _READ])
        self._steps.append(_Step(number, values, np.unique(entries)))

    def look(self, skipped: int, last_good: Callable[[], str]) -> int:
        """Return how many steps were skipped since the last call; called by all ranks together.

        Raises TrainingDiverged, the same on every rank, where they are too many with the `skipped` ones before, and
        names the first that is; `last_good` gives the checkpoint to name, asked on every rank and only then.
        """
        steps, self._steps = self._steps, []
        # The values are global ones, so that every rank finds the same steps without asking the others.
        values = torch.stack([step.values for step in steps]).tolist() if steps else []
        bad = [at for at, (was_skipped, *_) in enumerate(values) if was_skipped]
        skips = self._config.on_nonfinite == "skip"
        left = self._config.max_skipped - skipped if skips else 0
        # Below 0 where a resumed run allows fewer than it has left out: the next one stops it, not the resume.
        if not bad or len(bad) <= left:
            return len(bad)
        at = bad[max(left, 0)]
        shards = self._shards_of(steps[at].entries)
        _, loss, norm, scale, rate = values[at]
        found = {"loss": loss, "grad_norm": norm}
        told = ", ".join(f"{name} is {value}" for name, value in found.items() if not math.isfinite(value))
        raise TrainingDiverged(
            f"step {steps[at].number}: {told} at logit scale {scale:.1f}, learning rate {rate:.2e}; its samples are "
            f"of {shards}; no update was made of it, the last good checkpoint is {last_good()}. "
            + (
                f"That is more than health.max_skipped={self._config.max_skipped} steps: look at these samples, raise "
                "this bound, "
                if skips
                else "Look at these samples, go on without such steps (health.on_nonfinite=skip), "
            )
            + "or start a run with a lower train.learning_rate or a longer train.warmup"
        )

    def _shards_of(self, entries: NDArray[np.int64]) -> str:
        urls = {"shards": sorted({self._shard(int(entry)) for entry in entries})}
        found = sorted({url for of_rank in gather_json(urls) for url in of_rank["shards"]})
        more = f" and {len(found) - _MOST_SHARDS} more" if len(found) > _MOST_SHARDS else ""
        return ", ".join(found[:_MOST_SHARDS]) + more


def parameter_norms(model: nn.Module) -> dict[str, Tensor]:
    """Return the Euclidean norms of the weights as norm_image, norm_text and, of a model that has one, norm_kee.

    Of a model as `sharding.apply` returned it; called by all ranks together. The logit scale and bias are in none.
    """
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in unwrapped(model).named_parameters():
        if name.startswith("kee."):
            parts.setdefault("norm_kee", []).append(parameter.detach())
        elif name.startswith(CLIP_PREFIX):
            image = name.startswith(f"{CLIP_PREFIX}visual.")
            parts.setdefault("norm_image" if image else "norm_text", []).append(parameter.detach())
    norms = {name: nn.utils.get_total_norm(tensors) for name, tensors in sorted(parts.items())}
    return {name: n.full_tensor() if isinstance(n, DTensor) else n for name, n in norms.items()}


class Trace:
    """torch's profiler around some steps; as a context it writes what it has also where the run ends in them.

    Args:
        steps: the first step and how many; (0, 0) for none.
        file: where the chrome trace goes, of this rank (chrome://tracing and Perfetto read it, gzipped too).
    """

    def __init__(self, steps: tuple[int, int], file: StoragePath) -> None:
        first, count = steps
        self._steps, self._file = range(first, first + count), file
        self._profile: torch.profiler.profile | None = None

    def before(self, step: int) -> None:
        """Start or end the trace where this step, which comes now, is the first or past the last."""
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
