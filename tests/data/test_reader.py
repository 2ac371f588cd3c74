"""The reader: a round's rows in the order of the run, the same at every reading, from any place and by any worker."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.config import Config, DataConfig, RunConfig
from sclip.data import columns as col
from sclip.data import reader
from sclip.data.order import Part, Round
from sclip.data.reader import READ_SCHEMA, OpenedVisit, ReadSettings, mixed, read_round, row_of
from sclip.data.schedule import NamedShard
from sclip.data.shards import Sample, ShardError
from sclip.data.side_channel import VisitEnd
from sclip.data.stream import StreamPlan
from sclip.prepare.annotate import stamp
from sclip.scenegraph import Parser
from support.annotated_shards import LEAST, annotate_here, jpeg, named, plan, tables, write_plain
from support.storage_server import CONTENT, CUT, Storage, isolate, serving, url_of
from support.tars import pair, tar_bytes

SAMPLES = 40


def reading(seed: int = 0, stamp: str = "", **data: Any) -> ReadSettings:
    return ReadSettings(
        Config(run=RunConfig(seed=seed), data=DataConfig(**{"block_samples": 7} | data)), stamp
    )


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    (path,) = write_plain(tmp_path_factory.mktemp("plain"), SAMPLES, SAMPLES)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StreamPlan:
    """A run over four shards of 11, 11, 11 and 7 samples, of which a round opens two."""
    return plan(write_plain(tmp_path_factory.mktemp("run"), SAMPLES, 11), shuffle_buffer=5)


def tables_of(
    of: ReadSettings, shard: str | NamedShard, recorded: int = SAMPLES, pass_: int = 0, expected: int = -1,
    waits: list[str] | None = None,
) -> Iterator[pa.Table]:  # fmt: skip
    """Yield what a worker reads of a round of one visit, entry 5, whose first place is 100."""
    round_ = Round(100, ((Part(5, 0, recorded),),))
    visit = OpenedVisit(named(shard) if isinstance(shard, str) else shard, pass_, recorded, expected)
    on_wait = (list[str]() if waits is None else waits).append
    return read_round(of, round_, round_.share(0, 1), {5: visit}, 0, on_wait)


def untimed(tables: Iterable[pa.Table]) -> list[dict[str, Any]]:
    """Return the rows of tables without what says when they were read."""
    times = {col.READ_S, col.BLOCKED_S, col.READ_AT}
    return [
        {name: value for name, value in row.items() if name not in times}
        for table in tables for row in table.to_pylist()
    ]  # fmt: skip


def rows(*args: Any, **options: Any) -> list[dict[str, Any]]:
    """Return the rows of `tables_of`."""
    return untimed(tables_of(*args, **options))


def without_ends(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in found if row[col.STATUS] != col.END]


def ends_of(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in found if row[col.STATUS] == col.END]


def indices(found: Sequence[dict[str, Any]]) -> list[int]:
    return [row[col.INDEX] for row in without_ends(found)]


def told_of(found: Sequence[dict[str, Any]]) -> VisitEnd:
    """Return what the only END row tells."""
    (end,) = ends_of(found)
    return VisitEnd.from_json(end[col.REASON])


# The mixing


@given(st.integers(0, 60), st.integers(0, 20), st.integers(0, 9))
def test_mixing_is_a_permutation_that_follows_from_buffer_seed_and_number_of_items(
    count: int, buffer: int, seed: int
) -> None:
    found = list(mixed(range(count), buffer, random.Random(seed)))
    assert sorted(found) == list(range(count))
    others = mixed((f"item {at}" for at in range(count)), buffer, random.Random(seed))
    assert list(others) == [f"item {at}" for at in found]


def test_a_buffer_that_holds_all_of_them_mixes_all_of_them() -> None:
    orders = {tuple(mixed(range(30), 30, random.Random(seed))) for seed in range(5)}
    assert len(orders) == 5
    for order in orders:
        assert min(order.index(at) for at in range(20, 30)) < 15


@given(st.integers(0, 300), st.integers(0, 40))
def test_the_buffer_holds_no_more_than_its_size_while_the_next_item_is_waited_for(
    count: int, buffer: int
) -> None:
    came = 0

    def counted() -> Iterator[int]:
        nonlocal came
        for item in range(count):
            came += 1
            yield item

    for given_out, _ in enumerate(mixed(counted(), buffer, random.Random(0)), start=1):
        assert came - given_out <= buffer


# The order


def test_rows_ascend_by_place_and_each_visit_has_an_end_row_of_its_last_place(run: StreamPlan) -> None:
    found = untimed(tables(run))
    assert [row[col.PLACE] for row in without_ends(found)] == list(range(run.order.recorded))
    assert found == sorted(found, key=lambda row: row[col.PLACE])
    last = {row[col.ENTRY]: row[col.PLACE] for row in without_ends(found)}
    assert sorted((row[col.ENTRY], row[col.PLACE]) for row in ends_of(found)) == sorted(last.items())
    assert {row[col.INDEX] for row in ends_of(found)} == {7, 11}


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(0, 30), st.integers(1, 9))
def test_workers_read_from_any_step_on_the_tail_of_what_one_worker_reads(
    run: StreamPlan, world_size: int, step: int, block_samples: int
) -> None:
    config = run.config
    data = dataclasses.replace(config.data, block_samples=block_samples)
    of = dataclasses.replace(run, reading=ReadSettings(dataclasses.replace(config, data=data)))
    found = [untimed(tables(of, step, rank, world_size)) for rank in range(world_size)]
    for of_worker in found:
        assert of_worker == sorted(of_worker, key=lambda row: row[col.PLACE])
    together = sorted((row for of_worker in found for row in of_worker), key=lambda row: row[col.PLACE])
    first = step * of.order.batch_size
    assert together == [row for row in untimed(tables(run)) if row[col.PLACE] >= first]


def test_the_order_of_a_shard_changes_with_pass_name_and_seed_and_not_with_its_folder(
    shard: str, tmp_path: Path
) -> None:
    def order(of: NamedShard, seed: int = 0, pass_: int = 0) -> tuple[int, ...]:
        return tuple(indices(rows(reading(seed=seed), of, pass_=pass_)))

    own = named(shard)
    others = [
        own._replace(name=f"{number}/{path}") for number, path in ((1, own.name[2:]), (0, "another.tar"))
    ]
    assert len({order(own), *map(order, others), order(own, 1), order(own, 0, 1)}) == 5
    (moved,) = write_plain(tmp_path, SAMPLES, SAMPLES)
    assert order(own._replace(url=moved)) == order(own)
    assert indices(rows(reading(shuffle_buffer=0), shard)) == list(range(SAMPLES))


# The rows


def test_rows_say_what_they_are(shard: str) -> None:
    found = rows(reading(), shard, pass_=2)
    (end,) = ends_of(found)
    assert [row[col.PLACE] for row in without_ends(found)] == list(range(100, 100 + SAMPLES))
    assert (end[col.PLACE], end[col.INDEX], end[col.SAMPLE_KEY], end[col.REASON]) == (139, SAMPLES, shard, "")
    assert {(row[col.ENTRY], row[col.PASS]) for row in found} == {(5, 2)}
    for row in without_ends(found):
        assert (row[col.STATUS], row[col.SAMPLE_KEY]) == (col.SAMPLE, f"s{row[col.INDEX]:04d}")
        assert row[col.IDENTITY] == f"{named(shard).name}/{row[col.SAMPLE_KEY]}"
        assert row[col.JPEG] == jpeg(row[col.INDEX])


def test_tables_hold_as_many_samples_as_a_block_and_say_how_long_they_took(shard: str) -> None:
    found = list(tables_of(reading(), shard))
    assert [table.num_rows for table in found] == [7, 7, 7, 7, 7, 6]  # the END row is in the last one
    for table in found:
        assert table.schema == READ_SCHEMA
        first, *others = table.to_pylist()
        assert first[col.READ_S] >= 0
        assert first[col.BLOCKED_S] >= 0
        assert all(row[col.READ_S] is row[col.BLOCKED_S] is None for row in others)
        assert all(row[col.READ_AT] > 0 for row in (first, *others))


def test_a_table_of_rows_without_a_sample_is_bounded_too(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MOST_ROWS", 15)
    of = reading(caption_field="no such field")
    assert [table.num_rows for table in tables_of(of, shard)] == [15, 15, 11]


# Shards that are not as recorded


def test_a_shard_that_holds_fewer_rows_than_recorded_leaves_the_last_places_empty(shard: str) -> None:
    found = rows(reading(), shard, recorded=SAMPLES + 3, expected=SAMPLES + 3)
    assert [row[col.PLACE] for row in without_ends(found)] == list(range(100, 100 + SAMPLES))
    assert [(row[col.PLACE], row[col.INDEX]) for row in ends_of(found)] == [(100 + SAMPLES + 2, SAMPLES)]
    assert told_of(found) == VisitEnd(missing=3, recorded=SAMPLES + 3)
    assert told_of(rows(reading(), shard, recorded=SAMPLES + 3)) == VisitEnd()  # recorded by nobody


def test_rows_beyond_the_recorded_ones_are_told_and_come_in_a_round_of_their_own(run: StreamPlan) -> None:
    """The shards hold 11, 11, 11 and 7 rows; of the first and the last two less are recorded."""
    counts = tuple(count - 2 * (shard % 3 == 0) for shard, count in enumerate(run.order.counts[0]))
    order = dataclasses.replace(run.order, counts=(counts,))
    found = untimed(tables(dataclasses.replace(run, order=order)))
    assert [row[col.PLACE] for row in without_ends(found)] == list(range(order.recorded))
    ends = {row[col.ENTRY]: VisitEnd.from_json(row[col.REASON]) for row in ends_of(found)}
    beyond = {entry: end.more for entry, end in ends.items() if end.more}
    assert list(beyond.values()) == [2] * 6
    of = dataclasses.replace(run, order=dataclasses.replace(order, beyond=beyond))
    added = untimed(tables(of, order.recorded_steps))
    assert untimed(tables(of)) == found + added
    first = order.recorded_steps * order.batch_size
    assert [row[col.PLACE] for row in added] == list(range(first, first + 12))
    samples = [(row[col.ENTRY], row[col.INDEX]) for row in without_ends(found + added)]
    assert sorted(samples) == [(entry, at) for entry in range(12) for at in range(run.order.count(entry))]


def test_the_end_of_a_shard_tells_what_was_unread_cleaned_and_broken(tmp_path: Path) -> None:
    members = [*pair("a", "a <b>dog</b>"), ("b.heic", b"image"), *pair("c"), *pair("d")]
    (tmp_path / "x.tar").write_bytes(tar_bytes(members)[: 512 * 13])  # within the members of d
    found = rows(reading(), str(tmp_path / "x.tar"), recorded=4, expected=4)
    assert sorted((row[col.SAMPLE_KEY], row[col.STATUS]) for row in without_ends(found)) == [
        ("a", col.SAMPLE), ("b", col.REJECTED), ("c", col.SAMPLE),
    ]  # fmt: skip
    end = told_of(found)
    assert (end.missing, end.recorded, end.more) == (1, 4, 0)
    assert "broken tar, last key 'd'" in end.rest
    assert end.unread == {".heic": 1}
    assert sum(end.cleaned.values()) == 1


# Rows that are no samples


def test_a_row_that_cannot_be_read_has_its_reason_and_moves_no_other_one(tmp_path: Path, shard: str) -> None:
    broken = {3, 8}
    members = [
        (f"s{number:04d}.{suffix}", body)
        for number in range(SAMPLES)
        for suffix, body in (("jpg", jpeg(number)), ("txt", b"a dog"))
        if suffix == "jpg" or number not in broken
    ]
    (tmp_path / "x.tar").write_bytes(tar_bytes(members))
    found = rows(reading(), named(shard)._replace(url=str(tmp_path / "x.tar")))
    assert indices(found) == indices(rows(reading(), shard))
    rejected = {row[col.INDEX]: row for row in found if row[col.STATUS] == col.REJECTED}
    assert rejected.keys() == broken
    for index, row in rejected.items():
        assert row[col.SAMPLE_KEY] == f"s{index:04d}"
        assert "no caption" in row[col.REASON]
        assert row[col.JPEG] is row[col.CAPTION] is None


def test_an_annotation_moves_no_row_and_brings_the_record_of_the_caption_that_is_drawn(
    shard: str, parser: Parser, tmp_path: Path
) -> None:
    (path,), stamp_ = annotate_here([shard], tmp_path / "out", parser), stamp(parser)
    plain, *found = (
        without_ends(rows(of, url))
        for of, url in ((reading(), shard), (reading(stamp=stamp_), path), (reading(stamp=stamp_, **LEAST), path))
    )  # fmt: skip
    assert indices(plain) == indices(found[0]) == indices(found[1])
    assert [row[col.CAPTION] for row in plain] == [row[col.CAPTION] for row in found[0]]
    assert {row[col.STATUS] for row in found[1]} == {col.SAMPLE, col.FILTERED}
    assert not any(row[col.RECORD] for row in plain)
    for row in (*found[0], *found[1]):
        assert (row[col.CAPTION] is None) == (row[col.RECORD] is None) == (row[col.STATUS] == col.FILTERED)


# The storage


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A server of one shard of forty samples, for which no reader waits longer than it must."""
    isolate(monkeypatch)
    monkeypatch.setattr(reader, "_WAITS_S", (0.0,))
    with serving(Storage({"/bucket/train/000.tar": CONTENT})) as server:
        yield server


