"""The reader: rows of a shard in a mixed order that follows from seed and visit, the same at every reading."""

from __future__ import annotations

import dataclasses
import io
import random
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.config import Config, DataConfig, RunConfig
from sclip.data import columns as col
from sclip.data import reader
from sclip.data.reader import READ_SCHEMA, ReadSettings, mixed, read_visit, row_of
from sclip.data.schedule import NamedShard, Visit
from sclip.data.shards import Rejected, Sample, ShardError
from sclip.prepare.annotate import stamp
from sclip.scenegraph import Parser
from support.annotated_shards import LEAST, annotate_here, jpeg, named, write_plain

VISIT = Visit(source=0, pass_=0, shard=3)
SAMPLES = 40


def reading(seed: int = 0, stamp: str = "", **data: Any) -> ReadSettings:
    return ReadSettings(
        Config(run=RunConfig(seed=seed), data=DataConfig(**{"block_samples": 7} | data)), stamp
    )


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    (path,) = write_plain(tmp_path_factory.mktemp("plain"), SAMPLES, SAMPLES)
    return path


def rows(
    of: ReadSettings,
    shard: str | NamedShard,
    visit: Visit = VISIT,
    done: Sequence[range] = (),
    entry: int = 5,
    origin: int = 0,
) -> list[dict[str, Any]]:
    """Return the rows of a visit without what says when they were read."""
    shard = named(shard) if isinstance(shard, str) else shard
    times = {col.READ_S, col.BLOCKED_S, col.READ_AT}
    return [
        {name: value for name, value in row.items() if name not in times}
        for table in read_visit(of, shard, entry, visit, done, origin)
        for row in table.to_pylist()
    ]


def indices(found: Sequence[dict[str, Any]]) -> list[int]:
    return [row[col.INDEX] for row in found if row[col.STATUS] != col.END]


# The order


def items(sizes: Sequence[int]) -> list[Sample | Rejected]:
    return [Sample(at, f"{at}", bytes(size), ("a dog",)) for at, size in enumerate(sizes)]


@given(st.integers(0, 60), st.integers(0, 20), st.integers(0, 9))
def test_mixing_is_a_permutation_that_follows_from_its_seed(count: int, buffer: int, seed: int) -> None:
    given_ = [Rejected(at, "", "") if at % 5 == 0 else item for at, item in enumerate(items([1] * count))]
    found = [list(mixed(given_, buffer, random.Random(seed))) for _ in range(2)]
    assert found[0] == found[1]
    assert sorted(item.index for item in found[0]) == list(range(count))
    if buffer == 0:
        assert found[0] == given_


def test_a_buffer_that_holds_all_of_them_mixes_all_of_them() -> None:
    orders = {tuple(item.index for item in mixed(items([1] * 30), 30, random.Random(s))) for s in range(5)}
    assert len(orders) == 5
    for order in orders:
        assert min(order.index(at) for at in range(20, 30)) < 15


def most_held(given_: Sequence[Sample | Rejected], buffer: int) -> tuple[int, int]:
    """Return the most items, and bytes of images, that are held while the next one is waited for."""
    held: dict[int, int] = {}
    most_items, most_bytes = 0, 0

    def watched() -> Iterator[Sample | Rejected]:
        nonlocal most_items, most_bytes
        for item in given_:
            most_items, most_bytes = max(most_items, len(held)), max(most_bytes, sum(held.values()))
            held[item.index] = len(item.image) if isinstance(item, Sample) else 0
            yield item

    for item in mixed(watched(), buffer, random.Random(0)):
        del held[item.index]
    assert not held
    return most_items, most_bytes


def test_the_buffer_is_bounded_by_count_and_by_the_bytes_of_its_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = [random.Random(at).randint(1, 30) for at in range(200)]
    assert most_held(items(sizes), buffer=12)[0] == 12
    monkeypatch.setattr(reader, "_MOST_MIXED_BYTES", 100)
    count, held_bytes = most_held(items(sizes), buffer=150)
    assert 3 < count < 50
    assert 70 < held_bytes <= 100
    assert [item.index for item in mixed(items([101] * 9), 150, random.Random(0))] == list(range(9))


def test_a_visit_gives_the_same_order_at_every_reading_whatever_the_size_of_its_tables(shard: str) -> None:
    whole = rows(reading(), shard)
    assert sorted(indices(whole)) == list(range(SAMPLES))
    assert indices(whole) != list(range(SAMPLES))
    for block_samples in (1, 3, 1000):
        assert rows(reading(block_samples=block_samples), shard) == whole
    assert indices(rows(reading(shuffle_buffer=0), shard)) == list(range(SAMPLES))


def test_the_order_changes_with_pass_name_and_seed_and_with_no_number_of_source_or_shard(shard: str) -> None:
    def order(of: NamedShard, seed: int = 0, visit: Visit = VISIT) -> tuple[int, ...]:
        return tuple(indices(rows(reading(seed=seed), of, visit)))

    own = named(shard)
    others = [
        own._replace(name=f"{number}/{path}") for number, path in ((1, own.name[2:]), (0, "another.tar"))
    ]
    orders = {order(own), *map(order, others), order(own, 1), order(own, 0, VISIT._replace(pass_=1))}
    assert len(orders) == 5
    assert order(own, 0, Visit(source=4, pass_=0, shard=9)) == order(own)


# The rows


