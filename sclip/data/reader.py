"""Read the shards of a round and yield tables of its rows, in the order of the run, for the encoders.

A round is a group of shards whose rows are interleaved. The reader shuffles the samples of a shard in a bounded buffer,
with their images still encoded. The shuffled order depends only on seed, pass, buffer size, and the shard's name and
length. A row's ordinal is its index in this order. The visit (one reading of a shard) and the ordinal give the
row's place in the run's order (`sclip.data.order`) before the shard is opened, so a resumed reader does not open the
shards that are already done.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa

from sclip import seeding
from sclip.config import Config
from sclip.data import annotation
from sclip.data import columns as col
from sclip.data.annotation import AnnotationError
from sclip.data.columns import VisitEnd
from sclip.data.order import Round, Share, mixed
from sclip.data.schedule import NamedShard
from sclip.data.shards import Rejected, Sample, ShardError, read_shard
from sclip.data.tar import Tally

READ_SCHEMA = pa.schema(
    [
        (col.ENTRY, pa.int64()), (col.PLACE, pa.int64()), (col.INDEX, pa.int64()), (col.PASS, pa.int64()),
        (col.STATUS, pa.int8()), (col.SAMPLE_KEY, pa.string()), (col.IDENTITY, pa.string()),
        (col.REASON, pa.string()), (col.JPEG, pa.large_binary()), (col.CAPTION, pa.string()),
        (col.RECORD, pa.large_binary()), (col.FOREIGN, pa.large_binary()), (col.READ_S, pa.float64()),
        (col.BLOCKED_S, pa.float64()), (col.READ_AT, pa.float64()),
    ]
)  # fmt: skip
_MOST_ROWS = 4096
"""Maximum rows of a table if many rows are rejected. Else data.block_samples ends the table."""
_WAITS_S = (5.0, 15.0, 30.0)
"""Seconds to wait between tries while the storage fails. The last value repeats."""
_PATIENCE_S = 3600.0
"""Seconds of failure after which the reader gives up on the storage."""


@dataclass(frozen=True)
class ReadSettings:
    """Settings with which a run reads shards."""

    config: Config
    stamp: str = ""
    """Stamp of the annotations that the run uses; empty if it uses none."""


class OpenedVisit(NamedTuple):
    """What a reader needs to know for one visit (one reading of a shard)."""

    shard: NamedShard
    pass_: int
    recorded: int
    """Number of samples for which the order has places (`Order.counts`)."""
    expected: int
    """Number of samples that the shard should hold (`Counts.expected`); -1 means unknown."""


def read_round(
    reading: ReadSettings, round_: Round, shares: Iterable[Share], visits: Mapping[int, OpenedVisit], place: int = 0,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Iterator[pa.Table]:  # fmt: skip
    """Yield tables with READ_SCHEMA: a worker's rows of a round in the order of the run, from `place` on.

    An END row, which reports on the shard (`VisitEnd`), comes directly before the shard's last row.

    `shares` are the tracks that the worker reads, wholly or in part. `visits` holds facts about each visit by its entry
    in the schedule. `on_wait` is called with a message before each wait for a failing storage. Raises ShardError if the
    storage refuses access, or fails for an hour.
    """
    block_samples = reading.config.data.block_samples
    rows: list[dict[str, Any]] = []
    samples = 0
    blocked_s, resumed_at = 0.0, time.perf_counter()

    def table() -> pa.Table:
        rows[0] |= {col.READ_S: time.perf_counter() - resumed_at, col.BLOCKED_S: blocked_s}
        return pa.Table.from_pylist(rows, schema=READ_SCHEMA)

    tracks = [_track(reading, round_, share, visits, place, on_wait) for share in shares]
    for row in heapq.merge(*tracks, key=itemgetter(col.PLACE)):
        rows.append(row | {col.READ_AT: time.time()})
        samples += row[col.STATUS] == col.SAMPLE
        if samples >= block_samples or len(rows) >= _MOST_ROWS:
            ready, yielded_at = table(), time.perf_counter()
            yield ready
            resumed_at = time.perf_counter()
            blocked_s = resumed_at - yielded_at
            rows, samples = [], 0
    if rows:
        yield table()


def _track(
    reading: ReadSettings, round_: Round, share: Share, visits: Mapping[int, OpenedVisit], place: int,
    on_wait: Callable[[str], None],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield this worker's rows of one track (shards that are read one after another), from `place` on."""
    row_number = round_.row_at(share.track, place)
    for part in round_.track_parts(share.track, row_number):
        visit = visits[part.entry]
        visit_columns = {col.ENTRY: part.entry, col.PASS: visit.pass_}
        data = reading.config.data
        rng = seeding.generator("mix", reading.config.run.seed, visit.pass_, visit.shard.name)
        groups = _Items(visit.shard.url, reading, on_wait)
        items = mixed(groups, data.shuffle_buffer, rng)
        ordinal = sum(1 for _ in islice(items, part.start))
        shift = row_number - part.start
        row_number += part.stop - part.start
        is_end = part.stop == visit.recorded and (row_number - 1) % share.split in share.turns
        last: list[dict[str, Any]] = []
        while part.start <= ordinal < part.stop and (item := next(items, None)) is not None:
            if (ordinal + shift) % share.split in share.turns:
                row = row_of(item, visit.shard, reading, visit.pass_)
                row |= visit_columns | {col.PLACE: round_.place(share.track, ordinal + shift)}
                if is_end and ordinal == part.stop - 1:
                    last.append(row)
                else:
                    yield row
            ordinal += 1
        if is_end:
            ordinal += sum(1 for _ in items)
            end = groups.end(visit, ordinal)
            end_place = round_.place(share.track, row_number - 1)
            yield visit_columns | {
                col.PLACE: end_place, col.INDEX: ordinal, col.STATUS: col.END, col.SAMPLE_KEY: visit.shard.url,
                col.REASON: end.to_json(),
            }  # fmt: skip
        # The END row comes first: else a run resumed between the two rows would never see it.
        yield from last


