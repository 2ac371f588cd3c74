"""Batches are assembled from the blocks of a worker's feeds: one batch per step, plus a record of empty places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.data import batches as module
from sclip.data import columns as col
from sclip.data.batches import Batch, Batches, Record
from sclip.data.columns import Note, VisitEnd
from sclip.data.order import Order
from sclip.data.schedule import Schedule
from support.stream_blocks import BLANK, Columns, Row, block, samples, tar_index, value_of

MISSING = -1
"""Status of a recorded place whose row is missing from the shard: no row arrives for it."""


def order_of(counts: Sequence[int], batch_size: int, epochs: int = 1) -> Order:
    return Order(Schedule(1, epochs, (len(counts),)), (tuple(counts),), 3, batch_size)


@dataclass
class World:
    """An order, the workers that read it, and how the blocks of their feeds are cut."""

    order: Order
    world_size: int = 1
    feeds: int = 1
    cuts: Sequence[int] = (4,)
    """Rows per block, repeated in turn."""
    statuses: Mapping[int, int] = field(default_factory=dict)
    """Statuses of the places without a sample."""

    def rows(self, rank: int) -> list[list[Row]]:
        """Return the rows of each feed of a worker, as its readers give them."""
        feeds: list[list[Row]] = [[] for _ in range(self.feeds)]
        for _, round_ in self.order.rounds():
            for number, share in enumerate(round_.share(rank, self.world_size)):
                rows: list[Row] = []
                row_number = 0
                for part in round_.tracks[share.track]:
                    for ordinal in range(part.start, part.stop):
                        place = round_.place(share.track, row_number)
                        status = self.statuses.get(place, col.SAMPLE)
                        if row_number % share.split in share.turns:
                            is_last = ordinal == part.stop - 1
                            rows += [(part.entry, place, col.END)] if is_last else []
                            rows += [(part.entry, place, status)] if status != MISSING else []
                        row_number += 1
                feeds[number % self.feeds] += rows
        return [sorted(rows, key=lambda row: (row[1], row[2] != col.END)) for rows in feeds]

    def blocks(self, rows: Sequence[Row]) -> Iterator[Columns]:
        start = 0
        while rows[start:]:
            for cut in self.cuts:
                if rows[start : start + cut]:
                    yield block(rows[start : start + cut])
                start += cut

    def batches(self, rank: int = 0, step: int = 0, parts: int = 1) -> Batches:
        feeds = [
            self.blocks([row for row in rows if row[1] >= step * self.order.batch_size])
            for rows in self.rows(rank)
        ]
        return Batches(
            feeds, self.order, step, BLANK, rank=rank, world_size=self.world_size, parts=parts
        )  # fmt: skip

    def of_step(self, rank: int, step: int) -> list[Row]:
        """Return a worker's rows whose places are in a step, sorted by place."""
        size = self.order.batch_size
        rows = [row for feed_rows in self.rows(rank) for row in feed_rows if row[1] // size == step]
        return sorted(rows, key=lambda row: row[1])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    order = order_of(
        draw(st.lists(st.integers(0, 7), min_size=1, max_size=8)), draw(st.integers(1, 9)), draw(st.integers(1, 2))
    )  # fmt: skip
    lacking = st.sampled_from([col.REJECTED, col.FILTERED, MISSING])
    places = st.integers(0, max(0, order.recorded - 1))
    return World(
        order, draw(st.integers(1, 3)), draw(st.integers(1, 3)),
        draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)), draw(st.dictionaries(places, lacking, max_size=9)),
    )  # fmt: skip


def places(batch: Batch) -> list[int]:
    return [tar_index(index) for index in batch.indices.tolist()]


