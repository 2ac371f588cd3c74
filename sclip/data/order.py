"""Define the order of a run's rows: a pure function of seed, recorded shard counts, `data.open_shards` and batch size.

A visit is one reading of one shard. An epoch's visits are split into rounds. A round deals its visits to at most
`open_shards` tracks of nearly equal length (number of rows). The visits of a track are read one after another. The rows
of all tracks are interleaved so that the tracks end together. The place of a row is its position in the whole sequence.
Step t trains on the places t * batch_size to (t + 1) * batch_size - 1. A step therefore has the same rows for any
number of workers and after any crash, and a checkpoint stores its position as the step number alone.

Two numbers identify a row: its schedule entry (the number of its visit) and its ordinal. A visit's reader shuffles
the rows of the shard (`mixed`), and the ordinal is the row's index among the shuffled rows. A place stays empty
if its row does not exist, is unreadable or is filtered. Rows beyond a shard's recorded count are added to the order
when readers find them; they form one extra round after the steps of all recorded rows.

The order does not say which worker reads which rows: `Round.share` deals a round to any number of workers.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple, TypeVar

from sclip.data.schedule import Schedule

_DEPTH = 4
"""Mean number of visits (shard readings) per track in a round. More visits make the tracks more equal in length."""
_TOLERANCE = 0.02
"""Relative difference of the workers' row counts in a round above which tracks are split further, if possible."""
_FIRST_MIXED = 8
"""Buffer size of `mixed` at the start of a shard: small, so that the first rows come soon."""

_T = TypeVar("_T")


class Part(NamedTuple):
    """Consecutive rows of one visit (one reading of a shard): indices `start` to `stop - 1` of its shuffled rows."""

    entry: int
    start: int
    stop: int


class Share(NamedTuple):
    """The rows of a track (shards read one after another) that one worker takes.

    The worker takes row i if i % `split` is in `turns`: with split 2 and turns (0,), every second row.
    """

    track: int
    split: int
    turns: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """Visits (readings of shards) that are dealt to tracks. The rows of the tracks are interleaved."""

    first: int
    """Place (position in the run's order) of the round's first row."""
    tracks: tuple[tuple[Part, ...], ...]
    """For each track, the parts that are read one after another. No track is empty."""

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Number of rows of each track (shards read one after another)."""
        return tuple(sum(part.stop - part.start for part in track) for track in self.tracks)

    @cached_property
    def stop(self) -> int:
        """Place after the round's last row."""
        return self.first + sum(self.lengths)

    def place(self, track: int, row: int) -> int:
        """Return the place (position in the run's order) of row number `row` in track number `track`."""
        # Row i of n in track t of T has the relative position (i + (t + 1/2) / T) / n in the round; at equal positions,
        # the lower track comes first.
        tracks, length = len(self.lengths), self.lengths[track]
        key = 2 * (tracks * row + track) + 1
        return self.first + sum(
            (key * other_length - (2 * other + 1) * length - (other >= track)) // (2 * tracks * length) + 1
            for other, other_length in enumerate(self.lengths)
        )

    def row_at(self, track: int, place: int) -> int:
        """Return how many rows of a track have a lower place than `place`."""
        length, rows = self.lengths[track], self.stop - self.first
        guess, error = (place - self.first) * length // rows, len(self.lengths) * length // rows + 2
        low, high = (min(max(0, bound), length) for bound in (guess - error, guess + error))
        return low + bisect_left(range(low, high), place, key=lambda row: self.place(track, row))

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """Yield the parts that make up the places `start` to `stop - 1`, in no particular order."""
        for track in range(len(self.tracks)):
            yield from self.track_parts(track, self.row_at(track, start), self.row_at(track, stop))

    def track_parts(self, track: int, start: int, stop: int | None = None) -> Iterator[Part]:
        """Yield the parts that make up the rows `start` to `stop - 1` of a track; by default to the track's end."""
        before, stop = 0, self.lengths[track] if stop is None else stop
        for entry, first, last in self.tracks[track]:
            shift = first - before
            before += last - first
            if start + shift < last and stop + shift > first:
                yield Part(entry, max(first, start + shift), min(last, stop + shift))

    def share(self, worker: int, world_size: int) -> list[Share]:
        """Return the worker's share of each track that it reads from."""
        shares = []
        for track, workers in enumerate(_readers(self.lengths, world_size)):
            if worker in workers:
                turns = tuple(turn for turn, owner in enumerate(workers) if owner == worker)
                shares.append(Share(track, len(workers), turns))
        return shares

    def rows_of_workers(self, world_size: int, start: int, stop: int) -> list[int]:
        """Return the number of rows that each worker reads at the places `start` to `stop - 1`."""
        rows = [0] * world_size
        for track, workers in enumerate(_readers(self.lengths, world_size)):
            low, high = self.row_at(track, start), self.row_at(track, stop)
            for turn, worker in enumerate(workers):
                rows[worker] += _in_turn(high, len(workers), turn) - _in_turn(low, len(workers), turn)
        return rows


