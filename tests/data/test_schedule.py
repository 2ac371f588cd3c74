"""The schedule: every pass over a source is a permutation of its shards, and sources get their shares of samples."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclip.data.schedule import Schedule, Visit


def visits(schedule: Schedule) -> list[Visit]:
    return [schedule.visit(entry) for entry in range(len(schedule))]


@given(st.integers(0, 9), st.integers(1, 4), st.integers(1, 70))
def test_every_pass_is_a_permutation_of_the_shards(seed: int, epochs: int, shards: int) -> None:
    schedule = Schedule(seed, epochs, (shards,))
    assert len(schedule) == epochs * shards
    all_visits = visits(schedule)
    for pass_ in range(epochs):
        pass_visits = all_visits[pass_ * shards : (pass_ + 1) * shards]
        assert sorted(visit.shard for visit in pass_visits) == list(range(shards))
        assert {(visit.source, visit.pass_) for visit in pass_visits} == {(0, pass_)}


def test_the_order_changes_with_the_pass_the_seed_and_the_source() -> None:
    orders = {tuple(visit.shard for visit in visits(Schedule(seed, 1, (50,)))) for seed in range(3)}
    orders |= {tuple(visit.shard for visit in visits(Schedule(0, 2, (50,)))[50:])}
    orders |= {tuple(visit.shard for visit in visits(Schedule(0, 1, (1, 50), (1,)))[:50])}
    assert len(orders) == 5


def test_the_order_stays_the_same_in_every_version() -> None:
    """A resumed run must read its remaining entries in the order that it started with."""
    assert [visit.shard for visit in visits(Schedule(seed=0, epochs=2, shards=(8,)))] == [
        2, 4, 6, 1, 5, 3, 7, 0,
        2, 4, 5, 7, 0, 3, 6, 1,
    ]  # fmt: skip


SOURCES = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=9), min_size=1, max_size=3)


@given(st.data(), SOURCES, st.integers(1, 5))
def test_each_source_completes_one_pass_after_another(
    data: st.DataObject, samples: list[list[int]], epochs: int
) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=len(samples), max_size=len(samples)))
    schedule = Schedule.weighted(3, epochs, samples, weights)
    all_visits = visits(schedule)
    assert len(all_visits) == epochs * sum(map(len, samples))
    assert len(set(all_visits)) == len(all_visits)  # a shard comes once in a pass over its source
    for source, shard_samples in enumerate(samples):
        shards = [visit for visit in all_visits if visit.source == source]
        whole, rest = divmod(len(shards), len(shard_samples))
        assert [visit.pass_ for visit in shards] == [k // len(shard_samples) for k in range(len(shards))]
        for pass_ in range(whole):
            pass_shards = [visit.shard for visit in shards if visit.pass_ == pass_]
            assert sorted(pass_shards) == list(range(len(shard_samples)))
        assert len({visit.shard for visit in shards if visit.pass_ == whole}) == rest


@pytest.mark.parametrize(
    ("weights", "shares"),
    [((3.0, 1.0), (0.75, 0.25)), ((1.0, 30.0), (1 / 31, 30 / 31)), ((), (4000 / 4500, 500 / 4500))],
)
def test_a_source_gives_its_share_of_samples_for_any_shard_sizes(
    weights: tuple[float, ...], shares: tuple[float, ...]
) -> None:
    """Without weights, every source is read the same number of times."""
    samples = [[100] * 40, [7, 9, 14, 10, 10] * 10]  # shards of the first source hold ten times as many
    schedule = Schedule.weighted(0, 60, samples, weights)
    counts: Counter[int] = Counter()
    for visit in visits(schedule):
        counts[visit.source] += samples[visit.source][visit.shard]
    assert [counts[source] / counts.total() for source in (0, 1)] == pytest.approx(shares, abs=0.01)


@given(SOURCES, st.integers(1, 5))
def test_the_samples_of_a_run_are_the_sum_over_its_entries(samples: list[list[int]], epochs: int) -> None:
    schedule = Schedule.weighted(1, epochs, samples, range(1, len(samples) + 1))
    entry_samples = [samples[visit.source][visit.shard] for visit in visits(schedule)]
    assert schedule.samples(samples) == sum(entry_samples)
    for entries in range(len(schedule)):
        assert schedule.samples(samples, entries) == sum(entry_samples[:entries])