def test_rows_are_named_by_their_place_in_the_order_and_the_last_one_tells_their_number(shard: str) -> None:
    *found, end = rows(reading(), shard, VISIT._replace(pass_=2), entry=9, origin=40)
    assert [row[col.ORDINAL] for row in found] == list(range(SAMPLES))
    assert (end[col.STATUS], end[col.ORDINAL], end[col.SAMPLE_KEY]) == (col.END, SAMPLES, shard)
    for row in (*found, end):
        assert (row[col.ENTRY], row[col.PASS], row[col.ORIGIN]) == (9, 2, 40)
    for row in found:
        assert (row[col.STATUS], row[col.SAMPLE_KEY]) == (col.SAMPLE, f"s{row[col.INDEX]:04d}")
        assert row[col.IDENTITY] == f"{named(shard).name}/{row[col.SAMPLE_KEY]}"
        assert row[col.JPEG] == jpeg(row[col.INDEX])


def test_tables_hold_as_many_samples_as_a_block_and_say_how_long_they_took(shard: str) -> None:
    found = list(read_visit(reading(), named(shard), 5, VISIT))
    assert [table.num_rows for table in found] == [7, 7, 7, 7, 7, 6]  # the END row is in the last one
    for table in found:
        assert table.schema == READ_SCHEMA
        first, *others = table.to_pylist()
        assert first[col.READ_S] >= 0
        assert first[col.BLOCKED_S] >= 0
        assert all(row[col.READ_S] is row[col.BLOCKED_S] is None for row in others)
        assert all(row[col.READ_AT] > 0 for row in (first, *others) if row[col.STATUS] != col.END)


@settings(max_examples=30)
@given(st.sets(st.integers(0, SAMPLES - 1)), st.integers(1, 9))
def test_what_is_done_is_left_out_and_the_others_are_the_same_rows(
    shard: str, done: set[int], block_samples: int
) -> None:
    parts = [range(ordinal, ordinal + 1) for ordinal in sorted(done)]
    found = rows(reading(block_samples=block_samples), shard, done=parts)
    assert found == [row for row in rows(reading(), shard) if row[col.ORDINAL] not in done]


def test_of_a_shard_that_is_done_to_its_last_row_the_end_is_told(shard: str) -> None:
    (end,) = rows(reading(), shard, done=[range(SAMPLES)])
    assert (end[col.STATUS], end[col.ORDINAL]) == (col.END, SAMPLES)


def test_a_shard_that_shrank_since_its_rows_were_trained_on_is_an_error(shard: str) -> None:
    with pytest.raises(
        ShardError, match=rf"{shard}: {SAMPLES} samples, but {SAMPLES + 1} and more .*it changed"
    ):
        rows(reading(), shard, done=[range(3), range(SAMPLES, SAMPLES + 1)])


def test_an_empty_shard_is_an_end_alone(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    (end,) = rows(reading(), str(tmp_path / "empty.tar"))
    assert (end[col.STATUS], end[col.ORDINAL]) == (col.END, 0)


# What is no sample


def test_what_cannot_be_read_is_a_row_with_its_reason_in_the_same_order(tmp_path: Path) -> None:
    """A sample that breaks moves no other one."""
    broken, (path,) = {3, 8}, write_plain(tmp_path / "whole", 12, 12)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number in range(12):
            parts = {"jpg": jpeg(number)} | ({} if number in broken else {"txt": b"a dog"})
            for suffix, body in parts.items():
                member = tarfile.TarInfo(f"s{number:04d}.{suffix}")
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
    *found, _ = rows(reading(), str(tmp_path / "x.tar"))
    assert indices(found) == indices(rows(reading(), named(str(tmp_path / "x.tar"))._replace(url=path)))
    rejected = {row[col.INDEX]: row for row in found if row[col.STATUS] == col.REJECTED}
    assert rejected.keys() == broken
    for index, row in rejected.items():
        assert row[col.SAMPLE_KEY] == f"s{index:04d}"
        assert "no caption" in row[col.REASON]
        assert row[col.JPEG] is row[col.CAPTION] is None


def test_a_table_of_rows_without_a_sample_is_bounded_too(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MOST_ROWS", 15)
    of = reading(caption_field="no such field")
    assert [table.num_rows for table in read_visit(of, named(shard), 5, VISIT)] == [15, 15, 11]


@pytest.fixture(scope="module")
def annotated(shard: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An annotated copy of the shard, and its stamp."""
    parser = Parser()
    (path,) = annotate_here([shard], tmp_path_factory.mktemp("annotated") / "out", parser)
    return path, stamp(parser)


def test_a_filter_moves_no_row_and_draws_from_the_captions_that_pass(
    shard: str, annotated: tuple[str, str]
) -> None:
    path, stamp_ = annotated
    *whole, _ = rows(reading(), shard)
    *found, end = rows(reading(stamp=stamp_, **LEAST), path)
    assert indices(found) == indices(whole)
    assert end[col.ORDINAL] == SAMPLES
    statuses = [row[col.STATUS] for row in found]
    assert set(statuses) == {col.SAMPLE, col.FILTERED}
    for row in found:
        assert (row[col.CAPTION] is None) == (row[col.RECORD] is None) == (row[col.STATUS] == col.FILTERED)


def test_the_annotation_of_a_sample_brings_the_record_of_the_caption_that_is_drawn_all_the_same(
    shard: str, annotated: tuple[str, str]
) -> None:
    path, stamp_ = annotated
    whole, found = rows(reading(), shard)[:-1], rows(reading(stamp=stamp_), path)[:-1]
    assert [row[col.CAPTION] for row in found] == [row[col.CAPTION] for row in whole]
    assert all(row[col.RECORD] for row in found)
    assert not any(row[col.RECORD] for row in whole)


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
