"""Profile a training step, as a trace and as text: which kernels take the time, and how long the GPU waits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.profiler import profile

from sclip.benchmark.isolated import Figures, Report
from sclip.benchmark.step_cases import Case, Ours, process_group
from sclip.benchmark.step_rows import prepare, wait
from sclip.benchmark.step_sizes import fit

__all__ = ["gaps", "kernels", "profiled", "profiled_words"]

STEPS, SHOWN, LONG_US = 3, 15, 20
TRACE = "step-trace.json.gz"


def profiled(case: Case, rounds: int, report: Report, folder: Path) -> str:
    """Write a trace of some steps; return the list of operations (on a GPU: kernels) that take the most time."""
    prepare(case)
    with process_group(case):
        ours = Ours(case)
        rows = fit([ours], case)
        seconds = _seconds(ours)
        with profile() as profiler:
            _seconds(ours)
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / TRACE))
    cost: Counter[str] = Counter()
    figures: dict[str, list[float]] = {"rows": [rows], "step_s": [seconds / STEPS]}
    tail = ""
    if case.device == "cuda":
        on_device = kernels(profiler.events())
        if not on_device:
            raise RuntimeError("the profiler saw no kernel of the GPU")
        for event in on_device:
            cost[event.name] += event.time_range.elapsed_us()
        waits = gaps((event.time_range.start, event.time_range.end) for event in on_device)
        span = max(e.time_range.end for e in on_device) - min(e.time_range.start for e in on_device)
        long = [wait_us for wait_us in waits if wait_us > LONG_US]
        figures |= {
            # Divide by the time without the profiler, which slows down the launches of kernels but not the kernels.
            "idle": [max(0.0, 1 - (span - sum(waits)) / (1e6 * seconds))],
            "idle_profiled": [sum(waits) / span],
            "longest_gap_us": [max(waits, default=0.0)],
            "kernels": [len(on_device) / STEPS],
            "long_gaps": [len(long) / STEPS],
        }
        tail = (
            f"\n{len(on_device) / STEPS:.0f} kernels a step; under the profiler {len(long) / STEPS:.0f} gaps of more "
            f"than {LONG_US} us, the longest {max(waits, default=0.0):.0f} us"
        )
    else:
        for event in profiler.key_averages():
            cost[event.key] += event.self_cpu_time_total
    report(figures)
    total = sum(cost.values())
    head = f"profile of a step of {1e3 * seconds / STEPS:.1f} ms, {case.model}, batch {rows} ({folder / TRACE}):\n"
    return head + "\n".join(f"{us / total:7.1%}  {name[:150]}" for name, us in cost.most_common(SHOWN)) + tail


def profiled_words(figures: Figures, _: Figures) -> str:
    """Return the time of a step and, on a GPU, the share of it in which no kernel runs."""
    step = f"{1e3 * figures['step_s'][0]:.1f} ms, batch {figures['rows'][0]:.0f}"
    return (
        f"no kernel runs {figures['idle'][0]:.1%} of {step}" if "idle" in figures else f"operations of {step}"
    )


def _seconds(ours: Ours) -> float:
    wait(ours.case)
    started = time.perf_counter()
    for _ in range(STEPS):
        ours()
    wait(ours.case)
    return time.perf_counter() - started


def kernels(events: Iterable[Any]) -> list[Any]:
    """Return the GPU's events except annotations, which span kernels that are counted already."""
    return [e for e in events if e.device_type.name == "CUDA" and not e.is_user_annotation]


def gaps(intervals: Iterable[tuple[float, float]]) -> list[float]:
    """Return the lengths of the gaps between intervals (start, end), which may overlap."""
    waits: list[float] = []
    until: float | None = None
    for start, end in sorted(intervals):
        if until is not None and start > until:
            waits.append(start - until)
        until = end if until is None else max(until, end)
    return waits