def dirty(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Allocate memory filled with garbage."""
    return np.full(shape, 77, dtype)


def drain(batches: Batches) -> Iterator[Batch]:
    while True:
        try:
            yield batches.next(dirty)
        except StopIteration:
            return


@settings(max_examples=60)
@given(worlds(), st.integers(1, 4), st.data())
def test_each_step_has_its_rows_and_markers_in_one_width_on_all_workers_and_after_a_restart(
    world: World, parts: int, data: st.DataObject
) -> None:
    widths = []
    for rank in range(world.world_size):
        batches = list(drain(world.batches(rank, parts=parts)))
        assert len(batches) == world.order.steps
        widths.append([len(batch.columns[col.VALID]) for batch in batches])
        for step, batch in enumerate(batches):
            rows = world.of_step(rank, step)
            sample_rows = [row for row in rows if row[2] == col.SAMPLE]
            assert places(batch) == [place for _, place, _ in sample_rows]
            assert batch.entries.tolist() == [entry for entry, _, _ in sample_rows]
            width, count = widths[-1][step], len(sample_rows)
            assert batch.rows == count
            assert batch.columns[col.VALID].tolist() == [True] * count + [False] * (width - count)
            for name in col.MODEL_COLUMNS:
                values = [np.full_like(BLANK[name], value_of(place)) for _, place, _ in sample_rows]
                expected = np.stack([*values, *[BLANK[name]] * (width - count)])
                np.testing.assert_array_equal(batch.columns[name], expected, err_msg=name)
                assert batch.columns[name].dtype == BLANK[name].dtype
            markers = sorted((marker.entry, marker.place, marker.status) for marker in batch.markers)
            assert markers == sorted(row for row in rows if row[2] != col.SAMPLE)
        step = data.draw(st.integers(0, max(0, world.order.steps - 1)))
        later = [places(batch) for batch in drain(world.batches(rank, step))]
        assert later == [places(batch) for batch in batches[step:]]
    assert widths == [sorted(widths[0])] * world.world_size  # widths never shrink
    assert all(width % parts == 0 for width in widths[0])


def fetched_blocks(world: World, rank: int = 0) -> list[int]:
    """Return how many blocks were fetched when each batch was ready."""
    fetched = 0

    def counted(blocks: Iterator[Columns]) -> Iterator[Columns]:
        nonlocal fetched
        for fetched_block in blocks:
            fetched += 1
            yield fetched_block

    feeds = [counted(world.blocks(rows)) for rows in world.rows(rank)]
    batches = Batches(feeds, world.order, 0, BLANK, rank=rank, world_size=world.world_size)
    assert fetched == 0
    return [fetched for _ in drain(batches)]


def test_a_batch_waits_only_for_the_blocks_of_its_own_places() -> None:
    """Each of two workers owns two of a step's four places. The last place may be the other worker's."""
    world = World(order_of([4, 4, 4, 4], 4), world_size=2)
    steps = [[world.of_step(rank, step) for step in range(4)] for rank in range(2)]
    assert {rows[-1][1] % 4 for rank_steps in steps for rows in rank_steps} > {3}
    for rank, rank_steps in enumerate(steps):
        world.cuts = [len(rows) for rows in rank_steps]
        assert fetched_blocks(world, rank) == [1, 2, 3, 4]


def test_a_batch_does_not_wait_for_rejected_or_filtered_places_but_waits_for_missing_ones() -> None:
    order = order_of([8], 4)
    for status, fetched in ((col.REJECTED, [2, 4]), (col.FILTERED, [2, 4]), (MISSING, [3, 4])):
        world = World(order, cuts=[2, 2 - (status == MISSING), 3, 3], statuses={3: status})
        assert fetched_blocks(world) == fetched


def test_blocks_that_ray_joined_are_read_row_by_row() -> None:
    """Ray may join blocks. A joined block has rows without a sample among the others, and several notes."""
    rows: list[list[Row]] = [
        samples(0, 2),
        [(0, 2, col.REJECTED)],
        [*samples(1, 1, first=3), (1, 4, col.FILTERED)],
    ]
    parts = [block(block_rows) for block_rows in rows]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    batch = Batches([[joined]], order_of([5], 5), 0, BLANK).next()
    assert list(zip(batch.entries.tolist(), places(batch), strict=True)) == [(0, 0), (0, 1), (1, 3)]
    assert batch.columns[col.IMAGE_DIGEST][:3].tolist() == [value_of(place) for place in (0, 1, 3)]
    assert [len(note.markers) for note in batch.notes] == [0, 1, 1]


def test_notes_and_queue_times_arrive_with_the_batch_of_their_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A note from a machine whose clock is ahead adds no wait."""
    monkeypatch.setattr(module, "time", type("Clock", (), {"time": staticmethod(lambda: 100.0)}))
    columns = block(samples(0, 3))
    columns[col.NOTE][0] = Note(upto=2, samples=3, made_at=90.0).to_json()
    columns[col.NOTE][1] = Note(upto=3, samples=2, made_at=101.0).to_json()
    batches = [*drain(Batches([[columns]], order_of([3], 2), 0, BLANK))]
    assert [batch.queued for batch in batches] == [30.0, 0.0]
    assert [len(batch.notes) for batch in batches] == [2, 0]


def test_the_end_of_a_shard_is_recorded_if_it_reports_a_problem_and_its_rest_is_rejected_once() -> None:
    end = VisitEnd(missing=2, more=0, recorded=4, rest="cut short", unread={".txt": 1})
    ends = {0: VisitEnd().to_json(), 1: end.to_json()}
    columns = block([(0, 1, col.END), *samples(0, 2), (1, 5, col.END)])
    (note,) = module.read_notes(columns[col.NOTE])
    note.markers = [marker._replace(reason=ends[marker.entry]) for marker in note.markers]
    columns[col.NOTE][0] = note.to_json()
    record = Record()
    record.passed(Batches([[columns]], order_of([2, 4], 6), 0, BLANK).next())
    assert record.missing == 2
    (shard_end,) = record.ends
    assert (shard_end["entry"], shard_end["rows"], shard_end["missing"], shard_end["unread"]) == (
        1,
        6,
        2,
        {".txt": 1},
    )
    assert record.take().rejected == [{"entry": 1, "index": 6, "key": "", "reason": "cut short"}]
    assert record.take() == Record()
