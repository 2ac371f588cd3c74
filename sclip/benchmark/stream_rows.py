"""Measure the rows of the stream benchmark: samples per second, starts, epoch changes, waiting, planning.

A function returns its result as text, with the figures of every round. The two sides of a ratio run in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from sclip.benchmark.rounds import BenchmarkError, in_turns
from sclip.benchmark.stream_cases import CpuClock, StreamCase, Times, drained, plan_of
from sclip.benchmark.stream_peers import epochs_of_ray_data, loaded
from sclip.benchmark.stream_plan import Scale
from sclip.benchmark.stream_stages import alone
from sclip.benchmark.table import Found, spread
from sclip.benchmark.worker_stream import batches_of, feeds_of
from sclip.train.prefetch import Prefetcher

__all__ = ["epochs", "parsing", "planning", "throughput", "waiting"]

BUSY = 0.8
"""Rate of the consumer in `waiting`, as a share of the stream's measured rate."""
_WARM_UP = 0.25
"""Share of the first batches that `waiting` leaves out: the queues were full then."""


def family() -> CpuClock:
    """Return a clock for this process and all its descendants, including Ray's own processes."""
    return CpuClock(lambda: [os.getpid()], families=True)


def throughput(case: StreamCase, rounds: int, on_round: Callable[[int], None]) -> Found:
    """Measure samples per second of annotated shards, against webdataset and a DataLoader."""
    *_, results = in_turns(
        {"ours": lambda _: drained(case, annotated=True, clock=family()), "peer": lambda _: loaded(case)},
        rounds,
        on_round,
    )
    ours, peer = results["ours"], results["peer"]
    for one, other in zip(ours, peer, strict=True):
        if one.images != other.images:
            raise BenchmarkError(
                f"sclip read {len(one.images)} samples and the peer {len(other.images)}, but not the same ones"
            )
    per_core = [times.rate / case.processes for times in ours]
    ratios = [one.rate / other.rate for one, other in zip(ours, peer, strict=True)]
    cpu = [_cpu(other) / _cpu(one) for one, other in zip(ours, peer, strict=True)]
    return (
        f"{spread(ratios)} x of {median(per_core):,.0f} a second; by processor time {spread(cpu)} x",
        {
            "ours_per_core_s": per_core, "peer_per_core_s": [times.rate / case.processes for times in peer],
            "ours_cpu_s": [_cpu(times) for times in ours], "peer_cpu_s": [_cpu(times) for times in peer],
        },
    )  # fmt: skip


def parsing(case: StreamCase, rounds: int, on_round: Callable[[int], None]) -> Found:
    """Measure samples per second of plain shards, against one process that runs the stages alone (`alone`)."""
    sides: dict[str, Callable[[int], Any]] = {
        "ours": lambda _: drained(case, annotated=False, clock=family()),
        "stages": lambda _: alone(case),
    }
    *_, results = in_turns(sides, rounds, on_round)
    ours, stages = results["ours"], results["stages"]
    sums = [sum(seconds.values()) for seconds in stages]
    ratios = [times.rate / case.processes * alone_s for times, alone_s in zip(ours, sums, strict=True)]
    cpu = [alone_s / _cpu(times) for times, alone_s in zip(ours, sums, strict=True)]
    return (
        f"{spread(ratios)} x of {1 / median(sums):,.0f} a second; by processor time {spread(cpu)} x",
        {
            "ours_per_core_s": [times.rate / case.processes for times in ours],
            "ours_cpu_s": [_cpu(t) for t in ours],
        }
        | {f"{stage}_s": [seconds[stage] for seconds in stages] for stage in stages[0]},
    )


def epochs(case: StreamCase, rounds: int, on_round: Callable[[int], None]) -> tuple[Found, Found]:
    """Measure the times to the first batch and from epoch to epoch, against a Ray dataset iterated once per epoch."""
    *_, results = in_turns(
        {"ours": lambda _: _two_passes(case), "peer": lambda _: epochs_of_ray_data(case, 2)}, rounds, on_round
    )
    starts = {f"{name}_s": [times.at[0] - times.started for times in runs] for name, runs in results.items()}
    seams = {f"{name}_s": [seam(times) for times in runs] for name, runs in results.items()}
    return _with_peer(starts), _with_peer(seams)


def _two_passes(case: StreamCase) -> Times:
    plan, times = plan_of(case, annotated=False, epochs=2), Times()
    for batch in batches_of(feeds_of(plan), plan.order):
        times.add([])
        times.passes.append({plan.order.schedule.visit(entry).pass_ for entry in set(batch.entries.tolist())})
    return times


def seam(times: Times) -> float:
    """Return the longest interval between batches near the change of epochs, minus the median, in seconds."""
    intervals = [after - before for before, after in zip(times.at, times.at[1:], strict=False)]
    first = next(n for n, passes in enumerate(times.passes) if 1 in passes)
    last = max(n for n, passes in enumerate(times.passes) if 0 in passes)
    about = intervals[max(0, min(first, last) - 1) : max(first, last) + 1]
    return max(0.0, max(about) - median(intervals))


def waiting(case: StreamCase, rate: float) -> Found:
    """Measure the share of time that a consumer waits for data if it takes `BUSY * rate` samples per second."""
    step_s = case.batch / (BUSY * rate)
    waited: list[float] = []
    plan = plan_of(case, annotated=True)
    batches = batches_of(feeds_of(plan), plan.order)
    with Prefetcher(lambda: next(batches, None)) as prefetcher:  # as the worker loop does
        while True:
            started = time.perf_counter()
            if prefetcher.next() is None:
                break
            waited.append(time.perf_counter() - started)
            time.sleep(step_s)
    steady = waited[round(_WARM_UP * len(waited)) :]
    shares = [wait_s / (wait_s + step_s) for wait_s in steady]
    share = sum(steady) / (sum(steady) + step_s * len(steady))
    return f"{100 * share:.2f} % at {BUSY * rate:,.0f} samples a second", {
        "share": [share],
        "of_each_step": shares,
    }


def planning(scale: Scale) -> tuple[Found, Found, Found]:
    """Run `stream_plan` at this scale; return memory and seconds to build a stream, and the stream position's bytes."""
    command = [sys.executable, "-m", "sclip.benchmark.stream_plan", json.dumps(asdict(scale))]
    proc = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"RAY_ADDRESS": "local"})
    if proc.returncode:
        raise BenchmarkError(f"the plan of {scale}: {proc.stderr.strip()[-500:] or 'was killed'}")
    measured: Mapping[str, float] = json.loads(proc.stdout.splitlines()[-1])
    figures = {name: [value] for name, value in measured.items()}
    return (
        (f"{measured['bytes'] / 1e6:.0f} MB", {"bytes": figures["bytes"]}),
        (
            f"{measured['order_s'] + measured['stream_s']:.1f} s, {measured['order_s']:.1f} s of it the order",
            {name: figures[name] for name in ("order_s", "stream_s")},
        ),
        (f"{measured['position_bytes'] / 1e3:.1f} kB", {"position_bytes": figures["position_bytes"]}),
    )


def _cpu(times: Times) -> float:
    return times.cpu_s / times.steady


def _with_peer(seconds: Mapping[str, Sequence[float]]) -> Found:
    ours, peer = seconds["ours_s"], seconds["peer_s"]
    return f"{spread(ours)} s, the peer {spread(peer)} s", seconds
