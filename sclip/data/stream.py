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
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from sclip import seeding
from sclip.config import Config
from sclip.data import annotation
from sclip.data import columns as col
from sclip.data.annotation import AnnotationError
from sclip.data.position import Position
from sclip.data.schedule import Schedule
from sclip.data.shards import Rejected, Sample, ShardError, read_shard

_READ_SCHEMA = pa.schema(
    [
        (col.ENTRY, pa.int64()), (col.INDEX, pa.int64()), (col.STATUS, pa.int8()), (col.ORIGIN, pa.int64()),
        (col.COUNT, pa.int64()), (col.SAMPLE_KEY, pa.string()), (col.REASON, pa.string()),
        (col.JPEG, pa.large_binary()), (col.CAPTION, pa.string()), (col.RECORD, pa.large_binary()),
    ]
)  # fmt: skip
_MOST_READ_TASKS = 4096


@dataclass(frozen=True)
class StreamPlan:
    """All that a stream is built from; the same plan and position give the same rows."""

    config: Config
    shards: tuple[str, ...]
    image_size: int
    actors: tuple[int, int]
    """Fewest and most encoder actors."""
    stamp: str = ""
    """Of the annotations that this installation would make, where the shards hold them; empty: do not use any."""

    @property
    def schedule(self) -> Schedule:
        """The entries of the whole run."""
        return Schedule(self.config.run.seed, self.config.train.epochs, len(self.shards))


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
        _Encoder,
        fn_constructor_args=(config, plan.image_size, len(plan.shards)),
        batch_size=config.data.block_samples,
        batch_format="pyarrow",
        num_cpus=config.data.actor_cpus,
        compute=ray.data.ActorPoolStrategy(min_size=fewest, max_size=most),
    )


class _Encoder:
    """The encoder of `sclip.data.encode`, imported where it runs.

    A reader, and the actor that splits the stream, unpickle this module too; open_clip and spaCy would cost each
    of these processes 2.5 s of a core and 400 MB.
    """

    def __init__(self, config: Config, image_size: int, shards: int) -> None:
        from sclip.data.encode import Encoder

        self._encode = Encoder(config, image_size, shards)

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        return self._encode(batch)


class _ShardSource(Datasource):  # type: ignore[misc]
    """The entries left, a read task each (several each in a schedule of many thousands)."""

    def __init__(self, plan: StreamPlan, position: Position, origin: int) -> None:
        super().__init__()
        self._plan, self._origin = plan, origin
        entries = [(entry, position.done(entry)) for entry in position.remaining(len(plan.schedule))]
        size = -(-len(entries) // _MOST_READ_TASKS) or 1
        self.chunks = [entries[at : at + size] for at in range(0, len(entries), size)]

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._task(chunk), metadata, schema=_READ_SCHEMA) for chunk in self.chunks]

    def _task(self, chunk: Sequence[tuple[int, list[range]]]) -> Callable[[], Iterator[pa.Table]]:
        plan, origin = self._plan, self._origin
        return lambda: (table for entry, done in chunk for table in read_entry(plan, entry, done, origin))


def read_entry(plan: StreamPlan, entry: int, done: Sequence[range], origin: int) -> Iterator[pa.Table]:
    """Yield the rows of one visit of one shard that are not done, then the END row with its size.

    Raises ShardError when the storage fails, or when the shard shrank since its first rows were trained on.
    """
    config = plan.config
    schedule = plan.schedule
    url, epoch = plan.shards[schedule.shard(entry)], schedule.epoch(entry)
    rows: list[dict[str, Any]] = []
    total = 0
    for item in read_shard(url, config.data.caption_field):
        total += 1
        if not any(item.index in part for part in done):
            row = _row(item, plan, epoch) | {col.ENTRY: entry, col.ORIGIN: origin}
            if not (rows and _joined(rows[-1], row)):
                rows.append(row)
        if len(rows) >= config.data.block_samples:
            yield pa.Table.from_pylist(rows, schema=_READ_SCHEMA)
            rows = []
    if done and done[-1].stop > total:
        raise ShardError(f"{url}: {total} samples, but sample {done[-1].stop - 1} was trained on; it changed")
    rows.append(
        {col.ENTRY: entry, col.INDEX: total, col.STATUS: col.END, col.ORIGIN: origin, col.SAMPLE_KEY: url}
    )
    yield pa.Table.from_pylist(rows, schema=_READ_SCHEMA)


def _joined(row: dict[str, Any], following: dict[str, Any]) -> bool:
    """Count a filtered sample in the row of those before it: a row of its own would carry a whole black image."""
    both = row[col.STATUS] == following[col.STATUS] == col.FILTERED
    joined = both and bool(row[col.INDEX] + row[col.COUNT] == following[col.INDEX])
    if joined:
        row[col.COUNT] += following[col.COUNT]
    return joined


def _row(item: Sample | Rejected, plan: StreamPlan, epoch: int) -> dict[str, Any]:
    row: dict[str, Any] = {col.INDEX: item.index, col.SAMPLE_KEY: item.key}
    if isinstance(item, Rejected):
        return row | {col.STATUS: col.REJECTED, col.REASON: item.reason}
    least = plan.config.data.least
    choices = list(range(len(item.captions)))
    records: list[bytes] | None = None
    if plan.stamp or any(least):
        try:
            records = annotation.records(item, plan.stamp)
            choices = annotation.passing(item, records, least)
        except AnnotationError as error:
            if any(least):
                return row | {col.STATUS: col.REJECTED, col.REASON: str(error)}
            records = None  # the encoder parses
    if not choices:
        return row | {col.STATUS: col.FILTERED, col.COUNT: 1}
    index = seeding.generator("caption", plan.config.run.seed, epoch, item.key).choice(choices)
    return row | {
        col.STATUS: col.SAMPLE, col.JPEG: item.image, col.CAPTION: item.captions[index],
        col.RECORD: records[index] if records else None,
    }  # fmt: skip
