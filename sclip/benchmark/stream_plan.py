"""Measure the time and memory that one process needs to build the sample order and a data stream of a very long run.

A separate process, `python -m sclip.benchmark.stream_plan`, builds the real order, and then a stream that starts in the
middle of the run, without reading a shard. It also counts the bytes of the stream position in a checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

from sclip.benchmark.machine import memory_bytes
from sclip.config import Config
from sclip.data.order import Order
from sclip.data.reader import ReadSettings
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.stream import StreamPlan
from sclip.train.sample_accounts import RunCounters

__all__ = ["Scale", "planned"]


@dataclass(frozen=True)
class Scale:
    """Size of a run: shards, samples of a shard, batch and workers."""

    shards: int = 100_000
    per_shard: int = 10_000
    batch: int = 4096
    workers: int = 8


def planned(scale: Scale) -> dict[str, float]:
    """Return the seconds to build order and stream, the memory of both, and the bytes of the stream position."""
    from sclip.data import stream
    from sclip.launch import cluster

    cluster.connect()
    small = _plan(Scale(shards=scale.workers))
    stream.build(small, small.order, 0)  # Ray loads what any stream needs, so that this is not counted
    before = memory_bytes("VmRSS")
    started = time.perf_counter()
    plan = _plan(scale)
    step = plan.order.steps // 2
    next(plan.order.rounds(step))
    ordered = time.perf_counter()
    stream.build(plan, plan.order, step, 0, scale.workers)
    built = time.perf_counter()
    position = RunCounters(step=step, samples=step * scale.batch)
    return {
        "order_s": ordered - started, "stream_s": built - ordered, "bytes": memory_bytes("VmHWM") - before,
        "position_bytes": len(json.dumps(vars(position))),
    }  # fmt: skip


def _plan(scale: Scale) -> StreamPlan:
    config, folder = Config(), "s3://bucket/a-folder-of-photographs"
    shards = tuple(NamedShard(f"0/{n:08d}.tar", f"{folder}/{n:08d}.tar") for n in range(scale.shards))
    counts = (scale.per_shard,) * scale.shards
    order = Order(Schedule(0, 1, (len(shards),)), (counts,), config.data.open_shards, scale.batch)
    return StreamPlan(ReadSettings(config), order, (shards,), 224, (1, 1))


if __name__ == "__main__":
    print(json.dumps(planned(Scale(**json.loads(sys.argv[1])))))
