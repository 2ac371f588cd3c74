"""The blocks of the stream become the batches of a worker, an equal part of each of several, with a record of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.data import batches as module
from sclip.data import columns as col
from sclip.data.batches import Batch, Batches, Record, StreamMismatch
from sclip.data.position import Position
from sclip.data.side_channel import Note
from support.stream_blocks import BLANK, Columns, Row, block, samples, tar_index, value_of


def drain(batches: Batches, record: Record) -> list[Batch]:
    """Return the batches with samples, as the worker loop takes and records them."""
    found: list[Batch] = []
    while True:
        batch = batches.next()
        record.passed(batch)
        if not batch.rows:
            return found
        record.trained(batch)
        found.append(batch)


# The batches


@pytest.mark.parametrize("width", [3, 5])
def test_batches_have_one_shape_and_only_the_last_is_short(width: int) -> None:
    """A width above the size is that of the workers which take one sample more."""
    batches = Batches([block(samples(0, 3)), block(samples(0, 4, first=3))], 3, 0, BLANK, width=width)
    found = [batches.next() for _ in range(5)]
    assert [batch.rows for batch in found] == [3, 3, 1, 0, 0]
    assert [batch.ordinals.tolist() for batch in found] == [[0, 1, 2], [3, 4, 5], [6], [], []]
    for batch in found:
        assert batch.indices.tolist() == [tar_index(ordinal) for ordinal in batch.ordinals]
        assert batch.columns[col.VALID].tolist() == [at < batch.rows for at in range(width)]
        for name in col.MODEL_COLUMNS:
            assert batch.columns[name].shape == (width, *BLANK[name].shape)
            assert batch.columns[name].dtype == BLANK[name].dtype
            for at in range(width):
                blank = BLANK[name]
                is_sample = at < batch.rows
                expected = np.full_like(blank, value_of(batch.ordinals[at])) if is_sample else blank
                np.testing.assert_array_equal(batch.columns[name][at], expected, err_msg=name)


def test_a_worker_that_gets_nothing_has_empty_batches_of_the_same_shape() -> None:
    batch = Batches([], 4, 0, BLANK).next()
    assert batch.rows == 0
    assert len(batch.entries) == len(batch.ordinals) == len(batch.indices) == 0
    assert not batch.columns[col.VALID].any()
    assert batch.columns[col.IMAGE].shape == (4, 3, 2, 2)
    assert batch.columns[col.IMAGE_DIGEST].tolist() == [-1] * 4


@settings(max_examples=100)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3))
def test_every_sample_is_in_one_batch_with_its_own_values_however_the_blocks_are_cut(
    cuts: list[int], size: int, mixed: int, more: int
) -> None:
    blocks = [block(samples(entry, count)) for entry, count in enumerate(cuts) if count]
    found = drain(Batches(blocks, size, 0, BLANK, width=size + more, mixed=mixed), Record())
    count = sum(cuts)
    assert [batch.rows for batch in found] == [size] * (count // size) + [count % size] * (count % size > 0)
    places = [place for batch in found for place in zip(batch.entries, batch.ordinals, strict=True)]
    assert sorted(places) == [(entry, at) for entry, of_one in enumerate(cuts) for at in range(of_one)]
    for batch in found:
        expected = [value_of(ordinal) for ordinal in batch.ordinals]
        assert batch.columns[col.IMAGE_DIGEST][: batch.rows].tolist() == expected
        assert batch.columns[col.IMAGE][: batch.rows, 0, 0, 0].tolist() == expected
    for entry in range(len(cuts)):  # so that what is done of a block is one range
        assert [at for of_one, at in places if of_one == entry] == list(range(cuts[entry]))


def test_a_batch_takes_an_equal_part_of_each_of_several_blocks_in_their_order() -> None:
    blocks = [block(samples(entry, 8)) for entry in range(4)]
    batches = Batches(blocks, 8, 0, BLANK, mixed=4)
    parts = [Counter(batches.next().entries.tolist()) for _ in range(4)]
    assert parts == [
        {0: 4, 1: 4},  # the first ones do not wait for as many blocks
        {0: 3, 1: 3, 2: 2},
        {0: 1, 1: 1, 2: 3, 3: 3},  # what two cannot give, the others do
        {2: 3, 3: 5},
    ]
    whole = drain(Batches(blocks, 8, 0, BLANK, mixed=4), Record())
    for entry in range(4):
        ordinals = [o for batch in whole for o in batch.ordinals[batch.entries == entry].tolist()]
        assert ordinals == list(range(8))


def test_a_batch_that_is_larger_than_all_blocks_held_takes_more_of_them() -> None:
    blocks = [block(samples(entry, 3)) for entry in range(9)]
    found = drain(Batches(blocks, 10, 0, BLANK, mixed=2), Record())
    assert [len(set(batch.entries.tolist())) for batch in found[:2]] == [4, 4]


def test_blocks_are_fetched_as_they_are_needed() -> None:
    fetched: list[int] = []

    def given_() -> Sequence[Columns]:
        for entry in range(9):
            fetched.append(entry)
            yield block(samples(entry, 4))

    batches = Batches(given_(), 4, 0, BLANK, mixed=3)  # type: ignore[arg-type]
    assert fetched == []
    in_memory = []
    for _ in range(5):
        batches.next()
        in_memory.append(len(fetched))
    assert in_memory == [2, 3, 4, 5, 6]


def test_rows_of_another_checkpoint_are_refused() -> None:
    blocks = [block(samples(0, 2), origin=20), block(samples(0, 2, first=2), origin=40)]
    batches = Batches(blocks, 2, 20, BLANK)
    assert batches.next().rows == 2
    with pytest.raises(StreamMismatch, match=r"from step 40.* of step 20"):
        batches.next()
    with pytest.raises(StreamMismatch, match=r"from step 20.* of step 0"):
        Batches([block([(0, 1, col.END)], origin=20)], 2, 0, BLANK).next()


# The notes


def test_notes_come_with_the_batch_that_their_block_was_fetched_for() -> None:
    rows: list[list[Row]] = [
        [*samples(0, 2), (0, 2, col.REJECTED)],
        [(1, 0, col.FILTERED)],
        [*samples(2, 3), (2, 3, col.END)],
        [(3, 0, col.END)],
    ]
    batches = Batches([block(of_one) for of_one in rows], 2, 0, BLANK)
    found = [batches.next() for _ in range(4)]
    markers = [[marker.entry for note in batch.notes for marker in note.markers] for batch in found]
    assert markers == [[0], [1, 2], [3], []]
    assert [batch.rows for batch in found] == [2, 2, 1, 0]


def test_a_block_without_a_sample_is_its_note_alone() -> None:
    only = block([(4, 2, col.REJECTED), (4, 3, col.END)])
    assert only[col.ORDINAL].tolist() == [col.NO_SAMPLE]
    batch = Batches([only], 2, 0, BLANK).next()
    assert (batch.rows, batch.entries.tolist()) == (0, [])
    assert [marker.ordinal for note in batch.notes for marker in note.markers] == [2, 3]


def test_what_is_merged_of_several_calls_is_taken_apart_again() -> None:
    """Ray may join blocks: a row without a sample then stands among others, and there are several notes."""
    parts = [block(samples(0, 2)), block([(0, 2, col.END)]), block([*samples(1, 1), (1, 1, col.REJECTED)])]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    batch = Batches([joined], 9, 0, BLANK).next()
    places = list(zip(batch.entries.tolist(), batch.ordinals.tolist(), strict=True))
    assert places == [(0, 0), (0, 1), (1, 0)]
    assert batch.columns[col.IMAGE_DIGEST][:3].tolist() == [value_of(0), value_of(1), value_of(0)]
    assert [len(note.markers) for note in batch.notes] == [0, 1, 1]


def test_the_wait_of_samples_for_a_worker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", type("Clock", (), {"time": staticmethod(lambda: 100.0)}))
    given_ = block(samples(0, 3))
    given_[col.NOTE][0] = Note(samples=3, made_at=90.0).to_json()
    given_[col.NOTE][1] = Note(samples=2, made_at=101.0).to_json()  # of a machine whose clock is ahead
    batches = Batches([given_], 2, 0, BLANK)
    assert [batches.next().queued for _ in range(2)] == [30.0, 0.0]


# The record


def test_rejected_and_end_rows_go_into_the_record_and_not_into_batches() -> None:
    rows: list[Row] = [*samples(4, 2), (4, 2, col.REJECTED), *samples(4, 1, first=3), (4, 4, col.END)]
    record, batch = Record(), Batches([block(rows)], 8, 0, BLANK).next()
    assert batch.ordinals.tolist() == [0, 1, 3]
    assert record.passed(batch) == ([], [])
    # what is rejected is done; what is not trained on yet is not
    assert record.position.done(4) == [range(2, 3)]
    record.trained(batch)
    assert record.position.remaining(5) == [range(4)]
    place = {"entry": 4, "index": tar_index(2)}
    assert record.rejected == [place | {"key": "key2", "reason": "not a picture"}]


def test_filtered_samples_are_done_told_by_their_index_and_counted_until_the_next_record() -> None:
    rows: list[Row] = [*samples(0, 2), *((0, at, col.FILTERED) for at in (2, 3, 4)), (0, 5, col.END)]
    batch, record = Batches([block(rows)], 8, 0, BLANK).next(), Record()
    assert record.passed(batch) == ([0, 0, 0], [tar_index(at) for at in (2, 3, 4)])
    record.trained(batch)
    position, rejected, filtered = record.take()
    assert position.low == 1
    assert (rejected, filtered) == ([], 3)
    assert record.take()[1:] == ([], 0)


def test_the_records_of_two_workers_merge_to_a_closed_position() -> None:
    """The rows of a shard go to either worker, and its end to one of them."""
    rows: list[Row] = [*samples(0, 9), (0, 9, col.REJECTED), *samples(1, 5)]
    ends: list[Row] = [(0, 10, col.END), (1, 5, col.END)]
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
    assert position.to_json() == {"closed": [0, 2], "open": []}


def test_only_what_was_trained_on_is_recorded_and_each_row_in_one_record() -> None:
    rows: list[Row] = [(0, 6, col.REJECTED), *samples(0, 6), (0, 7, col.REJECTED)]
    batches, record = Batches([block(rows[:3]), block(rows[3:])], 2, 0, BLANK), Record()

    def train(batch: Batch) -> None:
        record.passed(batch)
        record.trained(batch)

    train(batches.next())
    ahead = batches.next()  # fetched, and not trained on when the checkpoint is written
    done, rejected, _ = record.take()
    assert done.done(0) == [range(2), range(6, 7)]
    assert [entry["key"] for entry in rejected] == ["key6"]
    train(ahead)
    train(batches.next())
    done, rejected, _ = record.take()
    assert done.done(0) == [range(2, 6), range(7, 8)]
    assert [entry["key"] for entry in rejected] == ["key7"]
