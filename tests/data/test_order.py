"""The order of a run gives each row one place, for any shards, batches, workers and restarts."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclip.data.order import Order, Part, Round
from sclip.data.schedule import Schedule

Row = tuple[int, int]
"""Entry and ordinal."""


@st.composite
def orders(draw: st.DrawFn, with_beyond: bool = True) -> Order:
    """Draw an order of one or several sources; some shards are empty, and some hold rows beyond the recorded ones."""
    sizes = st.lists(st.integers(0, 12), min_size=1, max_size=9)
    counts = draw(st.lists(sizes, min_size=1, max_size=3))
    weights = draw(st.lists(st.floats(0.1, 10), min_size=len(counts), max_size=len(counts)))
    schedule = Schedule.weighted(draw(st.integers(0, 9)), draw(st.integers(1, 3)), counts, weights)
    entries = st.integers(0, len(schedule) - 1)
    beyond = draw(st.dictionaries(entries, st.integers(0, 7), max_size=4)) if with_beyond else {}
    open_shards, batch_size = draw(st.integers(1, 4)), draw(st.integers(1, 25))
    return Order(schedule, tuple(map(tuple, counts)), open_shards, batch_size, beyond)


@st.composite
def rounds(draw: st.DrawFn) -> Round:
    """Draw a round of tracks of any length, with one visit per track."""
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=8))
    tracks = tuple((Part(entry, 0, length),) for entry, length in enumerate(lengths))
    return Round(draw(st.integers(0, 100)), tracks)


def rows_of(parts: list[Part] | tuple[Part, ...]) -> list[Row]:
    return [(part.entry, ordinal) for part in parts for ordinal in range(part.start, part.stop)]


def placed(order: Order) -> dict[int, Row]:
    """Map each place to its row; fail the test if two rows have one place."""
    row_of_place: dict[int, Row] = {}
    for _, round_ in order.rounds():
        for track, parts in enumerate(round_.tracks):
            for number, row in enumerate(rows_of(parts)):
                place = round_.place(track, number)
                assert round_.first <= place < round_.stop
                assert place not in row_of_place
                row_of_place[place] = row
    return row_of_place


def test_an_order_of_eight_shards_equals_the_one_computed_by_hand() -> None:
    """The schedule visits shards 2, 4, 6, 1, 5, 3, 7, 0. One track holds shard 2, the other shards 4 and 0."""
    order = Order(Schedule(seed=0, epochs=1, shards=(8,)), ((1, 0, 3, 0, 2, 0, 0, 0),), 2, batch_size=4)
    ((number, round_),) = order.rounds()
    assert (number, round_) == (0, Round(0, ((Part(0, 0, 3),), (Part(1, 0, 2), Part(7, 0, 1)))))
    assert placed(order) == {0: (0, 0), 1: (1, 0), 2: (0, 1), 3: (1, 1), 4: (0, 2), 5: (7, 0)}
    assert list(order.rows()) == [(0, [Part(0, 0, 2), Part(1, 0, 2)]), (1, [Part(0, 2, 3), Part(7, 0, 1)])]
    assert [[share.track for share in round_.share(worker, 2)] for worker in (0, 1)] == [[0], [1]]


@given(orders(with_beyond=False))
def test_every_recorded_row_has_one_place_and_every_place_one_row(order: Order) -> None:
    rows = placed(order)
    assert sorted(rows) == list(range(order.recorded))
    entries = range(len(order.schedule))
    assert sorted(rows.values()) == [(entry, row) for entry in entries for row in range(order.count(entry))]


@given(orders())
def test_rows_beyond_the_recorded_ones_come_last_and_begin_with_a_step(order: Order) -> None:
    recorded = placed(dataclasses.replace(order, beyond={}))
    beyond = {place: row for place, row in placed(order).items() if place not in recorded}
    assert placed(order) == recorded | beyond
    first = order.recorded_steps * order.batch_size
    assert sorted(beyond) == list(range(first, first + sum(order.beyond.values())))
    assert sorted(beyond.values()) == [
        (entry, order.count(entry) + n) for entry, rows in sorted(order.beyond.items()) for n in range(rows)
    ]


@given(orders())
def test_a_step_has_the_rows_of_its_places_and_the_last_step_the_rest(order: Order) -> None:
    all_rows, size = placed(order), order.batch_size
    steps = list(order.rows())
    assert [step for step, _ in steps] == list(range(order.steps))
    for step, parts in steps:
        places = range(step * size, (step + 1) * size)
        assert sorted(rows_of(parts)) == sorted(all_rows[place] for place in places if place in all_rows)


@given(orders(), st.data())
def test_the_order_from_a_step_on_is_the_tail_of_the_whole_order(order: Order, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, order.steps + 1))
    assert list(order.rows(step)) == list(order.rows())[step:]
    whole = list(order.rounds())
    assert all(number < order.num_rounds for number, _ in whole)
    tail = [(number, round_) for number, round_ in whole if round_.stop > step * order.batch_size]
    assert list(order.rounds(step)) == tail
    first, stop = (data.draw(st.integers(0, order.num_rounds)) for _ in range(2))
    assert list(order.rounds(step, first, stop)) == [item for item in tail if first <= item[0] < stop]


@given(rounds(), st.data())
def test_any_stretch_takes_a_proportional_part_of_every_track(round_: Round, data: st.DataObject) -> None:
    """A stretch of k places takes k n / N of a track's n rows, within 1 + T n / N rows (N rows in T tracks)."""
    start = data.draw(st.integers(round_.first, round_.stop))
    stop = data.draw(st.integers(start, round_.stop))
    rows, tracks = sum(round_.lengths), len(round_.lengths)
    for track, length in enumerate(round_.lengths):
        places = [round_.place(track, row) for row in range(length)]
        assert [round_.row_at(track, bound) for bound in (start, stop)] == [
            sum(place < bound for place in places) for bound in (start, stop)
        ]
        num_rows = round_.row_at(track, stop) - round_.row_at(track, start)
        assert abs(num_rows * rows - (stop - start) * length) < rows + tracks * length


