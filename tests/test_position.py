"""The schedule visits every shard once an epoch; the position knows every row exactly once."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.data.position import Position, PositionError
from sclip.data.schedule import Schedule


@given(st.integers(0, 9), st.integers(1, 4), st.integers(1, 70))
def test_every_epoch_is_a_permutation_of_the_shards(seed: int, epochs: int, shards: int) -> None:
    schedule = Schedule(seed, epochs, shards)
    for epoch in range(epochs):
        entries = range(epoch * shards, (epoch + 1) * shards)
        assert sorted(map(schedule.shard, entries)) == list(range(shards))
        assert {schedule.epoch(entry) for entry in entries} == {epoch}


def test_the_order_changes_with_the_epoch_and_the_seed() -> None:
    orders = {tuple(Schedule(seed, 2, 50).shard(e) for e in range(50)) for seed in range(3)}
    orders |= {tuple(Schedule(0, 2, 50).shard(e) for e in range(50, 100))}
    assert len(orders) == 4


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_run_of_crashes_and_world_sizes_does_every_row_exactly_once(
    totals: list[int], random_: random.Random
) -> None:
    """Ranks take rows in any order and crash at any time; only what a checkpoint merged counts."""
    checkpoint, trained = Position(), []
    while remaining := list(checkpoint.remaining(len(totals))):
        stream = [(entry, index) for entry in remaining for index in range(totals[entry])]
        stream = [(e, i) for e, i in stream if not any(i in done for done in checkpoint.done(e))]
        stream += [(entry, -1) for entry in remaining]
        random_.shuffle(stream)
        ranks = [(Position(), []) for _ in range(random_.randint(1, 4))]
        crash = random_.randint(1, len(stream))
        for step, (entry, index) in enumerate(stream[:crash]):
            record, rows = random_.choice(ranks)
            if index < 0:
                record.end(entry, totals[entry])
            else:
                record.add(entry, index)
                rows.append((entry, index))
            if random_.random() < 0.2 or step + 1 == len(stream):
                for at, (record, rows) in enumerate(ranks):
                    checkpoint.merge(Position.from_json(record.to_json()))
                    trained += rows
                    ranks[at] = (Position(), [])
                checkpoint = Position.from_json(checkpoint.to_json())
    assert sorted(trained) == [(e, i) for e, total in enumerate(totals) for i in range(total)]
    assert checkpoint.low == len(totals)
    assert checkpoint.to_json() == {"low": len(totals), "closed": [], "open": []}


def test_a_row_that_comes_twice_is_an_error_that_names_it() -> None:
    position = Position()
    position.add(3, 5)
    with pytest.raises(PositionError, match=r"entry 3: rows 5\.\.5 recorded twice"):
        position.add(3, 5)
    other = Position()
    other.add(3, 5)
    with pytest.raises(PositionError, match="entry 3"):
        position.merge(other)


def test_a_row_of_a_closed_shard_is_an_error() -> None:
    position = Position()
    position.end(0, 1)
    position.add(0, 0)
    with pytest.raises(PositionError, match="entry 0"):
        position.add(0, 0)


def test_a_row_beyond_the_end_of_its_shard_is_an_error() -> None:
    position = Position()
    position.end(0, 2)
    with pytest.raises(PositionError, match="row 2 recorded in a shard of 2"):
        position.add(0, 2)


def test_a_shard_that_changed_its_size_is_an_error() -> None:
    position = Position()
    position.add(0, 0)
    position.end(0, 5)
    with pytest.raises(PositionError, match="4 rows, but 5"):
        position.end(0, 4)


def test_the_size_follows_the_work_in_flight_and_not_the_data() -> None:
    position = Position()
    for entry in range(500):
        for index in range(20):
            position.add(entry, index)
        position.end(entry, 20)
    position.add(700, 3)
    assert position.to_json() == {"low": 500, "closed": [], "open": [[700, None, [[3, 4]]]]}