class _Items:
    """The sample groups of one shard, in file order. Waits and retries while the storage fails."""

    def __init__(self, url: str, reading: ReadSettings, on_wait: Callable[[str], None]) -> None:
        self._url, self._reading, self._on_wait = url, reading, on_wait
        self._tally = Tally()
        self._rest = ""

    def __iter__(self) -> Iterator[Sample | Rejected]:
        read, waited_s = 0, 0.0
        while True:
            try:
                for item in islice(read_shard(self._url, self._reading.config.data, self._tally), read, None):
                    if isinstance(item, Rejected) and not item.key:
                        self._rest = item.reason
                        return
                    read, waited_s = read + 1, 0.0
                    yield item
                return
            except ShardError as error:
                if error.lasts or waited_s >= _PATIENCE_S:
                    raise
                self._on_wait(str(error))
                wait_s = next((s for s in _WAITS_S if s > waited_s), _WAITS_S[-1])
                time.sleep(wait_s)
                waited_s += wait_s

    def end(self, visit: OpenedVisit, num_samples: int) -> VisitEnd:
        """Return the report on a shard that was read to its end and has `num_samples` samples, usable or not."""
        missing = max(0, visit.expected - num_samples)
        recorded = visit.expected if missing else 0
        more = max(0, num_samples - visit.recorded)
        tally = self._tally
        counters = (dict(counts) for counts in (tally.unread, tally.cleaned, tally.foreign))
        return VisitEnd(missing, more, recorded, self._rest, *counters)


def row_of(item: Sample | Rejected, shard: NamedShard, reading: ReadSettings, pass_: int) -> dict[str, Any]:
    """Return the row for an encoder, with the caption drawn for this pass, or with the reason for rejection."""
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
            records = None  # then the encoder parses the caption
    if not choices:
        return row | {col.STATUS: col.FILTERED}
    rng = seeding.generator("caption", reading.config.run.seed, pass_, row[col.IDENTITY])
    index = rng.choice(_draw_field(item, choices, reading.config.data.caption_weights, rng))
    return row | {
        col.STATUS: col.SAMPLE, col.JPEG: item.image, col.CAPTION: item.captions[index],
        col.RECORD: records[index] if records else None,
        col.FOREIGN: item.foreign[index].to_bytes() if item.foreign else None,
    }  # fmt: skip


def _draw_field(
    sample: Sample, choices: list[int], weights: Sequence[float], rng: random.Random
) -> list[int]:
    """Draw a caption field by weight; return the caption indices in `choices` that belong to this field."""
    if not weights:
        return choices
    fields = sorted({sample.fields[index] for index in choices})
    field_weights = [weights[field] for field in fields]
    drawn = rng.choices(fields, field_weights)[0] if any(field_weights) else fields[0]
    return [index for index in choices if sample.fields[index] == drawn]
