"""What each rank trained on, step by step, in files of its own: the evidence that `sclip.run.audit` reads.

    ledger/ATTEMPT-RANK.jsonl    {"attempt", "rank", "world_size", "from_step"}, then a line for each step with rows:
                                 {"step", "trained": [[source, pass, shard, [indices]], ...], "filtered": the same}

In an object store, where a file cannot grow, each checkpoint begins a part, ATTEMPT-RANK-PART.jsonl of the same form.

It is written after `optimizer.step` and shares nothing with the position in the checkpoints. An attempt is one start
of the workers; its steps beyond the one that a later attempt went on from were rolled back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sclip.data.schedule import Schedule
from sclip.storage.paths import StoragePath
from sclip.train.collectives import gather_json

__all__ = ["Ledger"]


class Ledger:
    """The files of one rank in this attempt; made by all ranks together.

    Args:
        folder: of the run.
        schedule: tells what an entry visits.
        rank: this worker's.
        world_size: number of workers.
        from_step: step of the checkpoint that the attempt goes on from.
    """

    def __init__(
        self, folder: StoragePath, schedule: Schedule, rank: int, world_size: int, from_step: int
    ) -> None:
        self._schedule = schedule
        path: StoragePath = folder / "ledger"
        path.mkdir(parents=True, exist_ok=True)
        attempts = [int(file.name.partition("-")[0]) for file in path.glob("*.jsonl")] if rank == 0 else []
        # rank 0 says which attempt it is: the others may already see its file
        attempt = gather_json({"attempt": max(attempts, default=-1) + 1})[0]["attempt"]
        head = {"attempt": attempt, "rank": rank, "world_size": world_size, "from_step": from_step}
        name = f"{attempt:04d}-{rank:05d}"
        self._lines = _File(path / f"{name}.jsonl") if isinstance(path, Path) else _Parts(path, name)
        self._lines.begin(_line(head))

    def add(
        self,
        step: int,
        trained: tuple[Sequence[int], Sequence[int]],
        filtered: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Write what was trained on in a step and what was left out before it, each as entries and indices."""
        line: dict[str, Any] = {"step": step}
        if trained[0]:
            line["trained"] = self._places(*trained)
        if filtered[0]:
            line["filtered"] = self._places(*filtered)
        if len(line) > 1:
            self._lines.add(_line(line))

    def sync(self) -> None:
        """Bring what was written into the storage; before a checkpoint that counts on it is whole."""
        self._lines.sync()

    def close(self) -> None:
        """Write nothing more. What was not synced may be lost, as what a checkpoint does not count on may be."""
        self._lines.close()

    def _places(self, entries: Sequence[int], indices: Sequence[int]) -> list[list[Any]]:
        of_entry: dict[int, list[int]] = {}
        for entry, index in zip(entries, indices, strict=True):
            of_entry.setdefault(entry, []).append(index)
        return [[*self._schedule.visit(entry), found] for entry, found in of_entry.items()]


class _File:
    """Lines of a file on a disk, each there as soon as it is added."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def begin(self, head: str) -> None:
        self.add(head)

    def add(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _Parts:
    """Lines of files of an object store, each with the head, one for each time that there are new ones to sync."""

    def __init__(self, folder: StoragePath, name: str) -> None:
        self._folder, self._name = folder, name
        self._head, self._part = "", 0
        self._lines: list[str] = []

    def begin(self, head: str) -> None:
        self._head = head
        self._put()

    def add(self, line: str) -> None:
        self._lines.append(line)

    def sync(self) -> None:
        if self._lines:
            self._put()

    def close(self) -> None:
        self._lines.clear()

    def _put(self) -> None:
        part = self._folder / f"{self._name}-{self._part:05d}.jsonl"
        part.write_text("".join([self._head, *self._lines]))
        self._part += 1
        self._lines.clear()


def _line(line: dict[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"
