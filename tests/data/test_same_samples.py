"""A sample is the same, its caption, crop and negatives, however a run is cut into blocks, workers and attempts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sclip.config import LossConfig
from sclip.data import columns as col
from sclip.data.encode import Encoder
from sclip.data.position import Position
from sclip.data.side_channel import Marker, read_notes
from sclip.data.stream import StreamPlan
from sclip.scenegraph import Parser
from support.annotated_shards import EPOCHS, SIDE, plan, tables, write_plain

SAMPLES, PER_SHARD = 36, 13

Found = dict[tuple[int, int], dict[str, NDArray[Any]]]
"""The columns of each sample, by entry and index."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_plain(tmp_path_factory.mktemp("plain"), SAMPLES, PER_SHARD)


def of_run(shards: list[str], num_workers: int = 1, seed: int = 0, **data: Any) -> StreamPlan:
    """Return the plan of a run that could be another start of the same one, or has another seed."""
    of = plan(shards, loss=LossConfig(negatives_per_caption=2), **data)
    config = dataclasses.replace(
        of.config,
        run=dataclasses.replace(of.config.run, seed=seed),
        train=dataclasses.replace(of.config.train, num_workers=num_workers),
    )
    reading, schedule = (
        dataclasses.replace(of.reading, config=config),
        dataclasses.replace(of.schedule, seed=seed),
    )
    return dataclasses.replace(of, reading=reading, schedule=schedule)


def encoded(of: StreamPlan, parser: Parser, position: Position | None = None) -> tuple[Found, list[Marker]]:
    """Return what the encoders make of what the position has not done; a sample that comes twice fails the test."""
    encoder = Encoder(of.config, SIDE)
    encoder.__dict__["_parser"] = parser  # loaded once for all tests
    found: Found = {}
    markers = []
    for table in tables(of, position):
        columns = encoder(table)
        for note in read_notes(columns.pop(col.NOTE)):
            markers += note.markers
        for at in range(len(columns[col.ENTRY])):
            row = {name: values[at] for name, values in columns.items()}
            if row[col.ORDINAL] != col.NO_SAMPLE:
                place = int(row[col.ENTRY]), int(row[col.INDEX])
                assert place not in found
                found[place] = row
    return found, markers


@pytest.fixture(scope="module")
def whole(shards: list[str], parser: Parser) -> tuple[Found, list[Marker]]:
    return encoded(of_run(shards), parser)


def assert_same(found: Found, expected: Found) -> None:
    for place, row in found.items():
        for name, values in row.items():
            np.testing.assert_array_equal(values, expected[place][name], err_msg=f"{name} of {place}")


CUTS: list[dict[str, Any]] = [
    {"block_samples": 1, "mix_blocks": 1},
    {"block_samples": 5, "mix_blocks": 3, "readers": 1, "num_workers": 3},
    {"block_samples": 1000, "mix_blocks": 64, "readers": 9, "num_workers": 2},
]


@pytest.mark.parametrize("cut", CUTS)
def test_a_run_that_is_cut_otherwise_has_the_same_samples_and_markers(
    shards: list[str], parser: Parser, whole: tuple[Found, list[Marker]], cut: dict[str, Any]
) -> None:
    found, markers = encoded(of_run(shards, **cut), parser)
    assert len(whole[0]) == EPOCHS * SAMPLES
    assert found.keys() == whole[0].keys()
    assert_same(found, whole[0])
    assert markers == whole[1]
    assert [marker.status for marker in markers] == [col.END] * EPOCHS * len(shards)


@pytest.mark.parametrize("cut", CUTS)
def test_a_run_that_goes_on_has_exactly_the_others_and_the_same(
    shards: list[str], parser: Parser, whole: tuple[Found, list[Marker]], cut: dict[str, Any]
) -> None:
    position, done = Position(), set()
    for number, (place, row) in enumerate(sorted(whole[0].items())):
        if place[0] < 2 or number % 7 in (0, 1, 4):
            position.add(place[0], int(row[col.ORDINAL]))
            done.add(place)
    for marker in whole[1][:1]:  # the end of one shard of which all rows are done
        position.end(marker.entry, marker.ordinal)
    assert position.low == 1
    given = Position.from_json(json.loads(json.dumps(position.to_json())))
    found, markers = encoded(of_run(shards, **cut), parser, given)
    assert 0 < len(done) < len(whole[0])
    assert found.keys() == whole[0].keys() - done
    assert_same(found, whole[0])
    assert markers == whole[1][1:]


def differing(found: Found, expected: Found) -> Iterator[str]:
    """Yield each column that differs anywhere, by samples of the same key."""
    for name in (col.IMAGE, col.TEXT, col.NEGATIVE_TEXT):
        pairs = [(row[name], expected[place][name]) for place, row in found.items() if place in expected]
        assert pairs
        if any(not np.array_equal(one, other) for one, other in pairs):
            yield name


def test_another_pass_and_another_seed_have_other_crops_captions_and_negatives(
    shards: list[str], parser: Parser, whole: tuple[Found, list[Marker]]
) -> None:
    """Or nothing would be drawn at random at all."""
    schedule, drawn = of_run(shards).schedule, {col.IMAGE, col.TEXT, col.NEGATIVE_TEXT}

    def of_pass(found: Found, schedule: Any, pass_: int) -> Found:
        visits = {place: schedule.visit(place[0]) for place in found}
        return {(v.shard, place[1]): found[place] for place, v in visits.items() if v.pass_ == pass_}

    first = of_pass(whole[0], schedule, 0)
    assert set(differing(of_pass(whole[0], schedule, 1), first)) == drawn
    other = of_run(shards, seed=1)
    assert set(differing(of_pass(encoded(other, parser)[0], other.schedule, 0), first)) == drawn


def test_the_folder_that_a_shard_lies_in_changes_nothing(
    parser: Parser, tmp_path: Path, whole: tuple[Found, list[Marker]]
) -> None:
    moved = write_plain(tmp_path / "elsewhere", SAMPLES, PER_SHARD)
    assert_same(encoded(of_run(moved), parser)[0], whole[0])
