"""A sample is the same, its caption, crop and negatives, however a run is cut into blocks, workers and attempts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sclip.config import LossConfig
from sclip.data import columns as col
from sclip.data.encode import Encoder
from sclip.data.side_channel import Marker, read_notes
from sclip.data.stream import StreamPlan
from sclip.scenegraph import Parser
from support.annotated_shards import EPOCHS, SIDE, named, plan, plan_of, tables, write_plain

SAMPLES, PER_SHARD = 36, 13

Found = dict[tuple[int, int], dict[str, NDArray[Any]]]
"""The columns of each sample, by entry and index."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_plain(tmp_path_factory.mktemp("plain"), SAMPLES, PER_SHARD)


def of_run(shards: list[str], seed: int = 0, **data: Any) -> StreamPlan:
    """Return the plan of a run that could be another start of the same one, or has another seed."""
    config = plan(shards, loss=LossConfig(negatives_per_caption=2), **data).config
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, seed=seed))
    return plan_of(config, [named(shard) for shard in shards])


def encoded(of: StreamPlan, parser: Parser, step: int = 0, world_size: int = 1) -> tuple[Found, list[Marker]]:
    """Return what the encoders make of all workers' rows from a step on; a row that comes twice fails the test."""
    encoder = Encoder(of.config, SIDE)
    encoder.__dict__["_parser"] = parser  # loaded once for all tests
    found: Found = {}
    markers = []
    for table in (table for rank in range(world_size) for table in tables(of, step, rank, world_size)):
        columns = encoder(table)
        for note in read_notes(columns.pop(col.NOTE)):
            markers += note.markers
        for at in range(len(columns[col.ENTRY])):
            row = {name: values[at] for name, values in columns.items()}
            if row[col.PLACE] != col.NO_SAMPLE:
                sample = int(row[col.ENTRY]), int(row[col.INDEX])
                assert sample not in found
                found[sample] = row
    return found, sorted(markers)


@pytest.fixture(scope="module")
def whole(shards: list[str], parser: Parser) -> tuple[Found, list[Marker]]:
    return encoded(of_run(shards), parser)


def assert_same(found: Found, expected: Found) -> None:
    for sample, row in found.items():
        for name, values in row.items():
            np.testing.assert_array_equal(values, expected[sample][name], err_msg=f"{name} of {sample}")


@pytest.mark.parametrize(("block_samples", "world_size"), [(1, 1), (5, 3), (1000, 2)])
@pytest.mark.parametrize("step", [0, 11])
def test_a_run_that_is_cut_otherwise_or_goes_on_has_the_same_samples_places_and_markers(
    shards: list[str], parser: Parser, whole: tuple[Found, list[Marker]],
    block_samples: int, world_size: int, step: int,
) -> None:  # fmt: skip
    of = of_run(shards, block_samples=block_samples)
    found, markers = encoded(of, parser, step, world_size)
    first = step * of.order.batch_size
    assert len(whole[0]) == EPOCHS * SAMPLES
    assert found.keys() == {sample for sample, row in whole[0].items() if row[col.PLACE] >= first}
    assert_same(found, whole[0])
    assert markers == [marker for marker in whole[1] if marker.place >= first]
    assert [marker.status for marker in whole[1]] == [col.END] * EPOCHS * len(shards)


def differing(found: Found, expected: Found) -> Iterator[str]:
    """Yield each column that differs anywhere, by samples of the same key."""
    for name in (col.IMAGE, col.TEXT, col.NEGATIVE_TEXT):
        pairs = [(row[name], expected[sample][name]) for sample, row in found.items() if sample in expected]
        assert pairs
        if any(not np.array_equal(one, other) for one, other in pairs):
            yield name


def test_another_pass_and_another_seed_have_other_crops_captions_and_negatives(
    shards: list[str], parser: Parser, whole: tuple[Found, list[Marker]]
) -> None:
    """Or nothing would be drawn at random at all."""
    schedule, drawn = of_run(shards).order.schedule, {col.IMAGE, col.TEXT, col.NEGATIVE_TEXT}

    def of_pass(found: Found, schedule: Any, pass_: int) -> Found:
        visits = {sample: schedule.visit(sample[0]) for sample in found}
        return {(v.shard, sample[1]): found[sample] for sample, v in visits.items() if v.pass_ == pass_}

    first = of_pass(whole[0], schedule, 0)
    assert set(differing(of_pass(whole[0], schedule, 1), first)) == drawn
    other = of_run(shards, seed=1)
    assert set(differing(of_pass(encoded(other, parser)[0], other.order.schedule, 0), first)) == drawn
