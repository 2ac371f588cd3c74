"""Read sclip's stream as a worker does; record when its batches arrive and how much CPU time all processes take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.stream_shards import Shards
from sclip.benchmark.worker_stream import batches_of, feeds_of
from sclip.config import Config, DataConfig, ModelConfig
from sclip.data import columns as col
from sclip.data.order import Order
from sclip.data.reader import ReadSettings
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.stream import BLOCKS_AHEAD, StreamPlan, rows_of_block
from sclip.prepare.annotate import stamp
from sclip.scenegraph import Parser

__all__ = [
    "LOADER_AHEAD", "CpuClock", "StreamCase", "Times", "drained", "fewest_samples", "plan_of", "timed",
]  # fmt: skip

_BLOCKS_IN_HAND = 2  # of an encoder: one in work, and the next one from Ray
LOADER_AHEAD = 4  # batches that each worker of a DataLoader prefetches
_TIMES_IN_FLIGHT = 10
"""Minimum samples of a round, as a multiple of those in flight, which are made before the clock starts."""
_SHORTEST_S = 1.0  # from a round's first batch to its last, for a valid rate


@dataclass(frozen=True)
class StreamCase:
    """Shards that the stream reads, and the processes that read them."""

    shards: Shards
    processes: int
    """Number of encoders of sclip, or of workers of the peer's DataLoader."""
    cpus: float
    image_size: int = 224
    batch: int = 64
    model: str = "ViT-B-32"

    @property
    def config(self) -> Config:
        """The run's config, with CPU reservations that fit on any machine."""
        data = DataConfig(
            actors_min=self.processes, actors_max=self.processes,
            actor_cpus=min(1.0, 0.6 * self.cpus / self.processes),
            read_cpus=min(1.0, 0.15 * self.cpus),  # shared by two read tasks at a time
        )  # fmt: skip
        return Config(model=ModelConfig(name=self.model), data=data)

    @property
    def block(self) -> int:
        """Number of rows in a block of sclip's stream."""
        return rows_of_block(self.batch, self.image_size)

    def named(self, *, annotated: bool) -> tuple[NamedShard, ...]:
        """Return the plain or annotated shards, with the names that a run gives them."""
        urls = self.shards.annotated if annotated else self.shards.plain
        return tuple(NamedShard(f"0/{Path(url).name}", url) for url in urls)


def fewest_samples(batch: int, image_size: int, processes: int) -> int:
    """Return the minimum samples of a round: ten times what sclip or a DataLoader has in flight, whichever is more."""
    ours = rows_of_block(batch, image_size) * (BLOCKS_AHEAD + _BLOCKS_IN_HAND * processes)
    loader_rows = batch * (LOADER_AHEAD + 1) * processes
    return _TIMES_IN_FLIGHT * max(ours, loader_rows)


@dataclass
class Times:
    """Arrival times of batches, and the number of samples in each."""

    started: float = field(default_factory=time.perf_counter)
    at: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    images: set[int] = field(default_factory=set)
    passes: list[set[int]] = field(default_factory=list)
    """For each batch, the epochs (0, 1, ...) of its samples."""
    cpu_s: float = 0.0  # from the first batch to the last

    def add(self, images: Iterable[int]) -> None:
        """Record the arrival of a batch with these image digests."""
        self.at.append(time.perf_counter())
        before = len(self.images)
        self.images.update(images)
        self.samples.append(len(self.images) - before)

    @property
    def steady(self) -> int:
        """Number of samples in all batches but the first."""
        return sum(self.samples[1:])

    @property
    def rate(self) -> float:
        """Samples per second from the first batch to the last. Raises BenchmarkError if this interval is too short."""
        elapsed_s = self.at[-1] - self.at[0]
        if elapsed_s < _SHORTEST_S:
            fewest = round(sum(self.samples) * 1.5 * _SHORTEST_S / max(elapsed_s, 1e-3))
            raise BenchmarkError(
                f"--samples: a round takes {elapsed_s:.2f} s, too short to measure; {fewest} or more"
            )
        return self.steady / elapsed_s


class CpuClock:
    """CPU time of processes that come and go; a process that has ended keeps its last measured time.

    `roots` returns the ids of the processes. With `families`, all their descendants count too.
    """

    def __init__(self, roots: Callable[[], Iterable[int]], *, families: bool) -> None:
        self._roots, self._families = roots, families
        self._seen: dict[tuple[int, float], float] = {}

    def seconds(self) -> float:
        """Return the CPU seconds of all these processes together."""
        import psutil  # bundled with Ray; importing Ray adds it to the path

        for root in self._roots():
            try:
                process = psutil.Process(root)
                for one in [process, *(process.children(recursive=True) if self._families else ())]:
                    times = one.cpu_times()
                    self._seen[one.pid, one.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return sum(self._seen.values())


@cache
def _stamp() -> str:
    return stamp(Parser())


def plan_of(case: StreamCase, *, annotated: bool, epochs: int = 1) -> StreamPlan:
    """Return the plan of a run over the case's shards."""
    shards = case.named(annotated=annotated)
    config = case.config
    order = Order(
        Schedule(0, epochs, (len(shards),)), (case.shards.counts,), config.data.open_shards, case.batch
    )
    reading = ReadSettings(config, _stamp() if annotated else "")
    return StreamPlan(reading, order, (shards,), case.image_size, (case.processes, case.processes))


def drained(case: StreamCase, *, annotated: bool, clock: CpuClock) -> Times:
    """Read sclip's stream to its end; return the arrival times of its batches."""
    plan, times = plan_of(case, annotated=annotated), Times()
    batches = batches_of(feeds_of(plan), plan.order)
    return timed(((batch.columns, batch.rows) for batch in batches), times, clock)


def timed(batches: Iterable[tuple[dict[str, Any], int]], times: Times, clock: CpuClock) -> Times:
    """Consume batches (columns, rows); record their arrivals, and the CPU time since the first batch."""
    first_s = looked = 0.0
    for columns, rows in batches:
        times.add(columns[col.IMAGE_DIGEST][:rows].tolist())
        now = times.at[-1]
        if len(times.at) == 1:
            first_s, looked = clock.seconds(), now
        elif now - looked > 0.5:
            times.cpu_s, looked = clock.seconds() - first_s, now
    times.cpu_s = clock.seconds() - first_s
    return times
