"""Build the Ray Data graph of one worker: rounds of shards -> readers -> encoders. Rows keep the order of the run.

Each worker builds its own graph, and the graph's executor runs on the worker's node. The executors share the cluster;
each is limited to its part of the CPUs and of the object store. One execution covers all remaining rounds, so encoders
start only once (12-13 s on two cores, because each loads spaCy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
import ray
import ray.data
from ray.data import ExecutionResources
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from sclip.config import Config
from sclip.data.batches import Columns
from sclip.data.order import Order, Round, Share
from sclip.data.reader import READ_SCHEMA, OpenedVisit, ReadSettings, read_round
from sclip.data.schedule import NamedShard

BLOCKS_AHEAD = 4
"""Number of blocks that a worker prefetches from each stream."""

_MOST_READ_TASKS = 4096
"""Maximum number of read tasks of a stream; each is a Ray object. In a longer run, a task reads several rounds."""
_TASK_ROWS = 100_000
"""Approximate rows per read task. Ray soon ends an idle reader, and a new one takes 25 s on two busy cores. A reader
is idle while the stream's CPU budget (its share of the node's free CPUs, rounded down) allows no further read task.
Longer tasks need fewer starts, but a lost task is read again from its start."""
_READ_TASKS = 2
"""Read tasks of a stream that run at the same time. The second opens its first shards in advance."""
_STORE_SHARE = 0.5
"""Maximum share of the object store for all streams of a run together."""
_FEWEST_ROWS, _MOST_BLOCK_BYTES = 16, 128 * 1024 * 1024
_TEXT_BYTES = 1000
"""Estimated bytes of a row without its image. A low estimate is safe: Ray splits a block only if it exceeds its target
size by half."""


@dataclass(frozen=True)
class StreamPlan:
    """Everything needed to build the streams of a run."""

    reading: ReadSettings
    order: Order
    sources: tuple[tuple[NamedShard, ...], ...]
    image_size: int
    actors: tuple[int, int]
    """Minimum and maximum number of encoder actors of all workers together."""
    expected: tuple[tuple[int, ...], ...] = ()
    """Number of samples that each shard of each source should hold. -1 means unknown; () means all unknown."""

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.reading.config

    @property
    def shards(self) -> list[str]:
        """Paths or URIs of all shards, source by source."""
        return [shard.url for source in self.sources for shard in source]

    def visit(self, entry: int) -> OpenedVisit:
        """Return what a reader needs to know about an entry."""
        source, pass_, shard = self.order.schedule.visit(entry)
        expected = self.expected[source][shard] if self.expected else -1
        return OpenedVisit(self.sources[source][shard], pass_, self.order.counts[source][shard], expected)


def build(
    plan: StreamPlan, order: Order, step: int, rank: int = 0, world_size: int = 1,
    on_wait: Callable[[str], None] = lambda _: None, encoder: type[Callable[[pa.Table], dict[str, Any]]] | None = None,
) -> list[ray.data.Dataset]:  # fmt: skip
    """Return the streams of rows that one worker reads, starting at a step.

    `order` is the plan's order, or this order extended by rows beyond the recorded counts. Readers call `on_wait` with
    a message while the storage fails. Benchmarks replace `encoder`, a class with the arguments config and image size.
    """
    block_samples = plan.config.data.block_samples or rows_of_block(
        order.batch_size // world_size, plan.image_size
    )
    config = replace(plan.config, data=replace(plan.config.data, block_samples=block_samples))
    plan = replace(plan, reading=replace(plan.reading, config=config))
    streams = streams_of_worker(config)
    fewest, most = (max(1, actors // (world_size * streams)) for actors in plan.actors)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Limit blocks by rows, not by Ray's 128 MB: with 64-pixel images, one such block would hold a whole epoch.
    context.target_max_block_size = block_samples * (3 * plan.image_size**2 + _TEXT_BYTES)
    context.execution_options.preserve_order = True
    resources = ray.cluster_resources()
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        cpu=config.data.read_cpus + most * config.data.actor_cpus,
        object_store_memory=_STORE_SHARE * resources.get("object_store_memory", 1e9) / world_size / streams,
    )
    datasets = []
    with ray.data.DataContext.current(context):
        for stream in range(streams):
            source = _RoundSource(plan, order, step, _Reads(rank, world_size, stream, streams), on_wait)
            rows = ray.data.read_datasource(
                source,
                # More CPUs could leave none for another worker's first encoder.
                num_cpus=config.data.read_cpus / _READ_TASKS,
                concurrency=_READ_TASKS,
                override_num_blocks=max(1, len(source.chunks)),
            )
            datasets.append(
                rows.map_batches(
                    encoder or _ImportedEncoder,
                    fn_constructor_args=(config, plan.image_size),
                    batch_size=block_samples,
                    batch_format="pyarrow",
                    num_cpus=config.data.actor_cpus,
                    compute=ray.data.ActorPoolStrategy(min_size=fewest, max_size=most),
                )
            )
    return datasets


def blocks(streams: Iterable[ray.data.Dataset]) -> list[Iterable[Columns]]:
    """Return the blocks of each stream. The executors are actors on the worker's node and end with the worker."""
    splits = [stream.streaming_split(1, equal=False)[0] for stream in streams]
    return [
        split.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=BLOCKS_AHEAD)
        for split in splits
    ]


