"""The position knows every row exactly once, over any order of work, crash and number of workers, in little space."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.data.position import Position, PositionError, Ranges

Place = tuple[int, int]
"""Entry and ordinal."""


def stored(position: Position) -> Position:
    """Return the position as a checkpoint gives it back."""
    return Position.from_json(json.loads(json.dumps(position.to_json())))


def ordinals(parts: Iterable[range]) -> set[int]:
    return {ordinal for part in parts for ordinal in part}


# Ranges


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)), max_size=30))
def test_ranges_are_a_set_that_takes_what_it_does_not_hold_whole_or_not_at_all(
    parts: list[tuple[int, int]],
) -> None:
    found, expected = Ranges(), set[int]()
    for start, count in parts:
        new = set(range(start, start + count))
        assert found.add(start, start + count) == expected.isdisjoint(new)
        if expected.isdisjoint(new):
            expected |= new
        assert [number for number in range(50) if number in found] == sorted(expected)
        assert found.bounds == sorted(set(found.bounds))  # ascending, and no two ranges touch
        assert [number for part in found.ranges() for number in part] == sorted(expected)
        assert Ranges.from_json(json.loads(json.dumps(found.to_json()))).bounds == found.bounds


# Exactly once


class Rank:
    """A worker: blocks that it holds, what it has done since the last checkpoint, and what it was shown."""

    def __init__(self) -> None:
        self.record, self.rows = Position(), list[Place]()
        self.blocks = list[list[Place]]()

    def train(self, random_: random.Random) -> None:
        """Take a batch: a part from the front of each of several blocks, whose rows stand in ordinal order."""
        batch = []
        for block in random_.sample(self.blocks, random_.randint(1, len(self.blocks))):
            taken = random_.randint(1, len(block))
            batch.append(block[:taken])
            del block[:taken]
        self.blocks = [block for block in self.blocks if block]
        random_.shuffle(batch)
        if random_.random() < 0.5:
            rows = [place for part in batch for place in part]
            self.record.add_rows([entry for entry, _ in rows], [ordinal for _, ordinal in rows])
        else:
            for part in batch:
                for run in runs(part):
                    self.record.add(*run[0], len(run))
        self.rows += [place for part in batch for place in part]

    def pass_(self, marker: Place, totals: list[int]) -> None:
        """Take in the note of a row that is no sample, or of the end of a shard."""
        entry, ordinal = marker
        if ordinal == totals[entry]:
            self.record.end(entry, ordinal)
        else:
            self.record.add(entry, ordinal)
            self.rows.append(marker)


def runs(places: list[Place]) -> list[list[Place]]:
    """Return neighbouring rows together."""
    found: list[list[Place]] = []
    for entry, ordinal in places:
        if found and found[-1][-1] == (entry, ordinal - 1):
            found[-1].append((entry, ordinal))
        else:
            found.append([(entry, ordinal)])
    return found


def left(
    checkpoint: Position, totals: list[int], random_: random.Random
) -> tuple[list[list[Place]], list[Place]]:
    """Return what the readers give out after a checkpoint: blocks in ordinal order, and markers; entries in turn."""
    queues, markers = [], list[Place]()
    for entry in ordinals(checkpoint.remaining(len(totals))):
        done = ordinals(checkpoint.done(entry))
        rows = [(entry, ordinal) for ordinal in range(totals[entry]) if ordinal not in done]
        is_marker = [random.Random(f"{place}").random() < 0.2 for place in rows]  # at every reading the same
        markers += [place for place, no_sample in zip(rows, is_marker, strict=True) if no_sample]
        markers.append((entry, totals[entry]))
        rows = [place for place, no_sample in zip(rows, is_marker, strict=True) if not no_sample]
        size = random_.randint(1, 5)
        queues.append([rows[at : at + size] for at in range(0, len(rows), size)])
    blocks = []
    while queues := [queue for queue in queues if queue]:
        blocks.append(random_.choice(queues).pop(0))
    random_.shuffle(markers)
    return blocks, markers


def attempt(
    checkpoint: Position, totals: list[int], crashes: bool, random_: random.Random
) -> tuple[Position, list[Place]]:
    """Work from a checkpoint on, to a crash or to the end; return the newest checkpoint and the rows that it counts."""
    blocks, markers = left(checkpoint, totals, random_)
    ranks = [Rank() for _ in range(random_.randint(1, 4))]
    counted: list[Place] = []
    while not (crashes and random_.random() < 0.05):
        rank = random_.choice(ranks)
        if blocks and random_.random() < 0.5:
            rank.blocks.append(blocks.pop(0))
        elif rank.blocks:
            rank.train(random_)
        if markers and random_.random() < 0.4:
            random_.choice(ranks).pass_(markers.pop(), totals)
        is_last = not blocks and not markers and not any(rank.blocks for rank in ranks)
        if is_last or random_.random() < 0.15:
            for rank in ranks:
                checkpoint.merge(stored(rank.record))
                counted += rank.rows
                rank.record, rank.rows = Position(), []
            checkpoint = stored(checkpoint)
        if is_last:
            break
    return stored(checkpoint), counted


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.integers(0, 5),
    st.randoms(use_true_random=True),
)
def test_any_interleaving_of_work_checkpoints_crashes_and_world_sizes_does_every_row_exactly_once(
    totals: list[int], crashes: int, random_: random.Random
) -> None:
    """Ranks take parts of blocks and see markers in any order; only what a checkpoint merged counts."""
    checkpoint, counted = Position(), list[Place]()
    for number in range(crashes + 1):
        saved, rows = attempt(stored(checkpoint), totals, number < crashes, random_)
        checkpoint = saved
        counted += rows
    assert sorted(counted) == [(e, i) for e, total in enumerate(totals) for i in range(total)]
    assert checkpoint.low == len(totals)
    assert checkpoint.remaining(len(totals)) == []
    assert checkpoint.to_json() == {"closed": [0, len(totals)], "open": []}


def test_rows_of_several_entries_are_added_at_once_in_any_order() -> None:
    position = Position()
    position.add_rows([4, 2, 4, 2, 4, 2], [7, 1, 5, 0, 6, 9])
    assert position.done(4) == [range(5, 8)]
    assert position.done(2) == [range(0, 2), range(9, 10)]
    position.add_rows([], [])
    assert position.done(3) == []


def test_what_is_left_are_the_entries_that_are_not_closed_as_ranges() -> None:
    position = Position()
    for entry in (1, 3, 4):
        position.add(entry, 0, 2)
        position.end(entry, 2)
    position.add(5, 0)
    assert position.remaining(9) == [range(0, 1), range(2, 3), range(5, 9)]
    assert position.remaining(5) == [range(0, 1), range(2, 3)]
    assert position.remaining(4) == [range(0, 1), range(2, 3)]
    assert position.low == 0
    position.end(0, 0)
    assert (position.low, position.remaining(2)) == (2, [])
    assert Position().remaining(3) == [range(3)]


# Errors


def test_a_row_that_comes_twice_is_an_error_that_names_it() -> None:
    position = Position()
    position.add(3, 5, 2)
    for first, count in ((5, 1), (4, 2), (6, 9), (0, 100)):
        with pytest.raises(
            PositionError, match=rf"entry 3: rows {first}\.\.{first + count - 1} recorded twice"
        ):
            position.add(3, first, count)
    with pytest.raises(PositionError, match=r"entry 3: rows 6\.\.7 recorded twice"):
        position.add_rows([3, 3], [7, 6])
    assert position.done(3) == [range(5, 7)]
    other = Position()
    other.add(3, 6)
    with pytest.raises(PositionError, match="entry 3"):
        position.merge(other)


def test_a_row_that_comes_twice_in_one_batch_is_an_error() -> None:
    with pytest.raises(PositionError, match=r"entry 0: rows 4\.\.4 recorded twice"):
        Position().add_rows([0, 0], [4, 4])


def closed(entry: int, total: int = 1) -> Position:
    position = Position()
    position.add(entry, 0, total)
    position.end(entry, total)
    return position


def test_a_row_of_a_closed_shard_is_an_error() -> None:
    with pytest.raises(PositionError, match="entry 0"):
        closed(0).add(0, 0)


def test_a_shard_that_two_records_closed_or_one_has_rows_of_is_an_error() -> None:
    with pytest.raises(PositionError, match="entry 2"):
        closed(2).merge(closed(2))
    begun = Position()
    begun.add(2, 0)
    for one, other in ((closed(2), begun), (begun, closed(2))):
        with pytest.raises(PositionError, match="entry 2"):
            one.merge(other)


def test_a_shard_whose_end_alone_is_known_is_closed_by_a_record_of_all_its_rows() -> None:
    position = Position()
    position.end(2, 3)
    position.merge(closed(2, 3))
    assert position.to_json() == {"closed": [2, 1], "open": []}


def test_a_row_beyond_the_end_of_its_shard_is_an_error() -> None:
    position = Position()
    position.end(0, 2)
    with pytest.raises(PositionError, match="row 2 recorded in a shard of 2"):
        position.add(0, 1, 2)
    position = Position()
    position.add(0, 2)
    with pytest.raises(PositionError, match="2 rows, but row 2 is done"):
        position.end(0, 2)


def test_a_shard_that_changed_its_size_is_an_error_and_the_same_end_again_is_none() -> None:
    position = Position()
    position.add(0, 0)
    position.end(0, 5)
    position.end(0, 5)
    with pytest.raises(PositionError, match="4 rows, but 5"):
        position.end(0, 4)


# Its size


def test_the_size_follows_the_work_in_flight_and_not_the_data() -> None:
    position = Position()
    for entry in range(500):
        position.add(entry, 0, 20)
        position.end(entry, 20)
    position.add(700, 3)
    assert position.to_json() == {"closed": [0, 500], "open": [[700, None, [3, 1]]]}


def test_blocks_that_are_consumed_out_of_order_leave_a_few_ranges_of_each_open_shard() -> None:
    """Sixteen blocks of fifty rows are in flight at any time, of four shards that are read side by side."""
    random_, position, entries, total, block = random.Random(0), Position(), 200, 500, 50
    queues = [[(entry, at) for at in range(0, total, block)] for entry in range(entries)]
    flight: list[list[int]] = []
    largest = 0
    while queues or flight:
        while queues and len(flight) < 16:
            entry, at = (queue := random_.choice(queues[:4])).pop(0)
            flight.append([entry, at, at + block])
            if not queue:
                position.end(entry, total)
                queues.remove(queue)
        part = random_.choice(flight)
        count = min(random_.randint(1, 9), part[2] - part[1])
        position.add(part[0], part[1], count)
        part[1] += count
        flight = [part for part in flight if part[1] < part[2]]
        ranges = sum(len(rows) // 2 for _, _, rows in position.to_json()["open"])
        assert ranges <= len(flight) + len({entry for entry, *_ in flight}) + 4  # one between any two blocks
        largest = max(largest, len(json.dumps(position.to_json())))
    assert position.to_json() == {"closed": [0, entries], "open": []}
    assert largest < 1000
