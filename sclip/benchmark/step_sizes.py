"""Find the largest batch that fits into a GPU's memory, and measure the memory of a step."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Sequence
from pathlib import Path

import torch

from sclip.benchmark.machine import memory_bytes
from sclip.benchmark.step_cases import Case, Ours, Peer

__all__ = ["fit", "peak_bytes", "round_number"]

PROBES = (64, 128)
"""Batch sizes that are tried first. The difference of their peak memory gives the bytes per row."""
SHARE = 0.88
"""Share of the free memory planned for a batch; the rest is for fragmentation and errors of the estimate."""


def fit(sides: Sequence[Ours | Peer], case: Case) -> int:
    """Load all sides with the largest batch that fits, run one step of each, and return the rows of this batch.

    The batch has at most `case.rows` rows. Raises torch.OutOfMemoryError if 8 rows do not fit.
    """
    rows = case.rows
    if case.device == "cuda" and case.sized_by_memory and rows > PROBES[1]:
        small, large = (_probe(sides, probe) for probe in PROBES)
        bytes_per_row = max(1.0, (large - small) / (PROBES[1] - PROBES[0]))
        free, _ = torch.cuda.mem_get_info()
        available = SHARE * (free + torch.cuda.memory_reserved())
        rows = min(rows, round_number(int(PROBES[1] + (available - large) / bytes_per_row)))
        _empty_cache()
        if case.compile:  # without a reset, the compiler would expect more changes of the batch size
            torch.compiler.reset()
    while not _runs(sides, rows):
        rows = round_number(rows // 2)
        _empty_cache()
    return rows


def round_number(rows: int) -> int:
    """Round `rows` down to a multiple of 8 that is n * 2**k with n below 16: 1000 -> 960. Below 8, return 8."""
    step = max(8, 1 << (rows.bit_length() - 4)) if rows >= 8 else 8
    return max(8, rows // step * step)


def _runs(sides: Sequence[Ours | Peer], rows: int) -> bool:
    try:
        _step_of_each(sides, rows)
    except torch.OutOfMemoryError:
        if rows <= 8:
            raise
        return False
    return True


def _step_of_each(sides: Sequence[Ours | Peer], rows: int) -> None:
    for side in sides:
        side.load(rows)
    for side in sides:
        side()


def _probe(sides: Sequence[Ours | Peer], rows: int) -> int:
    """Return the peak memory in bytes of the second step: the first creates the optimizer's moments."""
    _step_of_each(sides, rows)
    torch.cuda.reset_peak_memory_stats()
    for side in sides:
        side()
    return torch.cuda.max_memory_allocated()


def _empty_cache() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def peak_bytes(step: Ours) -> int:
    """Run a step, not the first, and return its peak memory; on a CPU without model, gradients and moments."""
    if step.case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    step()
    gradients = sum(p.numel() * p.element_size() for p in step.model.parameters())
    if step.case.sharding == "ddp":
        gradients = 0  # DDP's buckets stay allocated between steps and are in `before`
    return memory_bytes("VmHWM") - before - gradients
