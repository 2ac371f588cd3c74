"""The reader gives a round's rows in the order of the run, the same each time, from any step and for any workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.config import Config, DataConfig, RunConfig
from sclip.data import columns as col
from sclip.data import reader, stream
from sclip.data.columns import VisitEnd
from sclip.data.order import Part, Round
from sclip.data.reader import READ_SCHEMA, OpenedVisit, ReadSettings, read_round, row_of
from sclip.data.schedule import NamedShard
from sclip.data.shards import Sample, ShardError
from sclip.data.stream import StreamPlan
from support.annotated_shards import jpeg, named, plan, tables, write_plain
from support.storage_server import CONTENT, CUT, Storage, isolate, serving, url_of
from support.tars import pair, tar_bytes

SAMPLES = 40
Rows = list[dict[str, Any]]


def reading(seed: int = 0, **data: Any) -> ReadSettings:
    return ReadSettings(Config(run=RunConfig(seed=seed), data=DataConfig(**{"block_samples": 7} | data)))


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> NamedShard:
    (path,) = write_plain(tmp_path_factory.mktemp("plain"), SAMPLES, SAMPLES)
    return named(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StreamPlan:
    """A run over four shards of 11, 11, 11 and 7 samples. A round opens two shards."""
    return plan(write_plain(tmp_path_factory.mktemp("run"), SAMPLES, 11), shuffle_buffer=5)


def tables_of(
    read_settings: ReadSettings, shard: NamedShard, recorded: int = SAMPLES, pass_: int = 0, expected: int = -1,
    on_wait: Any = None,
) -> Iterator[pa.Table]:  # fmt: skip
    """Yield the tables that one worker reads of a round with one visit, entry 5, from place 100 on."""
    round_ = Round(100, ((Part(5, 0, recorded),),))
    visits = {5: OpenedVisit(shard, pass_, recorded, expected)}
    return read_round(read_settings, round_, round_.share(0, 1), visits, 0, on_wait)


def untimed(tables: Iterable[pa.Table]) -> Rows:
    """Return the rows of tables without their timing columns."""
    names = [name for name in READ_SCHEMA.names if name not in (col.READ_S, col.BLOCKED_S, col.READ_AT)]
    return [row for table in tables for row in table.select(names).to_pylist()]


def read(*args: Any, **options: Any) -> tuple[Rows, list[tuple[int, int, VisitEnd]]]:
    """Return the sample rows of `tables_of`, and (place, row count, visit end) of each END row."""
    return parted(untimed(tables_of(*args, **options)))


def parted(rows: Rows) -> tuple[Rows, list[tuple[int, int, VisitEnd]]]:
    """Split sample rows and END rows. Check that places ascend, an END row before the row of its place."""
    assert rows == sorted(rows, key=lambda row: (row[col.PLACE], row[col.STATUS] != col.END))
    ends = [row for row in rows if row[col.STATUS] == col.END]
    summaries = [(end[col.PLACE], end[col.INDEX], VisitEnd.from_json(end[col.REASON])) for end in ends]
    return [row for row in rows if row[col.STATUS] != col.END], summaries


def values(name: str, rows: Rows) -> list[Any]:
    return [row[name] for row in rows]


@settings(max_examples=10)
@given(st.integers(1, 5), st.integers(0, 30), st.integers(1, 9))
def test_any_workers_from_any_step_read_the_tail_of_what_one_worker_reads(
    run: StreamPlan, world_size: int, step: int, block_samples: int
) -> None:
    """Each visit has an END row at the place of its last row."""
    whole, ends = parted(untimed(tables(run)))
    assert values(col.PLACE, whole) == list(range(run.order.recorded))
    last = {row[col.ENTRY]: row[col.PLACE] for row in whole}
    assert sorted(place for place, _, _ in ends) == sorted(last.values())
    assert {rows for _, rows, _ in ends} == {7, 11}
    data = dataclasses.replace(run.config.data, block_samples=block_samples)
    changed = dataclasses.replace(run, reading=ReadSettings(dataclasses.replace(run.config, data=data)))
    results = [parted(untimed(tables(changed, step, rank, world_size))) for rank in range(world_size)]
    first = step * changed.order.batch_size
    together = sorted((row for rows, _ in results for row in rows), key=lambda row: row[col.PLACE])
    assert together == whole[first:]
    assert sorted(end for _, rank_ends in results for end in rank_ends) == sorted(
        end for end in ends if end[0] >= first
    )


@pytest.mark.parametrize(("task_rows", "tasks"), [(1, 3), (80, 2), (100_000, 1)])
def test_read_tasks_of_any_size_have_all_rows_in_order(
    run: StreamPlan, task_rows: int, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's object store is left out: the tasks run here."""
    for name in ("put", "get"):
        monkeypatch.setattr(stream.ray, name, lambda value: value)
    monkeypatch.setattr(stream, "_TASK_ROWS", task_rows)
    source = stream._RoundSource(run, run.order, 0, stream._Reads(0, 1, 0, 1), print)
    made = source.get_read_tasks(0)
    assert len(made) == tasks
    assert untimed(table for task in made for table in task.read_fn()) == untimed(tables(run))


