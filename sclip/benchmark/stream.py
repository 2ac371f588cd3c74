"""Compare the data stream with its peers: speed, time to the first batch, gap between epochs, mixing of samples.

`sclip benchmark stream` starts its own Ray cluster on this machine, bound to loopback. It also measures how long a
consumer waits for data, and the memory and time to start a very long run.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ray

from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.stream_cases import StreamCase, fewest_samples
from sclip.benchmark.stream_kills import kills
from sclip.benchmark.stream_plan import Scale
from sclip.benchmark.stream_rows import epochs, parsing, planning, throughput, waiting
from sclip.benchmark.stream_shards import Shards, make
from sclip.benchmark.stream_shuffle import Mixture, shuffling
from sclip.benchmark.table import Line, Table
from sclip.launch import cluster

DATA_LOADER, RAY_DATA = "webdataset and DataLoader", "Ray Data, iterated an epoch at a time"
RESUMED = "webdataset and DataLoader, gone on by batches"
_SHARDS, _SAMPLES = 16, 4096
_LONG = "100,000 shards, 1,000,000,000 samples"


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    cores = len(os.sched_getaffinity(0))
    arguments.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    arguments.add_argument(
        "--samples",
        type=int,
        default=0,
        help="samples in a round (default: 4096, or the fewest that are enough)",
    )
    arguments.add_argument("--batch", type=int, default=64, help="samples in a batch (default: 64)")
    arguments.add_argument("--image-size", type=int, default=224, help="pixels of a crop (default: 224)")
    arguments.add_argument("--processes", type=int, default=cores, help="encoders (default: the cores)")
    arguments.add_argument(
        "--photographs", type=Path, metavar="FOLDER", help=".jpg files to use (default: generated ones)"
    )
    arguments.add_argument(
        "--captions", type=Path, metavar="FILE", help="one a line, or COCO's .json (default: generated ones)"
    )
    arguments.add_argument(
        "--kills", type=int, default=0, metavar="N",
        help="kill trainings N times at random moments, a minute each (default: 0, the row is left out)",
    )  # fmt: skip


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure all rows. Raises BenchmarkError for errors that the user can fix."""
    samples = samples_of(options)
    os.environ["RAY_ADDRESS"] = "local"  # not an existing cluster, because its nodes may be busy
    with tempfile.TemporaryDirectory(prefix="stream-") as folder:
        try:
            capacity = cluster.connect()
            logging.getLogger("ray.data").setLevel(logging.ERROR)  # it logs a line for each stream that ends
            shards = make(
                Path(folder), samples, -(-samples // _SHARDS), options.photographs, options.captions,
                lambda: capacity.cpus,
            )  # fmt: skip
            processes = min(options.processes, int(capacity.cpus))
            case = StreamCase(shards, processes, capacity.cpus, options.image_size, options.batch)
            lines = _measured(case, options.rounds, on_round)
            ray.shutdown()  # the rows below start the clusters that they need
            if options.kills:
                result = kills(Path(folder), case.shards.annotated, case.shards.samples, options.kills)
                lines.append(
                    Line("rows of epochs that were killed at random moments", RESUMED, "0, 0", *result)
                )
        finally:
            ray.shutdown()
    lines += [_mixing(Mixture(512, 1024)), _mixing(Mixture(64, 10_240))]
    memory, seconds, position = planning(Scale())
    lines += [
        Line(f"memory of order and stream, {_LONG}", "", "300 MB, flat", *memory),
        Line("the same, time in the middle of it", "", "5 s, flat", *seconds),
        Line("the same, position in a checkpoint", "", "1 kB", *position),
    ]
    shown = {
        "samples": f"{shards.source}, to {case.image_size} pixels",
        "processes": f"{case.processes} that encode, batches of {case.batch}, {options.rounds} rounds",
    }
    return Table(lines, shown | machine(["ray", "webdataset", "torch", "pillow", "spacy"]))


def samples_of(options: argparse.Namespace) -> int:
    """Return the number of samples in a round. Raises BenchmarkError for options that allow no measurement."""
    if min(options.batch, options.rounds, options.processes) < 1 or options.image_size < 32:
        raise BenchmarkError("--batch, --rounds, --processes: 1 or more; --image-size: 32 or more")
    fewest = fewest_samples(options.batch, options.image_size, options.processes)
    if 0 < options.samples < fewest:
        raise BenchmarkError(
            f"--samples: {fewest:,} or more, as {options.processes} processes and their consumer may hold a tenth of "
            "that in finished batches, which would count as made in no time"
        )
    return int(options.samples) or max(_SAMPLES, fewest)


def _measured(case: StreamCase, rounds: int, on_round: Callable[[int], None]) -> list[Line]:
    annotated, figures = throughput(case, rounds, on_round)
    parsed = parsing(case, rounds, on_round)
    first, seam = epochs(replace(case, shards=_some(case.shards)), min(rounds, 3), on_round)
    waited = waiting(case, case.processes * max(figures["ours_per_core_s"]))
    return [
        Line("samples a second per core, annotated shards", DATA_LOADER, "0.9 x, 1.3 x", annotated, figures),
        Line("the same, parsing in the pipeline", "the stages alone, added up", "0.8 x, 0.95 x", *parsed),
        Line("time to the first batch", RAY_DATA, "12 s, 6 s", *first),
        Line("from one epoch to the next, above a batch", RAY_DATA, "0.5 s, no gap", *seam),
        Line("share of a step spent waiting for data", "80 % of the rate above", "2 %, 0.5 %", *waited),
    ]


def _mixing(mixture: Mixture) -> Line:
    label = (
        f"shards in a batch of {mixture.batch:,}, places between neighbours of a tar of {mixture.per_shard:,}"
    )
    peer = f"webdataset, shuffle({mixture.peer_buffer}) of {mixture.open_shards} streams"
    return Line(label, peer, "", *shuffling(mixture))


def _some(shards: Shards) -> Shards:
    count = _SHARDS // 4  # because `epochs` reads all its shards twice
    return Shards(shards.plain[:count], shards.annotated[:count], shards.counts[:count], shards.source)
