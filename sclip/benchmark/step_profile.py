"""Which operations a training step spends its time in: a trace for a viewer, and the ones that count as text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.profiler import profile

from sclip.benchmark.step_cases import Case, Ours
from sclip.benchmark.step_rows import wait

__all__ = ["busy_us", "kernels", "profiled"]

STEPS, SHOWN = 3, 12


def profiled(case: Case, folder: Path) -> str:
    """Write the trace of some steps into a folder; return the operations, or kernels of a GPU, that take the time."""
    ours = Ours(case)
    ours()
    wait(case.device)
    folder.mkdir(parents=True, exist_ok=True)
    with profile() as found:
        started = time.perf_counter()
        for _ in range(STEPS):
            ours()
        wait(case.device)
        elapsed_us = 1e6 * (time.perf_counter() - started)
    trace = folder / "step.json"
    found.export_chrome_trace(str(trace))
    took: Counter[str] = Counter()
    gaps = ""
    if case.device.type == "cuda":
        on_device = kernels(found.events())
        for event in on_device:
            took[event.name] += event.time_range.elapsed_us()
        busy = busy_us((event.time_range.start, event.time_range.end) for event in on_device)
        gaps = f"\n{1 - busy / elapsed_us:7.1%}  of the time no kernel runs"
    else:
        for event in found.key_averages():
            took[event.key] += event.self_cpu_time_total
    head = f"profile of a step with negatives and KEE ({trace}): {elapsed_us / 1e3 / STEPS:.1f} ms\n"
    total = sum(took.values())
    return head + "\n".join(f"{us / total:7.1%}  {name}" for name, us in took.most_common(SHOWN)) + gaps


def kernels(events: Iterable[Any]) -> list[Any]:
    """Return what ran on the GPU itself: the operators that launched it carry its time a second time."""
    return [e for e in events if e.device_type.name == "CUDA" and not e.is_user_annotation]


def busy_us(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the time in which at least one interval (start, end) runs; those of several streams overlap."""
    busy, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy
