"""The order of a run's rows, as a pure function of its seed, its shards' recorded counts, `data.open_shards` and batch.

An epoch's visits are cut into rounds. In a round they are dealt to at most `open_shards` tracks of nearly equal
length, and the rows of all tracks are interleaved so that they end together: any stretch of the order takes its part
from every track, within a row. That gives one sequence of places, and step t trains on the places t * batch ..
(t + 1) * batch - 1. So a step's rows are the same for any number of workers and after any crash, and the position in a
checkpoint is the number of its step.

A row is known by its entry in the schedule and its ordinal: its place in the order in which the reader of that visit
mixes the rows of the shard (`mixed`). A place whose row does not exist, cannot be read or is filtered stays empty. Rows
that a shard holds beyond its recorded count are no part of the order until the readers have found them; then they
follow as one more round, from the first step after all others on.

Which worker reads which rows is no part of the order: `Round.share` deals a round to any number of workers.

This module needs the standard library alone.
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
"""Visits of a track in a round: tracks of several shards differ less in length than shards do."""
_TOLERANCE = 0.02
"""Share by which the workers' rows of a round may differ; beyond it, several workers read a track's rows in turns."""
_FIRST_MIXED = 8
"""Samples of a shard that are mixed at its beginning; more from there on, so that the first rows come soon."""

_T = TypeVar("_T")


class Part(NamedTuple):
    """Rows of one visit, ordinals `start` to `stop - 1`."""

    entry: int
    start: int
    stop: int


class Share(NamedTuple):
    """What one worker reads of a track: the rows whose number modulo `split` is one of `turns`."""

    track: int
    split: int
    turns: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """Visits whose rows are interleaved."""

    first: int
    """Place of its first row."""
    tracks: tuple[tuple[Part, ...], ...]
    """Parts of each track, one after the other; none is empty."""

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each track."""
        return tuple(sum(part.stop - part.start for part in track) for track in self.tracks)

    @cached_property
    def stop(self) -> int:
        """Place after its last row."""
        return self.first + sum(self.lengths)

    def place(self, track: int, row: int) -> int:
        """Return the place of a row of a track, both numbered from 0.

        Row i of n of track t of T lies at the share (i + (t + 1/2) / T) / n of the round, and rows are placed by that,
        equal ones by their tracks.
        """
        tracks, length = len(self.lengths), self.lengths[track]
        at = 2 * (tracks * row + track) + 1
        return self.first + sum(
            (at * other_length - (2 * other + 1) * length - (other >= track)) // (2 * tracks * length) + 1
            for other, other_length in enumerate(self.lengths)
        )

    def row_at(self, track: int, place: int) -> int:
        """Return the number of a track's rows before a place."""
        length, rows = self.lengths[track], self.stop - self.first
        guess, error = (place - self.first) * length // rows, len(self.lengths) * length // rows + 2
        low, high = (min(max(0, of), length) for of in (guess - error, guess + error))
        return low + bisect_left(range(low, high), place, key=lambda row: self.place(track, row))

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """Yield the rows at the places `start` to `stop - 1`, in no order."""
        for track in range(len(self.tracks)):
            yield from self.track_parts(track, self.row_at(track, start), self.row_at(track, stop))

    def track_parts(self, track: int, start: int, stop: int | None = None) -> Iterator[Part]:
        """Yield the rows `start` to `stop - 1` of a track; by default to its end."""
        before, stop = 0, self.lengths[track] if stop is None else stop
        for entry, first, last in self.tracks[track]:
            shift = first - before
            before += last - first
            if start + shift < last and stop + shift > first:
                yield Part(entry, max(first, start + shift), min(last, stop + shift))

    def share(self, worker: int, world_size: int) -> list[Share]:
        """Return what a worker reads of each track that it reads of."""
        shares = []
        for track, workers in enumerate(_readers(self.lengths, world_size)):
            if worker in workers:
                turns = tuple(turn for turn, of in enumerate(workers) if of == worker)
                shares.append(Share(track, len(workers), turns))
        return shares

    def rows_of_workers(self, world_size: int, start: int, stop: int) -> list[int]:
        """Return how many of the rows at the places `start` to `stop - 1` each worker reads."""
        rows = [0] * world_size
        for track, workers in enumerate(_readers(self.lengths, world_size)):
            low, high = self.row_at(track, start), self.row_at(track, stop)
            for turn, worker in enumerate(workers):
                rows[worker] += _in_turn(high, len(workers), turn) - _in_turn(low, len(workers), turn)
        return rows


def _in_turn(rows: int, split: int, turn: int) -> int:
    """Return how many of the numbers below `rows` are `turn` modulo `split`."""
    return (rows - turn + split - 1) // split


