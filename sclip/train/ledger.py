"""What each rank trained on, step by step, in files of its own: the evidence that `sclip.audit` reads.

    ledger/ATTEMPT-RANK.jsonl    {"attempt", "rank", "world_size", "from_step"}, then a line for each step with rows:
                                 {"step", "trained": [[source, pass, shard, [indices]], ...], "filtered": the same}

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
from sclip.train.collectives import gather_json

__all__ = ["Ledger"]


class Ledger:
    """The file of one rank in this attempt; made by all ranks together.

    Args:
        folder: of the run.
        schedule: tells what an entry visits.
        rank: this worker's.
        world_size: number of workers.
        from_step: step of the checkpoint that the attempt goes on from.
    """

    def __init__(self, folder: Path, schedule: Schedule, rank: int, world_size: int, from_step: int) -> None:
        self._schedule = schedule
        path = folder / "ledger"
        path.mkdir(parents=True, exist_ok=True)
        attempts = [int(file.name.partition("-")[0]) for file in path.glob("*.jsonl")] if rank == 0 else []
        # rank 0 says which attempt it is: the others may already see its file
        attempt = gather_json({"attempt": max(attempts, default=-1) + 1})[0]["attempt"]
        self._file = (path / f"{attempt:04d}-{rank:05d}.jsonl").open("a")
        self._write({"attempt": attempt, "rank": rank, "world_size": world_size, "from_step": from_step})

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
            self._write(line)

    def sync(self) -> None:
        """Bring what was written onto the disk; before a checkpoint that counts on it is whole."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _places(self, entries: Sequence[int], indices: Sequence[int]) -> list[list[Any]]:
        of_entry: dict[int, list[int]] = {}
        for entry, index in zip(entries, indices, strict=True):
            of_entry.setdefault(entry, []).append(index)
        return [[*self._schedule.visit(entry), found] for entry, found in of_entry.items()]

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()
