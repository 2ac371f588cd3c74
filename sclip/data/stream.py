"""The Ray Data graph of one worker: rounds of the order -> readers -> encoders, in the order of the run.

Each worker builds its own, whose executor runs beside it: several share a cluster, each bounded to its part of the CPUs
and of the object store. One execution goes over all rounds that are left, so that encoders start once (12-13 s here,
spaCy loads anew). A read task is a round, or several in a long run; Ray gives their blocks out in order.
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
"""Blocks that a worker fetches of each stream before it takes them."""

_MOST_READ_TASKS = 4096
"""Maximum read tasks of a stream, each an object for Ray. In a longer run a task reads several rounds in turn."""
_READ_TASKS = 2
"""Read tasks of a stream at a time: the second opens the shards of the next round meanwhile. They share data.read_cpus:
an additional task could hold the CPUs that another worker's first encoder waits for, and block all workers."""
_STORE_SHARE = 0.5
"""Share of the object store that all streams of a run fill together."""
_FEWEST_ROWS, _MOST_BLOCK_BYTES = 16, 128 * 1024 * 1024
_TEXT_BYTES = 1000
"""Bytes of a row without its image, rather too few: Ray splits a block only where it exceeds its limit by half."""


@dataclass(frozen=True)
class StreamPlan:
    """All that a run's streams are built from."""

    reading: ReadSettings
    order: Order
    sources: tuple[tuple[NamedShard, ...], ...]
    """Shards of each source."""
    image_size: int
    actors: tuple[int, int]
    """Fewest and most encoder actors, of all workers together."""
    expected: tuple[tuple[int, ...], ...] = ()
    """Samples that each shard of each source should hold, -1 where unknown; empty if all are unknown."""

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.reading.config

    @property
    def shards(self) -> list[str]:
        """Paths or URIs of all shards, of one source after the other."""
        return [shard.url for source in self.sources for shard in source]

    def visit(self, entry: int) -> OpenedVisit:
        """Return what a reader needs to know of an entry."""
        source, pass_, shard = self.order.schedule.visit(entry)
        expected = self.expected[source][shard] if self.expected else -1
        return OpenedVisit(self.sources[source][shard], pass_, self.order.counts[source][shard], expected)


def build(
    plan: StreamPlan, order: Order, step: int, rank: int = 0, world_size: int = 1,
    on_wait: Callable[[str], None] = lambda _: None, encoder: type[Callable[[pa.Table], dict[str, Any]]] | None = None,
) -> list[ray.data.Dataset]:  # fmt: skip
    """Return the streams of one worker's rows from a step on.

    Args:
        plan: of the run.
        order: the plan's, or that with the rows beyond the recorded ones.
        step: rows of the steps before it are left out.
        rank: the worker's.
        world_size: number of workers.
        on_wait: takes a line while a reader waits for the storage; sent to the readers.
        encoder: class made with config and image size in each encoder actor; a benchmark's stand-in for the real one.
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
    # By rows, not by Ray's 128 MB: at 64 pixels that would be a whole epoch in one block.
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
    """Return the blocks of a worker's streams; their executors are actors on its node, which Ray ends with it."""
    splits = [stream.streaming_split(1, equal=False)[0] for stream in streams]
    return [
        split.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=BLOCKS_AHEAD)
        for split in splits
    ]


def rows_of_block(share: int, image_size: int) -> int:
    """Return the rows of a block: a worker's share of a batch, as Ray's cost is one of blocks, and 128 MB at most."""
    return max(_FEWEST_ROWS, min(share, _MOST_BLOCK_BYTES // (3 * image_size**2)))


def streams_of_worker(config: Config) -> int:
    """Return the number of streams of each worker; 1 where `sclip.launch.plan` has not settled it."""
    return config.data.readers or 1


class _Reads(NamedTuple):
    """Which of a round's tracks one stream reads."""

    rank: int
    world_size: int
    stream: int
    streams: int

    def shares(self, round_: Round) -> list[Share]:
        """Return what it reads of a round."""
        return round_.share(self.rank, self.world_size)[self.stream :: self.streams]


class _ImportedEncoder:
    """The encoder of `sclip.data.encode`, imported where it runs.

    A reader, and the actor that runs the executor, unpickle this module too; open_clip would cost each of these
    processes seconds of a core and hundreds of MB.
    """

    def __init__(self, config: Config, image_size: int) -> None:
        from sclip.data.encode import Encoder

        self._encode = Encoder(config, image_size)

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        return self._encode(batch)


class _RoundSource(Datasource):  # type: ignore[misc]
    """The rounds that are left, a read task each (several each in a run of many thousands).

    A task knows its rounds by their numbers, and finds their rows and shards when it runs.
    """

    def __init__(
        self, plan: StreamPlan, order: Order, step: int, reads: _Reads, on_wait: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._plan, self._order, self._step = plan, order, step
        self._reads, self._on_wait = reads, on_wait
        first = next((number for number, _ in order.rounds(step)), order.num_rounds)
        left = range(first, order.num_rounds)
        size = -(-len(left) // _MOST_READ_TASKS) or 1
        self.chunks: Sequence[range] = [left[at : at + size] for at in range(0, len(left), size)]

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
