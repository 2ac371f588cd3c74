"""The order of shards, and the blocks of the stream cut into the batches of a worker with a record of them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.batches import Batch, Batches, Record, StreamMismatch
from sclip.data.position import Position
from sclip.data.schedule import Schedule

Columns = dict[str, NDArray[Any]]
Row = tuple[int, int, int]
"""Entry, index and status of a row."""

BLANK: Columns = {
    col.IMAGE: np.zeros((3, 2, 2), np.uint8),
    col.TEXT: np.array([7, 8, 0], np.int32), col.NEGATIVE_TEXT: np.array([7, 8, 0], np.int32),
    col.TRIPLES: np.full((1, 3, 2), -1, np.int32), col.NEGATIVE_TRIPLES: np.full((1, 3, 2), -1, np.int32),
    col.HAS_NEGATIVE: np.array(False), col.KEY: np.array(-1, np.int64),
}  # fmt: skip


def block(rows: Sequence[Row], origin: int = 0) -> Columns:
    """Return the columns of rows as the encoder gives them; every value of a row follows from its index."""
    indices = np.array([index for _, index, _ in rows], np.int64)

    def filled(name: str) -> NDArray[Any]:
        blank = BLANK[name]
        return np.stack([np.full_like(blank, index % 100 + 1) for index in indices])

    return {name: filled(name) for name in col.MODEL_COLUMNS} | {
        col.ENTRY: np.array([entry for entry, _, _ in rows], np.int64),
        col.INDEX: indices,
        col.STATUS: np.array([status for _, _, status in rows], np.int8),
        col.ORIGIN: np.full(len(rows), origin, np.int64),
        col.COUNT: np.zeros(len(rows), np.int64),
        col.SAMPLE_KEY: np.array([f"key{index}" for index in indices], object),
        col.REASON: np.array(["not a picture" if s == col.REJECTED else "" for *_, s in rows], object),
    }


def samples(entry: int, count: int, first: int = 0) -> list[Row]:
    return [(entry, index, col.SAMPLE) for index in range(first, first + count)]


def drain(batches: Batches, record: Record) -> list[Batch]:
    """Return the batches with samples, as the worker loop takes and records them."""
    found = []
    while True:
        batch = batches.next()
        record.passed(batch)
        if not batch.rows:
            return found
        record.trained(batch)
        found.append(batch)


# The schedule


@pytest.mark.parametrize("shards", [1, 2, 3, 16, 17, 4097])
def test_the_permutation_holds_at_the_edges_of_a_power_of_two(shards: int) -> None:
    schedule = Schedule(seed=5, epochs=2, shards=shards)
    assert sorted(map(schedule.shard, range(shards, 2 * shards))) == list(range(shards))


def test_the_order_stays_the_same_in_every_version() -> None:
    """A run that is resumed reads the entries that are left in the order that it was begun with."""
    schedule = Schedule(seed=0, epochs=2, shards=8)
    assert [schedule.shard(entry) for entry in range(len(schedule))] == [
        3, 6, 1, 0, 5, 4, 7, 2,
        4, 0, 3, 2, 5, 1, 6, 7,
    ]  # fmt: skip


# The batches


def test_batches_have_one_shape_and_only_the_last_is_short() -> None:
    batches = Batches([block(samples(0, 3)), block(samples(0, 4, first=3))], 3, 0, BLANK)
    found = [batches.next() for _ in range(5)]
    assert [batch.rows for batch in found] == [3, 3, 1, 0, 0]
    assert [batch.indices.tolist() for batch in found] == [[0, 1, 2], [3, 4, 5], [6], [], []]
    for batch in found:
        assert batch.columns[col.VALID].tolist() == [at < batch.rows for at in range(3)]
        for name in col.MODEL_COLUMNS:
            assert batch.columns[name].shape == (3, *BLANK[name].shape)
            assert batch.columns[name].dtype == BLANK[name].dtype
            for at in range(3):
                is_sample = at < batch.rows
                expected = np.full_like(BLANK[name], batch.indices[at] + 1) if is_sample else BLANK[name]
                np.testing.assert_array_equal(batch.columns[name][at], expected, err_msg=name)


def test_a_worker_that_gets_nothing_has_empty_batches_of_the_same_shape() -> None:
    batch = Batches([], 4, 0, BLANK).next()
    assert batch.rows == 0
    assert len(batch.entries) == len(batch.indices) == 0
    assert not batch.columns[col.VALID].any()
    assert batch.columns[col.IMAGE].shape == (4, 3, 2, 2)
    assert batch.columns[col.KEY].tolist() == [-1] * 4


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.lists(st.integers(0, 9), max_size=12), st.integers(1, 7))
def test_every_sample_is_in_one_batch_in_order_however_the_blocks_are_cut(
    count: int, cuts: list[int], size: int
) -> None:
    rows, parts = samples(2, count), []
    for cut in cuts:
        parts.append(rows[:cut])
        rows = rows[cut:]
    blocks = [block(part) for part in [*parts, rows] if part]
    found = drain(Batches(blocks, size, 0, BLANK), Record())
    assert [batch.rows for batch in found] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert [index for batch in found for index in batch.indices.tolist()] == list(range(count))
    values = [v for batch in found for v in batch.columns[col.KEY][: batch.rows].tolist()]
    assert values == [index % 100 + 1 for index in range(count)]


def test_rejected_and_end_rows_go_into_the_record_and_not_into_batches() -> None:
    rows = [*samples(4, 2), (4, 2, col.REJECTED), *samples(4, 1, first=3), (4, 4, col.END)]
    record, batch = Record(), Batches([block(rows)], 8, 0, BLANK).next()
    assert batch.indices.tolist() == [0, 1, 3]
    record.passed(batch)
    assert record.position.done(4) == [
        range(2, 3)
    ]  # what is rejected is done; what is not trained on yet is not
    record.trained(batch)
    assert record.position.closed(4)
    assert record.rejected == [{"entry": "4", "key": "key2", "reason": "not a picture"}]


def test_filtered_samples_are_done_and_counted_until_the_next_record() -> None:
    rows = block([*samples(0, 2), (0, 2, col.FILTERED), (0, 5, col.END)])
    rows[col.COUNT] = np.array([0, 0, 3, 0], np.int64)
    record = Record()
    assert len(drain(Batches([rows], 8, 0, BLANK), record)) == 1
    assert record.filtered == 3
    position, rejected, filtered = record.take()
    assert position.closed(0)
    assert (rejected, filtered) == ([], 3)
    assert record.take()[2] == 0


def test_a_block_of_markers_only_gives_no_batch() -> None:
    record = Record()
    assert drain(Batches([block([(0, 0, col.REJECTED), (0, 1, col.END)])], 2, 0, BLANK), record) == []
    assert record.position.closed(0)


def test_the_records_of_two_workers_merge_to_a_closed_position() -> None:
    """The rows of a shard go to either worker, and its end to one of them."""
    rows = [*samples(0, 9), (0, 9, col.REJECTED), *samples(1, 5)]
    ends = [(0, 10, col.END), (1, 5, col.END)]
    workers = [
        Batches([block([*rows[::2], ends[0]])], 2, 0, BLANK),
        Batches([block([ends[1], *rows[1::2]])], 2, 0, BLANK),
    ]
    position = Position()
    for worker in workers:
        record = Record()
        drain(worker, record)
        done, _, _ = record.take()
        position.merge(Position.from_json(json.loads(json.dumps(done.to_json()))))
    assert position.to_json() == {"low": 2, "closed": [], "open": []}


def test_only_what_was_trained_on_is_recorded_and_each_row_in_one_record() -> None:
    rows = [(0, 6, col.REJECTED), *samples(0, 6), (0, 7, col.REJECTED)]
    batches, record = Batches([block(rows[:3]), block(rows[3:])], 2, 0, BLANK), Record()

    def train(batch: Batch) -> None:
        record.passed(batch)
        record.trained(batch)

    train(batches.next())
    ahead = batches.next()  # fetched, and not trained on when the checkpoint is written
    done, rejected, _ = record.take()
    assert done.done(0) == [range(0, 2), range(6, 7)]
    assert [entry["key"] for entry in rejected] == ["key6"]
    train(ahead)
    train(batches.next())
    done, rejected, _ = record.take()
    assert done.done(0) == [range(2, 6), range(7, 8)]
    assert [entry["key"] for entry in rejected] == ["key7"]


def test_rows_of_another_checkpoint_are_refused() -> None:
    batches = Batches(
        [block(samples(0, 2), origin=20), block(samples(0, 2, first=2), origin=40)], 2, 20, BLANK
    )
    assert batches.next().rows == 2
    with pytest.raises(StreamMismatch, match=r"from step 40.* of step 20"):
        batches.next()
    with pytest.raises(StreamMismatch, match=r"from step 20.* of step 0"):
        Batches([block([(0, 1, col.END)], origin=20)], 2, 0, BLANK).next()