@given(rounds(), st.integers(1, 12))
def test_workers_split_the_rows_of_a_round_and_differ_by_at_most_two_percent(
    round_: Round, world_size: int
) -> None:
    readers: Counter[Row] = Counter()
    loads = []
    for worker in range(world_size):
        rows = [
            (share.track, row) for share in round_.share(worker, world_size)
            for row in range(round_.lengths[share.track]) if row % share.split in share.turns
        ]  # fmt: skip
        readers.update(rows)
        loads.append(len(rows))
    assert readers == {(track, row): 1 for track, rows in enumerate(round_.lengths) for row in range(rows)}
    assert round_.rows_of_workers(world_size, round_.first, round_.stop) == loads
    assert max(loads) - min(loads) <= max(1, 0.02 * max(loads))


def test_a_round_of_many_shards_is_computed_from_a_few_visits_of_its_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    visits = 0

    def counted(schedule: Schedule, source: int, pass_: int, index: int) -> int:
        nonlocal visits
        visits += 1
        return permuted(schedule, source, pass_, index)

    permuted = Schedule._permuted
    monkeypatch.setattr(Schedule, "_permuted", counted)
    shards, epochs, size = 100_000, 30, 1000
    order = Order(Schedule(0, epochs, (shards,)), (tuple(1000 + n % 7 for n in range(shards)),), 32, size)
    epoch_rows = sum(order.counts[0])
    assert (order.recorded, order.steps) == (epochs * epoch_rows, -(-epochs * epoch_rows // size))
    assert visits == 0
    number, round_ = next(order.rounds(20 * epoch_rows // size + 1))
    assert (number, round_.first, len(round_.lengths)) == (20 * (shards // 128), 20 * epoch_rows, 32)
    assert len(list(order.rounds(0, first=number + 1, stop=number + 2))) == 1
    assert visits == 3 * 128
