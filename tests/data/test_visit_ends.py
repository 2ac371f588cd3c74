"""The end of a visit comes with the step of its last row: whoever has all rows of a step has the ends in it too."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from sclip.config import Config, DataConfig, ModelConfig
from sclip.data import columns as col
from sclip.data.encode import Encoder
from sclip.data.order import Order
from sclip.data.reader import READ_SCHEMA, OpenedVisit, ReadSettings, read_round
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.side_channel import VisitEnd, read_notes
from support.tars import pair, tar_bytes

PER_SHARD, SHARDS = 6, 4
READING = ReadSettings(Config(data=DataConfig(block_samples=3)))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[NamedShard]:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(SHARDS):
        (folder / f"{number}.tar").write_bytes(tar_bytes(m for at in range(PER_SHARD) for m in pair(f"{at}")))
    return [NamedShard(f"0/{number}.tar", str(folder / f"{number}.tar")) for number in range(SHARDS)]


def rows_of_workers(
    shards: list[NamedShard], recorded: int, world_size: int, place: int = 0
) -> list[list[dict[str, Any]]]:
    """Return what each worker reads of a run over the shards from a place on; of each are so many rows recorded."""
    order = Order(Schedule(0, 1, (SHARDS,)), ((recorded,) * SHARDS,), SHARDS, 1)
    ((_, round_),) = order.rounds()
    visits = {
        entry: OpenedVisit(shards[order.schedule.visit(entry).shard], 0, recorded, recorded)
        for entry in range(SHARDS)
    }
    return [
        [
            row
            for table in read_round(READING, round_, round_.share(rank, world_size), visits, place)
            for row in table.to_pylist()
        ]
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("recorded", [PER_SHARD, PER_SHARD - 2, PER_SHARD + 2])
def test_each_visit_has_one_end_at_its_last_place_and_before_the_row_there(
    shards: list[NamedShard], recorded: int, world_size: int
) -> None:
    """Also where the shard holds more than is recorded of it, or less, so that the last place has no row."""
    ends = []
    for rows in rows_of_workers(shards, recorded, world_size):
        keys = [(row[col.PLACE], row[col.STATUS] != col.END) for row in rows]
        assert keys == sorted(keys)
        ends += [row for row in rows if row[col.STATUS] == col.END]
    assert sorted(end[col.ENTRY] for end in ends) == list(range(SHARDS))
    # Tracks of equal length end together.
    assert sorted(end[col.PLACE] for end in ends) == list(range(SHARDS * (recorded - 1), SHARDS * recorded))
    for end in ends:
        told = VisitEnd.from_json(end[col.REASON])
        assert (told.missing, told.more) == (max(0, recorded - PER_SHARD), max(0, PER_SHARD - recorded))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_resume_gives_the_ends_of_the_steps_from_there_on_and_no_other(
    shards: list[NamedShard], world_size: int
) -> None:
    whole = [row for rows in rows_of_workers(shards, PER_SHARD, world_size) for row in rows]
    for place in range(SHARDS * PER_SHARD):
        found = [row for rows in rows_of_workers(shards, PER_SHARD, world_size, place) for row in rows]
        assert [(row[col.PLACE], row[col.STATUS]) for row in found] == [
            (row[col.PLACE], row[col.STATUS]) for row in whole if row[col.PLACE] >= place
        ]


def test_a_note_takes_a_place_as_come_with_its_row_and_not_with_the_end_before_it() -> None:
    encoder = Encoder(Config(model=ModelConfig(name="scenes-conv")), image_size=16)
    common = {col.ENTRY: 0, col.INDEX: 0, col.PASS: 0, col.PLACE: 40, col.SAMPLE_KEY: "0"}
    end, row = common | {col.STATUS: col.END}, common | {col.STATUS: col.REJECTED, col.REASON: "no caption"}
    uptos = []
    for rows in ([end], [end, row], [row]):
        columns = encoder(pa.Table.from_pylist(rows, schema=READ_SCHEMA))
        uptos += [note.upto for note in read_notes(columns[col.NOTE])]
    assert uptos == [40, 41, 41]
