"""One visit of one shard in, tables of rows for the encoders out.

The samples of a shard are mixed in a bounded buffer while they are still encoded. Their new order follows from
(seed, pass, name of the shard) alone, so a row is named by its place in it, its ordinal: what is in flight is then a
few ranges of each open shard, and a visit that is read again after a crash leaves out what was trained on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sclip import seeding
from sclip.config import Config
from sclip.data import annotation
from sclip.data import columns as col
from sclip.data.annotation import AnnotationError
from sclip.data.schedule import NamedShard, Visit
from sclip.data.shards import Rejected, Sample, ShardError, read_shard
from sclip.data.side_channel import VisitEnd
from sclip.data.tar import Tally
from sclip.storage.masking import mask

__all__ = ["READ_SCHEMA", "ReadSettings", "mixed", "read_visit", "row_of"]

READ_SCHEMA = pa.schema(
    [
        (col.ENTRY, pa.int64()), (col.ORDINAL, pa.int64()), (col.INDEX, pa.int64()), (col.PASS, pa.int64()),
        (col.ORIGIN, pa.int64()), (col.STATUS, pa.int8()), (col.SAMPLE_KEY, pa.string()), (col.IDENTITY, pa.string()),
        (col.REASON, pa.string()), (col.JPEG, pa.large_binary()), (col.CAPTION, pa.string()),
        (col.RECORD, pa.large_binary()), (col.READ_S, pa.float64()), (col.BLOCKED_S, pa.float64()),
        (col.READ_AT, pa.float64()),
    ]
)  # fmt: skip
_MOST_MIXED_BYTES = 64 * 1024 * 1024
"""Of encoded images in the buffer: large ones are mixed among fewer."""
_MOST_ROWS = 4096
"""Rows of a table where few of them are samples."""


@dataclass(frozen=True)
class ReadSettings:
    """How a run reads shards."""

    config: Config
    stamp: str = ""
    """Of the annotations that this installation would make, where the shards hold them; empty: do not use any."""


def mixed(items: Iterable[Sample | Rejected], buffer: int, rng: random.Random) -> Iterator[Sample | Rejected]:
    """Yield the items in an order that `rng` draws, holding at most `buffer` of them and 64 MB of images."""
    held: list[Sample | Rejected] = []
    held_bytes = 0
    for item in items:
        held.append(item)
        held_bytes += _bytes(item)
        while held and (len(held) > buffer or held_bytes > _MOST_MIXED_BYTES):
            yield (drawn := _draw(held, rng))
            held_bytes -= _bytes(drawn)
    while held:
        yield _draw(held, rng)


def _draw(held: list[Sample | Rejected], rng: random.Random) -> Sample | Rejected:
    at = rng.randrange(len(held))
    held[at], held[-1] = held[-1], held[at]
    return held.pop()


def _bytes(item: Sample | Rejected) -> int:
    return len(item.image) if isinstance(item, Sample) else 0


def read_visit(
    reading: ReadSettings, shard: NamedShard, entry: int, visit: Visit, done: Sequence[range] = (), origin: int = 0,
    expected: int = -1,
) -> Iterator[pa.Table]:  # fmt: skip
    """Yield the rows of one visit of a shard that are not done, as READ_SCHEMA, the END row with their number last.

    The END row also tells how many of the `expected` samples were not there, -1 where nobody knows, and the tally.
    Raises ShardError when the storage fails, or when the shard shrank since its first rows were trained on.
    """
    data, seed = reading.config.data, reading.config.run.seed
    url = shard.url
    rng = seeding.generator("mix", seed, visit.pass_, shard.name)
    rows: list[dict[str, Any]] = []
    tally = Tally()
    samples = ordinal = rests = 0
    blocked_s, resumed_at = 0.0, time.perf_counter()

    def table() -> pa.Table:
        nonlocal blocked_s, resumed_at
        rows[0] |= {col.READ_S: time.perf_counter() - resumed_at, col.BLOCKED_S: blocked_s}
        return pa.Table.from_pylist(rows, schema=READ_SCHEMA)

    common = {col.ENTRY: entry, col.PASS: visit.pass_, col.ORIGIN: origin}
    for ordinal, item in enumerate(mixed(read_shard(url, data, tally), data.shuffle_buffer, rng), start=1):
        rests += isinstance(item, Rejected) and not item.key
        if any(ordinal - 1 in part for part in done):
            continue
        row = row_of(item, shard, reading, visit.pass_)
        rows.append(row | common | {col.ORDINAL: ordinal - 1, col.READ_AT: time.time()})
        samples += row[col.STATUS] == col.SAMPLE
        if samples >= data.block_samples or len(rows) >= _MOST_ROWS:
            ready, yielded_at = table(), time.perf_counter()
            yield ready
            resumed_at = time.perf_counter()
            blocked_s = resumed_at - yielded_at
            rows, samples = [], 0
    if done and done[-1].stop > ordinal:
        raise ShardError(
            f"{mask(url)}: {ordinal} samples, but {done[-1].stop} and more were trained on; it changed"
        )
    there = ordinal - rests
    missing = max(0, expected - there)
    more = max(0, there - expected) if expected >= 0 else 0
    recorded = expected if missing else 0
    end = VisitEnd(missing, more, recorded, dict(tally.unread), dict(tally.cleaned))
    rows.append(
        common
        | {col.ORDINAL: ordinal, col.INDEX: ordinal, col.STATUS: col.END, col.SAMPLE_KEY: url}
        | {col.REASON: end.to_json()}
    )
    yield table()


def row_of(item: Sample | Rejected, shard: NamedShard, reading: ReadSettings, pass_: int) -> dict[str, Any]:
    """Return what an encoder needs of one item of a shard: the caption drawn for this pass, or why there is none."""
    row: dict[str, Any] = {
        col.INDEX: item.index,
        col.SAMPLE_KEY: item.key,
        col.IDENTITY: shard.identity(item.key),
    }
    if isinstance(item, Rejected):
        return row | {col.STATUS: col.REJECTED, col.REASON: item.reason}
    least = reading.config.data.least
    choices = list(range(len(item.captions)))
    records: list[bytes] | None = None
    if reading.stamp or any(least):
        try:
            records = annotation.read_stamped(item, reading.stamp)
            choices = annotation.passing(item, records, least)
        except AnnotationError as error:
            if any(least):
                return row | {col.STATUS: col.REJECTED, col.REASON: str(error)}
            records = None  # the encoder parses
    if not choices:
        return row | {col.STATUS: col.FILTERED}
    index = seeding.generator("caption", reading.config.run.seed, pass_, row[col.IDENTITY]).choice(choices)
    return row | {
        col.STATUS: col.SAMPLE, col.JPEG: item.image, col.CAPTION: item.captions[index],
        col.RECORD: records[index] if records else None,
    }  # fmt: skip