def _in_turn(rows: int, split: int, turn: int) -> int:
    """Return how many numbers n in 0 .. rows - 1 have n % split == turn."""
    return (rows - turn + split - 1) // split


@lru_cache(maxsize=4)
def _readers(lengths: tuple[int, ...], world_size: int) -> tuple[tuple[int, ...], ...]:
    """Return the workers that read each track. If n workers read a track, worker number i % n takes row i.

    Every worker of a shared track reads the whole track. The function tries several assignments. It returns the one
    with the fewest rows to read among those whose row counts differ by at most `_TOLERANCE`. If none of them is so
    even, every track is split into `world_size` turns.
    """
    shortest = sorted(range(len(lengths)), key=lambda track: (lengths[track], track))
    best: tuple[int, list[list[int]]] | None = None
    # In each try, the shortest tracks have one worker each, and all others the same number, `split`.
    for whole in range(len(lengths) // world_size, -1, -1):
        split = 1
        while True:
            splits = dict.fromkeys(shortest[whole * world_size :], split)
            cost = sum(length * splits.get(track, 1) for track, length in enumerate(lengths))
            if best is None or cost < best[0]:
                readers, is_even = _dealt_to(lengths, splits, world_size)
                if is_even or (whole == 0 and split >= world_size):
                    best = cost, readers
            if split >= world_size:
                break
            split = min(2 * split, world_size)
    assert best is not None
    return tuple(map(tuple, best[1]))


def _dealt_to(
    lengths: Sequence[int], splits: Mapping[int, int], world_size: int
) -> tuple[list[list[int]], bool]:
    """Return the workers of each track, and whether the workers have nearly equal row counts.

    `splits` maps tracks to their number of workers; the default is 1.
    """
    readers = [[0] * splits.get(track, 1) for track in range(len(lengths))]
    turns = [
        (-_in_turn(length, len(workers), turn), track, turn)
        for track, (length, workers) in enumerate(zip(lengths, readers, strict=True)) for turn in range(len(workers))
    ]  # fmt: skip
    loads = [(0, worker) for worker in range(world_size)]
    for rows, track, turn in sorted(turns):  # the largest first
        load, worker = loads[0]
        readers[track][turn] = worker
        heapq.heapreplace(loads, (load - rows, worker))
    most, least = max(loads)[0], min(loads)[0]
    return readers, most - least <= _TOLERANCE * most


@dataclass(frozen=True)
class Order:
    """The order of a run's rows."""

    schedule: Schedule
    counts: tuple[tuple[int, ...], ...]
    """Recorded sample count of each shard of each source."""
    open_shards: int
    batch_size: int
    """Places (rows, or gaps for unusable rows) per step, over all workers."""
    beyond: Mapping[int, int] = field(default_factory=dict)
    """Number of rows that readers found beyond a shard's recorded count, by schedule entry (one visit of the shard)."""

    @cached_property
    def recorded(self) -> int:
        """Recorded row count of the whole run."""
        return self.schedule.samples(self.counts)

    @property
    def recorded_steps(self) -> int:
        """Number of steps for the rows within the shards' recorded sample counts."""
        return -(-self.recorded // self.batch_size)

    @property
    def steps(self) -> int:
        """Number of steps for all rows, including rows found beyond a shard's recorded count (`beyond`)."""
        return self.recorded_steps - (-sum(self.beyond.values()) // self.batch_size)

    def count(self, entry: int) -> int:
        """Return the recorded row count of the shard that an entry reads."""
        visit = self.schedule.visit(entry)
        return self.counts[visit.source][visit.shard]

    def rounds(self, step: int = 0, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, Round]]:
        """Yield (number, round) for the rounds `first` to `stop - 1` that hold rows of step `step` or later."""
        place, in_epoch, epochs = step * self.batch_size, self._rounds_of_epoch, self.schedule.epochs
        # Thousands of read tasks ask for a few rounds each, so this walks the visits of one epoch, not of the run.
        epoch = first // in_epoch
        if not epoch:
            epoch = min(epochs, place * epochs // max(1, self.recorded))
            while self._recorded_before(epoch) > place:
                epoch -= 1
        start, last = self._recorded_before(epoch), epochs * in_epoch
        for number in range(epoch * in_epoch, last if stop is None else min(last, stop)):
            visits = [
                Part(entry, 0, count) for entry in self._entries(number) if (count := self.count(entry))
            ]
            rows = sum(visit.stop for visit in visits)
            if number >= first and rows and start + rows > place:
                yield number, Round(start, self._dealt(visits))
            start += rows
        beyond = [
            Part(entry, count := self.count(entry), count + rows)
            for entry, rows in sorted(self.beyond.items()) if rows
        ]  # fmt: skip
        if beyond and step < self.steps and first <= last and (stop is None or last < stop):
            yield last, Round(self.recorded_steps * self.batch_size, self._dealt(beyond))

    @property
    def num_rounds(self) -> int:
        """Number of rounds in the run."""
        return self.schedule.epochs * self._rounds_of_epoch + any(self.beyond.values())

    @property
    def _visits(self) -> int:
        """Number of visits in each round but the last of an epoch."""
        return self.open_shards * _DEPTH

    @property
    def _rounds_of_epoch(self) -> int:
        return max(1, sum(self.schedule.shards) // self._visits)

    def _recorded_before(self, epoch: int) -> int:
        return self.schedule.samples(self.counts, epoch * sum(self.schedule.shards))

    def _entries(self, number: int) -> range:
        """Return the entries of a round. The last round of an epoch also takes the remaining entries."""
        shards = sum(self.schedule.shards)
        in_epoch = self._rounds_of_epoch
        epoch, index = divmod(number, in_epoch)
        stop = shards if index == in_epoch - 1 else (index + 1) * self._visits
        return range(epoch * shards + index * self._visits, epoch * shards + stop)

    def _dealt(self, parts: Iterable[Part]) -> tuple[tuple[Part, ...], ...]:
        """Deal parts to tracks of nearly equal length: the longest part first, each to the shortest track so far."""
        parts = sorted(parts, key=lambda part: (part.start - part.stop, part.entry))
        tracks: list[list[Part]] = [[] for _ in parts[: self.open_shards]]
        shortest = [(0, track) for track in range(len(tracks))]
        for part in parts:
            length, track = heapq.heappop(shortest)
            tracks[track].append(part)
            heapq.heappush(shortest, (length + part.stop - part.start, track))
        return tuple(tuple(sorted(track)) for track in tracks)

    def in_steps(self, step: int = 0) -> Iterator[tuple[int, list[tuple[Round, int, int]]]]:
        """Yield (step number, stretches) for each step from `step` on.

        A stretch (round, start, stop) is a part of the step within one round: the places `start` to `stop - 1`.
        """
        stretches: list[tuple[Round, int, int]] = []
        for _, round_ in self.rounds(step):
            while (start := max(round_.first, step * self.batch_size)) < round_.stop:
                end = (step + 1) * self.batch_size
                stretches.append((round_, start, min(round_.stop, end)))
                if round_.stop < end:
                    break
                yield step, stretches
                step, stretches = step + 1, []
        if stretches:
            yield step, stretches

    def rows(self, step: int = 0) -> Iterator[tuple[int, list[Part]]]:
        """Yield each step from `step` on, with its rows as parts."""
        for number, stretches in self.in_steps(step):
            yield number, [part for round_, start, stop in stretches for part in round_.parts(start, stop)]

    def rows_of_workers(self, world_size: int, step: int = 0) -> Iterator[list[int]]:
        """Yield the number of rows that each worker reads in a step, for each step from `step` on."""
        for _, stretches in self.in_steps(step):
            rows = [round_.rows_of_workers(world_size, start, stop) for round_, start, stop in stretches]
            yield list(map(sum, zip(*rows, strict=True)))


def mixed(items: Iterable[_T], buffer: int, rng: random.Random) -> Iterator[_T]:
    """Yield the items in a random order, buffering at most `buffer` items.

    The order depends only on `rng`, `buffer` and the number of items.
    """
    held: list[_T] = []
    for number, item in enumerate(items):
        held.append(item)
        while len(held) > min(buffer, _FIRST_MIXED + number // 2):
            yield _draw(held, rng)
    while held:
        yield _draw(held, rng)


def _draw(held: list[_T], rng: random.Random) -> _T:
    index = rng.randrange(len(held))
    held[index], held[-1] = held[-1], held[index]
    return held.pop()
