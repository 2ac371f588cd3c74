"""Record in files of each rank which rows it trained on in each step; `sclip.run.audit` reads these files as evidence.

ledger/ATTEMPT-RANK.jsonl    {"attempt", "rank", "world_size", "from_step"}, then a line for each step with rows:
                             {"step", "trained": [[source, pass, shard, [indices]], ...], "filtered": [...]}

An attempt is one start of the workers. If it resumes from step N, it undoes the steps after N of earlier attempts. A
line is written after `optimizer.step`, and lists the rows that really arrived in the batch. Rows in "filtered" arrived
but were not trained on, because their captions do not reach data.min_objects, min_attributes and min_relations.

Files in an object store cannot grow. There, each checkpoint writes another file, ATTEMPT-RANK-PART.jsonl.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sclip.data.schedule import Schedule
from sclip.storage.paths import StoragePath
from sclip.train.ranks import gather_json

__all__ = ["Ledger"]


class Ledger:
    """The files of one rank in this attempt. All ranks create it together.

    `folder` is the run's folder, `from_step` the step of the checkpoint that the attempt resumes from.
    """

    def __init__(
        self, folder: StoragePath, schedule: Schedule, rank: int, world_size: int, from_step: int
    ) -> None:
        self._schedule = schedule
        path: StoragePath = folder / "ledger"
        path.mkdir(parents=True, exist_ok=True)
        attempts = [int(file.name.partition("-")[0]) for file in path.glob("*.jsonl")] if rank == 0 else []
        # Only rank 0 chooses the attempt's number: the other ranks might already see rank 0's new file.
        attempt = gather_json({"attempt": max(attempts, default=-1) + 1})[0]["attempt"]
        head = {"attempt": attempt, "rank": rank, "world_size": world_size, "from_step": from_step}
        name = f"{attempt:04d}-{rank:05d}"
        self._lines = (
            _LocalLines(path / f"{name}.jsonl") if isinstance(path, Path) else _ObjectLines(path, name)
        )
        self._lines.begin(_line(head))

    def add(
        self,
        step: int,
        trained: tuple[Sequence[int], Sequence[int]],
        filtered: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Write a line with the rows of a step, or nothing if the step has no rows.

        `trained` and `filtered` each hold the schedule entries of the rows, and the rows' indices in their shards.
        """
        line: dict[str, Any] = {"step": step}
        if trained[0]:
            line["trained"] = self._by_visit(*trained)
        if filtered[0]:
            line["filtered"] = self._by_visit(*filtered)
        if len(line) > 1:
            self._lines.add(_line(line))

    def sync(self) -> None:
        """Make the written lines survive a crash. Call it before a checkpoint that counts these lines."""
        self._lines.sync()

    def close(self) -> None:
        """Close the files. Lines since the last `sync` may be lost."""
        self._lines.close()

    def _by_visit(self, entries: Sequence[int], indices: Sequence[int]) -> list[list[Any]]:
        groups: dict[int, list[int]] = {}
        for entry, index in zip(entries, indices, strict=True):
            groups.setdefault(entry, []).append(index)
        return [[*self._schedule.visit(entry), entry_indices] for entry, entry_indices in groups.items()]


class _LocalLines:
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


class _ObjectLines:
    """Lines in an object store. Each `sync` with new lines writes another file, which begins with the head line."""

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