def rows_of_block(share: int, image_size: int) -> int:
    """Return the rows per block: `share`, the worker's rows of a batch, but at most 128 MB and at least 16 rows."""
    # Ray handles few large blocks faster than many small ones.
    return max(_FEWEST_ROWS, min(share, _MOST_BLOCK_BYTES // (3 * image_size**2)))


def streams_of_worker(config: Config) -> int:
    """Return the number of streams per worker; 1 if `sclip.launch.plan` has not chosen a number."""
    return config.data.readers or 1


class _Reads(NamedTuple):
    """Numbers that select one stream's tracks in each round. A track is a series of shards."""

    rank: int
    world_size: int
    stream: int
    streams: int

    def shares(self, round_: Round) -> list[Share]:
        return round_.share(self.rank, self.world_size)[self.stream :: self.streams]


class _ImportedEncoder:
    """The encoder, imported only in the process that runs it: open_clip costs seconds of CPU time and 100s of MB."""

    def __init__(self, config: Config, image_size: int) -> None:
        from sclip.data.encode import Encoder

        self._encode = Encoder(config, image_size)

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        return self._encode(batch)


class _RoundSource(Datasource):  # type: ignore[misc]
    """The remaining rounds, one or several per read task. A task computes their rows and shards only when it runs."""

    def __init__(
        self, plan: StreamPlan, order: Order, step: int, reads: _Reads, on_wait: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._plan, self._order, self._step = plan, order, step
        self._reads, self._on_wait = reads, on_wait
        first = next((number for number, _ in order.rounds(step)), order.num_rounds)
        remaining = range(first, order.num_rounds)
        rows = order.recorded / max(1, order.num_rounds) / (reads.world_size * reads.streams)
        size = max(-(-len(remaining) // _MOST_READ_TASKS), round(_TASK_ROWS / max(1, rows)), 1)
        self.chunks: Sequence[range] = [remaining[low : low + size] for low in range(0, len(remaining), size)]

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        shared = ray.put((self._plan, self._order))
        return [
            ReadTask(
                _task(shared, chunk, self._step, self._reads, self._on_wait), metadata, schema=READ_SCHEMA
            )
            for chunk in self.chunks
        ]


def _task(
    shared: ray.ObjectRef, numbers: range, step: int, reads: _Reads, on_wait: Callable[[str], None]
) -> Callable[[], Iterator[pa.Table]]:
    def read() -> Iterator[pa.Table]:
        plan, order = ray.get(shared)
        place = step * order.batch_size
        for _, round_ in order.rounds(step, numbers.start, numbers.stop):
            shares = reads.shares(round_)
            entries = {part.entry for share in shares for part in round_.tracks[share.track]}
            visits = {entry: plan.visit(entry) for entry in entries}
            yield from read_round(plan.reading, round_, shares, visits, place, on_wait)

    return read