@lru_cache(maxsize=4)
def _readers(lengths: tuple[int, ...], world_size: int) -> tuple[tuple[int, ...], ...]:
    """Return the workers that read each track, in turns where they are several.

    The shortest tracks have one worker each, as many for every worker; the others are split among so few workers that
    all of them read as many rows, within `_TOLERANCE`. Of all such ways it is the one that reads the fewest rows twice.
    """
    shortest = sorted(range(len(lengths)), key=lambda track: (lengths[track], track))
    best: tuple[int, list[list[int]]] | None = None
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
    """Return the worker of each turn of every track, dealt by their rows, and whether the workers' rows are as many."""
    readers = [[0] * splits.get(track, 1) for track in range(len(lengths))]
    turns = [
        (-_in_turn(length, len(of), turn), track, turn)
        for track, (length, of) in enumerate(zip(lengths, readers, strict=True)) for turn in range(len(of))
    ]  # fmt: skip
    loads = [(0, worker) for worker in range(world_size)]
    for rows, track, turn in sorted(turns):
        load, worker = loads[0]
        readers[track][turn] = worker
        heapq.heapreplace(loads, (load - rows, worker))
    most, least = max(loads)[0], min(loads)[0]
    return readers, most - least <= _TOLERANCE * most


@dataclass(frozen=True)
class Order:
    """The order of a run."""

    schedule: Schedule
    counts: tuple[tuple[int, ...], ...]
    """Recorded samples of each shard of each source."""
    open_shards: int
    batch_size: int
    """Places of a step, over all workers."""
    beyond: Mapping[int, int] = field(default_factory=dict)
    """By entry, the rows that readers have found beyond the recorded count."""

    @cached_property
    def recorded(self) -> int:
        """Places of the rows that are recorded."""
        return self.schedule.samples(self.counts)

    @property
    def recorded_steps(self) -> int:
        """Steps of the rows that are recorded."""
        return -(-self.recorded // self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of all rows."""
        return self.recorded_steps - (-sum(self.beyond.values()) // self.batch_size)

    def count(self, entry: int) -> int:
        """Return the recorded rows of an entry."""
        visit = self.schedule.visit(entry)
        return self.counts[visit.source][visit.shard]

    def rounds(self, step: int = 0, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, Round]]:
        """Yield the rounds `first` to `stop - 1` that hold rows of a step or of one after it, each with its number."""
        place, in_epoch, epochs = step * self.batch_size, self._rounds_of_epoch, self.schedule.epochs
        # Thousands of read tasks ask for a few rounds each: the visits of one epoch are walked, not those of the run.
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
        """Rounds of the run."""
        return self.schedule.epochs * self._rounds_of_epoch + any(self.beyond.values())

    @property
    def _visits(self) -> int:
        """Visits of a round."""
        return self.open_shards * _DEPTH

    @property
    def _rounds_of_epoch(self) -> int:
        return max(1, sum(self.schedule.shards) // self._visits)

    def _recorded_before(self, epoch: int) -> int:
        """Return the recorded rows of the epochs before one."""
        return self.schedule.samples(self.counts, epoch * sum(self.schedule.shards))

    def _entries(self, number: int) -> range:
        """Return the entries of a round; the last one of an epoch also has those that make no round of their own."""
        shards = sum(self.schedule.shards)
        in_epoch = self._rounds_of_epoch
        epoch, of_epoch = divmod(number, in_epoch)
        stop = shards if of_epoch == in_epoch - 1 else (of_epoch + 1) * self._visits
        return range(epoch * shards + of_epoch * self._visits, epoch * shards + stop)

    def _dealt(self, parts: Iterable[Part]) -> tuple[tuple[Part, ...], ...]:
        """Return tracks of nearly equal length: the longest part goes first, each to the shortest track so far."""
        parts = sorted(parts, key=lambda part: (part.start - part.stop, part.entry))
        tracks: list[list[Part]] = [[] for _ in parts[: self.open_shards]]
        shortest = [(0, track) for track in range(len(tracks))]
        for part in parts:
            length, track = heapq.heappop(shortest)
            tracks[track].append(part)
            heapq.heappush(shortest, (length + part.stop - part.start, track))
        return tuple(tuple(sorted(track)) for track in tracks)

    def in_steps(self, step: int = 0) -> Iterator[tuple[int, list[tuple[Round, int, int]]]]:
        """Yield each step from `step` on, with the stretches of places of the rounds that its rows stand in."""
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
        """Yield each step from `step` on, with its rows."""
        for number, stretches in self.in_steps(step):
            yield number, [part for round_, start, stop in stretches for part in round_.parts(start, stop)]

    def rows_of_workers(self, world_size: int, step: int = 0) -> Iterator[list[int]]:
        """Yield, of each step from `step` on, how many of its places each worker reads."""
        for _, stretches in self.in_steps(step):
            rows = [round_.rows_of_workers(world_size, start, stop) for round_, start, stop in stretches]
            yield list(map(sum, zip(*rows, strict=True)))


def mixed(items: Iterable[_T], buffer: int, rng: random.Random) -> Iterator[_T]:
    """Yield the items in an order that `rng` draws, holding at most `buffer` of them.

    How many are held grows with those that came, so that the order depends on nothing but `buffer` and the number of
    items.
    """
    held: list[_T] = []
    for number, item in enumerate(items):
        held.append(item)
        while len(held) > min(buffer, _FIRST_MIXED + number // 2):
            yield _draw(held, rng)
    while held:
        yield _draw(held, rng)


def _draw(held: list[_T], rng: random.Random) -> _T:
    at = rng.randrange(len(held))
    held[at], held[-1] = held[-1], held[at]
    return held.pop()
