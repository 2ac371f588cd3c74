"""What a very long schedule costs the driver: time and memory of its plan, and the size of its position.

The real schedule, read tasks and position, in a process of its own, without reading a shard: a thousand ranks take
blocks as the readers of a cluster would give them out, a little out of order, hold several at a time in parts, and tell
what they have trained on at every checkpoint. `python -m sclip.benchmark.stream_plan` is that process.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.benchmark.machine import memory_bytes
from sclip.config import Config
from sclip.data.position import Position
from sclip.data.reader import ReadSettings
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.stream import StreamPlan, chunks

__all__ = ["Scale", "planned", "simulate"]


@dataclass(frozen=True)
class Scale:
    """How much there is to go through, and by how many."""

    shards: int = 100_000
    per_shard: int = 10_000
    ranks: int = 1000
    readers: int = 1000
    """Read tasks at the same time."""
    block: int = 64
    held: int = 8
    """Blocks that a rank takes parts of."""
    window: int = 4096
    """Blocks that an encoder may be late by: those in the hands of the pool."""
    every: int = 500
    """Blocks of a rank from one checkpoint to the next."""
    rows: int = 0
    """Rows after which no more are taken, at the end of a checkpoint; 0: all."""


@dataclass
class _Readers:
    """Which block comes next: readers take turns, each goes through the entries of a read task one after the other."""

    scale: Scale
    chunks: deque[range]

    def blocks(self) -> Iterator[NDArray[np.int64]]:
        """Yield [n, 3]: entry, first row and rows of each block of a turn; n is the number of readers at work."""
        at: list[range] = [self.chunks.popleft() for _ in range(min(self.scale.readers, len(self.chunks)))]
        entry = np.array([chunk.start for chunk in at], np.int64)
        stop = np.array([chunk.stop for chunk in at], np.int64)
        row = np.zeros(len(at), np.int64)
        while len(entry):
            rows = np.minimum(self.scale.block, self.scale.per_shard - row)
            yield np.stack([entry, row, rows], axis=1)
            row = row + rows
            ended = row == self.scale.per_shard
            entry, row = entry + ended, np.where(ended, 0, row)
            for reader in np.flatnonzero(entry == stop):
                if self.chunks:
                    chunk = self.chunks.popleft()
                    entry[reader], stop[reader] = chunk.start, chunk.stop
            left = entry < stop
            entry, stop, row = entry[left], stop[left], row[left]


def _out_of_order(scale: Scale, blocks: Iterator[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
    """Yield the blocks between two checkpoints, [n, 3]: each comes up to `window` places late."""
    random, wanted = np.random.default_rng(0), scale.ranks * scale.every
    made = count = 0
    held: list[NDArray[np.int64]] = []
    keys: list[NDArray[Any]] = []

    def sorted_until(limit: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
        all_blocks, key = np.concatenate(held), np.concatenate(keys)
        order = np.argsort(key, kind="stable")
        ready = order[key[order] < limit]
        late = order[len(ready) :]
        return all_blocks[ready], all_blocks[late], key[late]

    for turn in blocks:
        held.append(turn)
        keys.append(made + np.arange(len(turn)) + scale.window * random.random(len(turn)))
        made, count = made + len(turn), count + len(turn)
        if count >= wanted + scale.window:
            ready, late, key = sorted_until(made)
            yield ready
            held, keys, count = [late], [key], len(late)
    if held:
        yield sorted_until(float("inf"))[0]


def simulate(scale: Scale, chunks: list[range], position: Position) -> int:
    """Take the rows of the schedule into the position, as ranks do; return the bytes of the largest checkpoint's."""
    begun: list[list[tuple[int, int, int, bool]]] = [[] for _ in range(scale.ranks)]
    largest = taken = 0
    blocks = _out_of_order(scale, _Readers(scale, deque(chunks)).blocks())
    following = next(blocks, None)
    while following is not None:
        current, following = following, next(blocks, None)
        for rank in range(scale.ranks):
            new = [(*block, True) for block in current[rank :: scale.ranks].tolist()]
            record, begun[rank] = _record(scale, begun[rank] + new, last=following is None)
            position.merge(Position.from_json(json.loads(json.dumps(record.to_json()))))
        largest = max(largest, len(json.dumps(position.to_json())))
        taken += int(current[:, 2].sum())
        if 0 < scale.rows <= taken:
            break
    return largest


def _record(
    scale: Scale, blocks: list[tuple[int, int, int, bool]], last: bool
) -> tuple[Position, list[tuple[int, int, int, bool]]]:
    """Return what a rank has done since the last checkpoint, and the blocks (entry, row, rows, new) it is within."""
    record = Position()
    whole = len(blocks) if last else max(0, len(blocks) - scale.held)
    begun = []
    for place, (entry, row, rows, new) in enumerate(blocks):
        if new and row + rows == scale.per_shard:
            record.end(entry, scale.per_shard)
        done = rows if place < whole else rows * (len(blocks) - place) // (scale.held + 1)
        if done:
            record.add(entry, row, done)
        if done < rows:
            begun.append((entry, row + done, rows - done, False))
    return record, begun


def planned(scale: Scale) -> dict[str, float]:
    """Return seconds and bytes of a plan of this scale and of its position, up to the end of the schedule.

    Memory counts from before the plan: what Ray and its libraries take is not in it.
    """
    from sclip.data import stream
    from sclip.launch import cluster

    cluster.connect()
    stream.build(_plan(Scale(shards=2)), Position(), 0)  # what Ray loads and starts for any stream
    before = memory_bytes("VmRSS")
    started = time.perf_counter()
    plan = _plan(scale)
    stream.build(plan, Position(), 0)
    plan_s, plan_bytes = time.perf_counter() - started, memory_bytes("VmHWM") - before
    started = time.perf_counter()
    position = Position()
    position_bytes = simulate(scale, chunks(plan.schedule, position), position)
    if not scale.rows and position.low != len(plan.schedule):
        raise AssertionError(f"{position.low} of {len(plan.schedule)} entries closed at the end")
    return {
        "plan_s": plan_s, "plan_bytes": plan_bytes, "position_bytes": position_bytes,
        "simulated_s": time.perf_counter() - started, "peak_bytes": memory_bytes("VmHWM") - before,
        "whole_bytes": memory_bytes("VmHWM"),
    }  # fmt: skip


def _plan(scale: Scale) -> StreamPlan:
    folder = "s3://bucket/a-folder-of-photographs"
    shards = tuple(NamedShard(f"0/{n:08d}.tar", f"{folder}/{n:08d}.tar") for n in range(scale.shards))
    return StreamPlan(ReadSettings(Config()), Schedule(0, 1, (len(shards),)), (shards,), 224, (1, 1))


if __name__ == "__main__":
    print(json.dumps(planned(Scale(**json.loads(sys.argv[1])))))