def test_the_order_of_a_shard_changes_with_pass_name_and_seed_but_not_with_its_folder(
    shard: NamedShard, tmp_path: Path
) -> None:
    def order(named_shard: NamedShard, seed: int = 0, pass_: int = 0, **data: Any) -> tuple[int, ...]:
        return tuple(values(col.INDEX, read(reading(seed, **data), named_shard, pass_=pass_)[0]))

    renamed = shard._replace(name=f"1/{shard.name[2:]}"), shard._replace(name="0/another.tar")
    assert len({order(shard), *map(order, renamed), order(shard, 1), order(shard, 0, 1)}) == 5
    (moved,) = write_plain(tmp_path, SAMPLES, SAMPLES)
    assert order(shard._replace(url=moved)) == order(shard)
    assert order(shard, shuffle_buffer=0) == tuple(range(SAMPLES))


def test_tables_have_the_rows_of_a_block_and_rows_carry_their_identity_and_timing(
    shard: NamedShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = list(tables_of(reading(), shard, pass_=2))
    assert [table.num_rows for table in tables] == [7, 7, 7, 7, 7, 6]  # the last table holds the END row too
    for table in tables:
        assert table.schema == READ_SCHEMA
        first, *rest = table.to_pylist()
        assert min(first[col.READ_S], first[col.BLOCKED_S]) >= 0
        assert all(row[col.READ_S] is row[col.BLOCKED_S] is None for row in rest)
        assert all(row[col.READ_AT] > 0 for row in (first, *rest))
    *_, end, _ = untimed(tables)
    end_values = (end[col.PLACE], end[col.INDEX], end[col.SAMPLE_KEY], end[col.REASON])
    assert end_values == (139, SAMPLES, shard.url, "")
    rows, _ = parted(untimed(tables))
    assert values(col.PLACE, rows) == list(range(100, 100 + SAMPLES))
    for row in rows:
        key = f"s{row[col.INDEX]:04d}"
        names = (col.ENTRY, col.PASS, col.STATUS, col.SAMPLE_KEY)
        assert [row[name] for name in names] == [5, 2, col.SAMPLE, key]
        assert (row[col.IDENTITY], row[col.JPEG]) == (f"{shard.name}/{key}", jpeg(row[col.INDEX]))
    monkeypatch.setattr(reader, "_MOST_ROWS", 15)
    without = reading(caption_field="no such field")
    assert [table.num_rows for table in tables_of(without, shard)] == [15, 15, 11]


def test_a_shard_that_holds_fewer_rows_than_recorded_leaves_the_last_places_empty(shard: NamedShard) -> None:
    recorded = SAMPLES + 3
    rows, ends = read(reading(), shard, recorded, expected=recorded)
    assert values(col.PLACE, rows) == list(range(100, 100 + SAMPLES))
    assert ends == [(100 + recorded - 1, SAMPLES, VisitEnd(missing=3, recorded=recorded))]
    # without a recorded count, no row is missing
    assert read(reading(), shard, recorded)[1] == [(100 + recorded - 1, SAMPLES, VisitEnd())]


def test_rows_beyond_the_recorded_ones_are_reported_and_read_in_a_round_of_their_own(run: StreamPlan) -> None:
    """The shards hold 11, 11, 11 and 7 rows; the records of the first and the last shard are two too low."""
    counts = tuple(count - 2 * (shard % 3 == 0) for shard, count in enumerate(run.order.counts[0]))
    order = dataclasses.replace(run.order, counts=(counts,))
    all_rows = untimed(tables(dataclasses.replace(run, order=order)))
    rows, _ = parted(all_rows)
    assert values(col.PLACE, rows) == list(range(order.recorded))
    ends = {row[col.ENTRY]: VisitEnd.from_json(row[col.REASON]) for row in all_rows if row not in rows}
    beyond = {entry: end.more for entry, end in ends.items() if end.more}
    assert list(beyond.values()) == [2] * 6
    with_beyond = dataclasses.replace(run, order=dataclasses.replace(order, beyond=beyond))
    added = untimed(tables(with_beyond, order.recorded_steps))
    assert untimed(tables(with_beyond)) == all_rows + added
    first = order.recorded_steps * order.batch_size
    assert values(col.PLACE, added) == list(range(first, first + 12))
    samples = sorted((row[col.ENTRY], row[col.INDEX]) for row in rows + added)
    assert samples == [(entry, ordinal) for entry in range(12) for ordinal in range(run.order.count(entry))]


def test_the_end_of_a_shard_reports_what_was_unread_cleaned_and_broken(tmp_path: Path) -> None:
    """Unreadable samples are rejected rows among the others."""
    path = tmp_path / "x.tar"
    members = [*pair("a", "a <b>dog</b>"), ("b.heic", b"image"), *pair("c"), *pair("d")]
    path.write_bytes(tar_bytes(members)[: 512 * 13])  # cut within the members of d
    rows, ((_, _, end),) = read(reading(), NamedShard("0/x.tar", str(path)), recorded=4, expected=4)
    statuses = sorted((row[col.SAMPLE_KEY], row[col.STATUS]) for row in rows)
    assert statuses == [("a", col.SAMPLE), ("b", col.REJECTED), ("c", col.SAMPLE)]
    (rejected,) = (row for row in rows if row[col.STATUS] == col.REJECTED)
    assert (rejected[col.INDEX], rejected[col.JPEG], rejected[col.CAPTION]) == (1, None, None)
    assert rejected[col.REASON].startswith("no image: it has .heic")
    assert (end.missing, end.recorded, end.more) == (1, 4, 0)
    assert "broken tar, last key 'd'" in end.rest
    assert end.unread == {".heic": 1}
    assert sum(end.cleaned.values()) == 1


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A server with one shard of forty samples. Readers retry without delay."""
    isolate(monkeypatch)
    monkeypatch.setattr(reader, "_WAITS_S", (0.0,))
    with serving(Storage({"/bucket/train/000.tar": CONTENT})) as server:
        yield server


@pytest.mark.parametrize(("fault", "tables_before"), [(500, 0), (500, 1), (CUT, 1)])
def test_the_reader_waits_for_failing_storage_and_gives_the_same_rows(
    storage: Storage, fault: int, tables_before: int
) -> None:
    shard, read_settings = (
        NamedShard("0/000.tar", url_of("http", storage)),
        reading(shuffle_buffer=2, block_samples=1),
    )
    expected, waits = untimed(tables_of(read_settings, shard)), list[str]()
    tables = tables_of(read_settings, shard, on_wait=waits.append)
    before = list(islice(tables, tables_before))
    storage.faults["/bucket/train/000.tar"] = [fault] * 12
    assert untimed([*before, *tables]) == expected
    assert waits
    assert all("000.tar" in line for line in waits)
    assert not storage.faults["/bucket/train/000.tar"]


def test_storage_that_refuses_or_fails_for_too_long_stops_the_reader(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_PATIENCE_S", 0.0)
    storage.faults["/bucket/train/000.tar"] = [500] * 9
    for name in ("none.tar", "000.tar"):
        waits: list[str] = []
        with pytest.raises(ShardError, match=name):
            read(reading(), NamedShard(f"0/{name}", url_of("http", storage, name)), on_wait=waits.append)
        assert waits == []


def test_the_drawn_caption_depends_only_on_seed_pass_and_identity() -> None:
    sample, shard = Sample(0, "a", b"image", tuple("abcdefgh")), NamedShard("0/0.tar", "/data/0.tar")

    def drawn(sample: Sample, seed: int = 0, pass_: int = 0, shard: NamedShard = shard) -> str:
        return str(row_of(sample, shard, reading(seed), pass_)[col.CAPTION])

    moved = dataclasses.replace(sample, index=7, image=b"another")
    assert drawn(moved) == drawn(sample) == drawn(sample, shard=shard._replace(url="s3://bucket/x.tar"))
    assert len({drawn(sample, shard=shard._replace(name=f"0/{number}.tar")) for number in range(40)}) == 8
    assert len({drawn(sample, pass_=pass_) for pass_ in range(40)}) == 8
    assert len({drawn(sample, seed=seed) for seed in range(40)}) == 8
    assert len({drawn(dataclasses.replace(sample, key=f"{key}")) for key in range(40)}) == 8
