"""What moving a sample costs each process of a run, and which of them would limit how many GPUs.

`sclip benchmark scale`, on a Ray cluster of its own on this machine, bound to loopback. It measures the real stream
with encoders that only copy finished rows (`scale_stream`). The rows of clusters are modelled from that: a process can
use one core; a worker has some of its own, those of a node serve all its GPUs, and those of the cluster all GPUs.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import ray

from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.scale_stream import PER_WORKER, SHARED, copying_encoder, cpu_of_sample
from sclip.benchmark.stream_shards import Shards, make
from sclip.benchmark.table import Line, Table
from sclip.config import Config, DataConfig, TrainConfig
from sclip.data.order import Order
from sclip.data.reader import ReadSettings
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.stream import StreamPlan, rows_of_block, streams_of_worker
from sclip.launch import cluster
from sclip.prepare.annotate import stamp
from sclip.scenegraph import Parser

NAMES = {
    "worker": "a worker, which makes batches", "coordinator": "the executor of a stream",
    "reader": "the reader of a stream", "encoder": "encoders, for what is not encoding", "gcs": "the GCS",
    "statistics": "Ray Data's statistics actor", "driver": "the driver", "raylet": "a node's raylet",
    "agents": "a node's agents",
}  # fmt: skip
DEMANDS = {
    "ViT-B/32 by the plan's rule": 6000, "ViT-B/32 at half an H100's peak": 15_000, "ViT-L/14 by the plan's rule": 1100,
}  # fmt: skip
"""Images a second of one GPU."""
GPUS, GPUS_OF_NODE = (8, 64, 512), 8
_SHARDS, _TARS = 128, 4
"""Visits, one round of the order; and the files that they read, over and over."""
_FEWEST_STEPS = 16
_GPU_IMAGE = 224
"""Image by which the rows of a block are chosen."""


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare what this benchmark takes."""
    arguments.add_argument(
        "--samples", type=int, default=65_536, help="samples of each measurement (default: 65,536)"
    )
    arguments.add_argument(
        "--share", type=int, default=512, help="samples of a batch for each worker (default: 512)"
    )
    arguments.add_argument(
        "--image-size", type=int, default=_GPU_IMAGE,
        help="pixels of a row, where 224 need too much memory; a block keeps its rows (default: 224)",
    )  # fmt: skip
    arguments.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="(default: 1 2 4)"
    )


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure, and model clusters; raises BenchmarkError for what the user can put right."""
    if min(options.share, *options.workers) < 1 or options.image_size < 32:
        raise BenchmarkError("--share, --workers: 1 or more; --image-size: 32 or more")
    enough = max(_SHARDS, _FEWEST_STEPS * options.share * max(options.workers))
    if options.samples < enough:
        raise BenchmarkError(f"--samples: {enough:,} or more, {_FEWEST_STEPS} batches for each worker")
    os.environ["RAY_ADDRESS"] = "local"  # never somebody's cluster, whose nodes may be busy
    cpu_s: dict[int, Mapping[str, float]] = {}
    per_s: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        try:
            capacity = cluster.connect()
            logging.getLogger("ray.data").setLevel(logging.ERROR)  # a line for each stream that ends
            per_shard = options.samples // _SHARDS
            shards = make(Path(folder), _TARS * per_shard, per_shard, None, None, lambda: capacity.cpus)
            store = ray.cluster_resources().get("object_store_memory", 0.0)
            for number, workers in enumerate(options.workers):
                plan = _plan(shards, options, workers, capacity.cpus)
                encoder = copying_encoder(plan.config, plan.image_size)
                cpu_s[workers], per_s[workers] = cpu_of_sample(
                    plan, workers, 0.1 * capacity.cpus / workers, encoder
                )
                on_round(number)
        finally:
            ray.shutdown()
    streams = streams_of_worker(Config(train=TrainConfig(use_gpu=True)))
    block = rows_of_block(options.share, _GPU_IMAGE)
    lines = [_measured(kind, cpu_s) for kind in (*PER_WORKER, *SHARED)]
    lines += [_modelled(cpu_s, gpus, name, streams) for name in DEMANDS for gpus in GPUS]
    shown = {
        "samples": f"{options.samples:,} of annotated shards, {shards.source}",
        "blocks": f"{block} rows of {options.image_size} pixels, object store of {store / 1e9:.1f} GB",
        "samples a second": ", ".join(f"{rate:,.0f} of {workers}" for workers, rate in per_s.items()),
        "modelled": f"by the most of {', '.join(map(str, cpu_s))} workers, {streams} streams of a GPU's worker, "
        f"{GPUS_OF_NODE} GPUs of a node, as many encoders as it takes",
    }
    return Table(lines, shown | machine(["ray", "pyarrow", "numpy"]))


def _plan(shards: Shards, options: argparse.Namespace, workers: int, cpus: float) -> StreamPlan:
    data = DataConfig(
        actors_min=workers, actors_max=workers, actor_cpus=0.4 * cpus / workers, read_cpus=0.1 * cpus / workers,
        readers=1, block_samples=rows_of_block(options.share, _GPU_IMAGE),
    )  # fmt: skip
    visits = tuple(
        NamedShard(f"0/{n:06d}.tar", shards.annotated[n % len(shards.annotated)]) for n in range(_SHARDS)
    )
    counts = (shards.counts[0],) * _SHARDS
    order = Order(Schedule(0, 1, (_SHARDS,)), (counts,), data.open_shards, options.share * workers)
    reading = ReadSettings(Config(data=data), stamp(Parser()))
    return StreamPlan(reading, order, (visits,), options.image_size, (workers, workers))


def cores(cpu_s: Mapping[str, float], gpus: int, per_s: float, streams: int) -> dict[str, float]:
    """Return the cores that the busiest process of each kind would need; of encoders there are as many as it takes.

    Args:
        cpu_s: of a sample, by kind.
        gpus: of the cluster.
        per_s: images that each of them takes in a second.
        streams: of each worker.
    """
    of_gpu, of_node, of_cluster = per_s, per_s * min(gpus, GPUS_OF_NODE), per_s * gpus
    samples = {
        "worker": of_gpu, "coordinator": of_gpu / streams, "reader": of_gpu / streams, "raylet": of_node,
        "agents": of_node, "gcs": of_cluster, "statistics": of_cluster, "driver": of_cluster,
    }  # fmt: skip
    return {kind: cpu_s[kind] * of_kind for kind, of_kind in samples.items()}


def _measured(kind: str, cpu_s: Mapping[int, Mapping[str, float]]) -> Line:
    values = {f"workers_{workers}_s": [of[kind]] for workers, of in cpu_s.items()}
    found = ", ".join(f"{1e6 * of[kind]:.1f} with {workers}" for workers, of in cpu_s.items())
    return Line(f"microseconds of a core a sample, {NAMES[kind]}", "", "", f"{found} workers", values)


def _modelled(cpu_s: Mapping[int, Mapping[str, float]], gpus: int, demand: str, streams: int) -> Line:
    most = {kind: max(of[kind] for of in cpu_s.values()) for kind in NAMES}
    needed = cores(most, gpus, DEMANDS[demand], streams)
    busiest = max(needed, key=needed.__getitem__)
    share = 1 / max(1.0, needed[busiest])
    found = f"{share:.0%}: {NAMES[busiest]} would need {needed[busiest]:.2f} cores"
    return Line(
        f"modelled: {gpus} GPUs, {DEMANDS[demand]:,} images a second each, {demand}", "", "100 %", found,
        {"share": [share]} | {f"{kind}_cores": [of_kind] for kind, of_kind in needed.items()},
    )  # fmt: skip
