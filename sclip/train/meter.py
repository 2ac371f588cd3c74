"""Means, rates and peak memory over the steps since the last report.

Values stay on the device until they are reported; then they are read all at once.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor


class StepMeter:
    """Adds up the metrics of the steps since the last report.

    Args:
        device: where the model is; of a GPU the peak memory is measured too.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start()

    def _start(self) -> None:
        self.steps = 0
        self.wait_s = 0.0
        """Seconds that the loop waited for data, which the caller adds up."""
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(2, 0)
        self._counts: Counter[str] = Counter()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._started = time.perf_counter()

    def add(self, metrics: Mapping[str, Tensor], **counts: float) -> None:
        """Add what a step returned, scalars of the same names each time, and what all ranks did in it, by name."""
        values = torch.stack([value.float() for value in metrics.values()])
        sums = torch.stack([values.nan_to_num(0.0, 0.0, 0.0), values.isfinite().float()])
        self._sums = self._sums + sums if self.steps else sums
        self._names = tuple(metrics)
        self._counts.update(counts)
        self.steps += 1

    def take(self) -> dict[str, float]:
        """Return the values since the last call; called by all ranks together.

        Of each metric its mean over the steps in which it was finite (NaN if in none); of each count NAME_per_s;
        data_wait, the share of the time that this rank waited for data; on a GPU peak_memory_bytes, the most that
        tensors held on any rank.
        """
        sums, finite = self._sums.tolist()
        elapsed = time.perf_counter() - self._started  # after the read: the device has finished
        means = {
            name: total / steps if steps else math.nan
            for name, total, steps in zip(self._names, sums, finite, strict=True)
        }
        means |= {f"{name}_per_s": count / elapsed for name, count in self._counts.items()}
        means["data_wait"] = self.wait_s / elapsed
        if self._device.type == "cuda":
            peak = torch.tensor(torch.cuda.max_memory_allocated(self._device))
            dist.all_reduce(peak, dist.ReduceOp.MAX)
            means["peak_memory_bytes"] = float(peak)
        self._start()
        return means