@pytest.mark.parametrize("fault", [500, CUT])
@pytest.mark.parametrize("tables_before", [0, 1])
def test_a_storage_that_fails_for_a_while_is_waited_for_and_gives_the_same_rows(
    storage: Storage, fault: int, tables_before: int
) -> None:
    shard, of = NamedShard("0/000.tar", url_of("http", storage)), reading(shuffle_buffer=2, block_samples=1)
    whole, waits = rows(of, shard), list[str]()
    found = tables_of(of, shard, waits=waits)
    before = list(islice(found, tables_before))
    storage.faults["/bucket/train/000.tar"] = [fault] * 12
    assert untimed([*before, *found]) == whole
    assert waits
    assert all("000.tar" in line for line in waits)
    assert not storage.faults["/bucket/train/000.tar"]


def test_a_storage_that_refuses_or_fails_for_too_long_stops_the_reader(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[str] = []
    with pytest.raises(ShardError, match=r"none\.tar"):
        rows(reading(), NamedShard("0/none.tar", url_of("http", storage, "none.tar")), waits=waits)
    assert waits == []
    monkeypatch.setattr(reader, "_PATIENCE_S", 0.0)
    storage.faults["/bucket/train/000.tar"] = [500] * 9
    with pytest.raises(ShardError, match=r"000\.tar"):
        rows(reading(), NamedShard("0/000.tar", url_of("http", storage)), waits=waits)
    assert waits == []


# The caption


def test_the_caption_follows_from_seed_pass_and_identity_alone() -> None:
    sample, shard = Sample(0, "a", b"image", tuple("abcdefgh")), NamedShard("0/0.tar", "/data/0.tar")

    def drawn(of: Sample, seed: int = 0, pass_: int = 0, shard: NamedShard = shard) -> str:
        return str(row_of(of, shard, reading(seed=seed), pass_)[col.CAPTION])

    moved = dataclasses.replace(sample, index=7, image=b"another")
    assert drawn(moved) == drawn(sample) == drawn(sample, shard=shard._replace(url="s3://bucket/x.tar"))
    assert len({drawn(sample, shard=shard._replace(name=f"0/{number}.tar")) for number in range(40)}) == 8
    assert len({drawn(sample, pass_=pass_) for pass_ in range(40)}) == 8
    assert len({drawn(sample, seed=seed) for seed in range(40)}) == 8
    assert len({drawn(dataclasses.replace(sample, key=f"{key}")) for key in range(40)}) == 8
