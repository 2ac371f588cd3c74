"""Measure what moving a sample costs each process of a run, and model which process limits a cluster of many GPUs.

`sclip benchmark scale` starts its own Ray cluster on this machine, bound to loopback. It measures the real stream with
encoders that do not encode, but return copies of rows made in advance (`scale_stream`). A cost is CPU time, fitted to
runs with different numbers of workers, at half the unlimited rate or less: more load makes a sample cost more.

The rows about clusters are modeled from these costs. A process can use one core, a stream has one reader, and a worker
has as many streams as its GPU needs. Each stream is assumed to cost as much as the only stream of a measured worker.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ray
from scipy.optimize import nnls

from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.scale_stream import PER_WORKER, SHARED, Load, copying_encoder, loads
from sclip.benchmark.stream_shards import Shards, make
from sclip.benchmark.table import Line, Table
from sclip.config import Config, DataConfig
from sclip.data.order import Order
from sclip.data.reader import ReadSettings
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.stream import StreamPlan, rows_of_block
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
"""Images per second that one GPU takes."""
GPUS, GPUS_OF_NODE = (8, 64, 512), 8
_SHARDS, _TARS = 128, 4
"""Number of shards in the measured epoch, and number of tar files; each tar file serves as several shards."""
_FEWEST_STEPS = 16
_GPU_IMAGE = 224
"""Image side in pixels from which the rows of a block are computed, whatever `--image-size` is."""


class Cost(NamedTuple):
    """Cores that a kind of process uses: workers * `worker` + samples per second * `sample` + `constant`."""

    worker: float
    """Cores per worker with one stream, even if no sample moves: Ray Data's executors poll for work."""
    sample: float
    constant: float = 0.0
    """Cores that do not depend on the number of workers, of shared processes only."""


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    arguments.add_argument(
        "--samples", type=int, default=65_536, help="samples of each measurement (default: 65,536)"
    )
    arguments.add_argument(
        "--share", type=int, default=512, help="samples of a batch for each worker (default: 512)"
    )
    arguments.add_argument(
        "--image-size", type=int, default=_GPU_IMAGE,
        help="side of an image in pixels; set less if memory is short, a block keeps its rows (default: 224)",
    )  # fmt: skip
    arguments.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="workers (default: 1 2 4)"
    )


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure the costs and model clusters. Raises BenchmarkError for errors that the user can fix."""
    if min(options.share, *options.workers) < 1 or options.image_size < 32:
        raise BenchmarkError("--share, --workers: 1 or more; --image-size: 32 or more")
    if len(set(options.workers)) < 2:
        raise BenchmarkError(
            "--workers: must be two different numbers, to separate the cost of a worker from that of a sample"
        )
    min_samples = max(_SHARDS, _FEWEST_STEPS * options.share * max(options.workers))
    if options.samples < min_samples:
        raise BenchmarkError(f"--samples: {min_samples:,} or more, {_FEWEST_STEPS} batches for each worker")
    os.environ["RAY_ADDRESS"] = "local"  # not an existing cluster, because its nodes may be busy
    measured, per_shard = [], options.samples // _SHARDS
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        try:
            capacity = cluster.connect()
            logging.getLogger("ray.data").setLevel(logging.ERROR)  # it logs a line for each stream that ends
            shards = make(Path(folder), _TARS * per_shard, per_shard, None, None, lambda: capacity.cpus)
            store = ray.cluster_resources().get("object_store_memory", 0.0)
            max_workers, full = max(options.workers), 0.0
            for number, (workers, pace) in enumerate(
                [(1, 0.0), *((n, 1 / 2) for n in options.workers), (max_workers, 1 / 4)]
            ):
                plan = _plan(shards, options, workers, capacity.cpus)
                encoder = copying_encoder(plan.config, plan.image_size)
                load = loads(plan, workers, 0.1 * capacity.cpus / workers, encoder, pace * full)
                if pace:
                    measured.append(load)
                full = full or load["worker"].per_s
                on_round(number)
        finally:
            ray.shutdown()
    block = rows_of_block(options.share, _GPU_IMAGE)
    loads_by_kind = {kind: [load[kind] for load in measured] for kind in (*PER_WORKER, *SHARED)}
    costs = {kind: fitted(kind_loads, kind in SHARED) for kind, kind_loads in loads_by_kind.items()}
    lines = [_measured(kind, loads_by_kind[kind], costs[kind]) for kind in loads_by_kind]
    lines += [_modelled(costs, gpus, name) for name in DEMANDS for gpus in GPUS]
    shown = {
        "samples": f"{_SHARDS * per_shard:,} of annotated shards: over and over {shards.source}",
        "blocks": f"{block} rows of {options.image_size} pixels, object store of {store / 1e9:.1f} GB",
        "modelled": f"{GPUS_OF_NODE} GPUs a node; as many readers and encoders as it takes",
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


def fitted(kind_loads: Sequence[Load], is_shared: bool = False) -> Cost:
    """Fit the cost of one kind of process to its measured loads, by non-negative least squares."""
    sizes = np.array([(load.workers, load.per_s, 1.0)[: 2 + is_shared] for load in kind_loads], np.float64)
    scale = sizes.max(axis=0)
    solution, _ = nnls(sizes / scale, np.array([load.cores for load in kind_loads]))
    return Cost(*(solution / scale).tolist())


def cores(costs: Mapping[str, Cost], gpus: int, per_s: float) -> dict[str, float]:
    """Return the cores that the busiest process of each kind needs if each GPU takes `per_s` images per second."""
    served = {"gcs": gpus, "statistics": gpus, "driver": gpus}
    served |= dict.fromkeys(("raylet", "agents"), min(gpus, GPUS_OF_NODE)) | {"worker": 1}
    gpu_streams = streams(costs, per_s)
    needed = {
        kind: costs[kind].constant + number * (gpu_streams * costs[kind].worker + costs[kind].sample * per_s)
        for kind, number in served.items()
    }
    for kind in ("coordinator", "reader"):
        needed[kind] = costs[kind].worker + costs[kind].sample * per_s / gpu_streams
    return needed


def streams(costs: Mapping[str, Cost], per_s: float) -> int:
    """Return the number of streams that a worker needs to get `per_s` samples per second from its readers."""
    reader = costs["reader"]
    return max(1, math.ceil(per_s * reader.sample / max(0.1, 1 - reader.worker)))


def _measured(kind: str, kind_loads: Sequence[Load], cost: Cost) -> Line:
    figures = {name: [float(getattr(load, name)) for load in kind_loads] for name in Load._fields}
    words = ", ".join(
        f"{1e6 * load.cores / load.per_s:.1f} with {load.workers} at {load.per_s:,.0f}" for load in kind_loads
    )
    constant = f", {cost.constant:.3f} in all" if cost.constant else ""
    fit = f"as {cost.worker:.3f} of a core for each worker and {1e6 * cost.sample:.1f} a sample{constant}"
    return Line(
        f"microseconds a sample, {NAMES[kind]}", "", "", f"{words} a second, {fit}",
        figures | {"core_of_worker": [cost.worker], "sample_s": [cost.sample], "constant": [cost.constant]},
    )  # fmt: skip


def _modelled(costs: Mapping[str, Cost], gpus: int, demand: str) -> Line:
    needed = cores(costs, gpus, DEMANDS[demand])
    busiest = max(needed, key=needed.__getitem__)
    share = 1 / max(1.0, needed[busiest])
    num_streams = streams(costs, DEMANDS[demand])
    words = f"{100 * share:.3g} %, {num_streams} streams a GPU: {NAMES[busiest]} would need {needed[busiest]:.2f} cores"
    return Line(
        f"modelled: {gpus} GPUs, {DEMANDS[demand]:,} images a second each, {demand}", "", "100 %", words,
        {"share": [share]} | {f"{kind}_cores": [kind_cores] for kind, kind_cores in needed.items()},
    )  # fmt: skip
