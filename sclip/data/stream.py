"""The Ray Data graph of a run: schedule -> readers -> encoders, one stream over all epochs.

One dataset is built over the entries that are left, and flows through once: iterating a dataset again for
every epoch would start its actor pool again (12-13 s here, spaCy loads anew). Epochs are a column of the
stream, and a resumed run is the same stream with what was trained on left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from sclip.config import Config
from sclip.data.position import Position
from sclip.data.reader import READ_SCHEMA, ReadSettings, read_visit
from sclip.data.schedule import NamedShard, Schedule

_MOST_READ_TASKS = 4096
"""Of one run: each is an object of its own for Ray. In a longer schedule a task reads several entries in turn."""


@dataclass(frozen=True)
class StreamPlan:
    """All that a stream is built from; the same plan and position give the same rows."""

    reading: ReadSettings
    schedule: Schedule
    sources: tuple[tuple[NamedShard, ...], ...]
    """Shards of each source."""
    image_size: int
    actors: tuple[int, int]
    """Fewest and most encoder actors."""
    expected: tuple[tuple[int, ...], ...] = ()
    """Samples to find in each shard of each source, -1 where nobody knows; empty where that is so of all."""

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.reading.config

    @property
    def shards(self) -> list[str]:
        """Paths or URIs of all shards, of one source after the other."""
        return [shard.url for of_source in self.sources for shard in of_source]

    def shard(self, entry: int) -> NamedShard:
        """Return the shard that an entry reads."""
        visit = self.schedule.visit(entry)
        return self.sources[visit.source][visit.shard]


def build(plan: StreamPlan, position: Position, origin: int) -> ray.data.Dataset:
    """Return the stream of the rows that `position` does not hold, to be split among the workers.

    Every row carries `origin`, the step of the checkpoint that the position comes from, by which a worker
    sees that it loaded the same one.
    """
    config = plan.config
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # By rows, not by Ray's 128 MB: at 64 pixels that would be a whole epoch in one block.
    context.target_max_block_size = config.data.block_samples * 3 * plan.image_size**2
    source = _ShardSource(plan, position, origin)
    rows = ray.data.read_datasource(
        source,
        num_cpus=config.data.read_cpus,
        concurrency=config.data.readers,
        override_num_blocks=max(1, len(source.chunks)),
    )
    fewest, most = plan.actors
    return rows.map_batches(
        _ImportedEncoder,
        fn_constructor_args=(config, plan.image_size),
        batch_size=config.data.block_samples,
        batch_format="pyarrow",
        num_cpus=config.data.actor_cpus,
        compute=ray.data.ActorPoolStrategy(min_size=fewest, max_size=most),
    )


def chunks(schedule: Schedule, position: Position) -> list[range]:
    """Return the entries that are left, as the ranges that a read task each goes through."""
    gaps = position.remaining(len(schedule))
    size = -(-sum(map(len, gaps)) // _MOST_READ_TASKS) or 1
    return [gap[at : at + size] for gap in gaps for at in range(0, len(gap), size)]


class _ImportedEncoder:
    """The encoder of `sclip.data.encode`, imported where it runs.

    A reader, and the actor that splits the stream, unpickle this module too; open_clip would cost each of these
    processes seconds of a core and hundreds of MB.
    """

    def __init__(self, config: Config, image_size: int) -> None:
        from sclip.data.encode import Encoder

        self._encode = Encoder(config, image_size)

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        return self._encode(batch)


class _ShardSource(Datasource):  # type: ignore[misc]
    """The entries left, a read task each (several each in a schedule of many thousands).

    A task knows its entries as a range, and finds their shards when it runs: neither the driver nor a task holds a
    list of the schedule.
    """

    def __init__(self, plan: StreamPlan, position: Position, origin: int) -> None:
        super().__init__()
        self._plan, self._position, self._origin = plan, position, origin
        self.chunks = chunks(plan.schedule, position)

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        plan = self._plan
        counts = plan.expected or tuple((-1,) * len(of_source) for of_source in plan.sources)
        shards = ray.put([_table(of, n) for of, n in zip(plan.sources, counts, strict=True)])
        return [
            ReadTask(
                _task(plan.reading, plan.schedule, shards, chunk, self._done(chunk), self._origin),
                metadata,
                schema=READ_SCHEMA,
            )
            for chunk in self.chunks
        ]

    def _done(self, chunk: range) -> dict[int, list[range]]:
        found = {entry: self._position.done(entry) for entry in chunk}
        return {entry: done for entry, done in found.items() if done}


def _table(shards: Sequence[NamedShard], expected: Sequence[int]) -> pa.Table:
    columns = {field: [getattr(shard, field) for shard in shards] for field in NamedShard._fields}
    return pa.table({**columns, "expected": pa.array(expected, pa.int64())})


def _task(
    reading: ReadSettings,
    schedule: Schedule,
    shards: ray.ObjectRef,
    chunk: range,
    done: dict[int, list[range]],
    origin: int,
) -> Callable[[], Iterator[pa.Table]]:
    def read() -> Iterator[pa.Table]:
        sources = ray.get(shards)
        for entry in chunk:
            visit = schedule.visit(entry)
            (row,) = sources[visit.source].slice(visit.shard, 1).to_pylist()
            expected = row.pop("expected")
            yield from read_visit(
                reading, NamedShard(**row), entry, visit, done.get(entry, ()), origin, expected
            )

    return read
