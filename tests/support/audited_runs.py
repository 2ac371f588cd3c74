"""Runs as the audit finds them: tars, plan, ledger and quarantine, all written by hand in the documented formats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import tars

Row = tuple[int, int, int, int]
"""Source, pass, shard, index."""


def tar_bytes(keys: Iterable[str]) -> bytes:
    return tars.tar_bytes(member for key in keys for member in tars.pair(key))


def keys(rows: int) -> list[str]:
    return [f"{number:04d}" for number in range(rows)]


@dataclass
class Run:
    """A folder of a run that is finished, and says so."""

    folder: Path
    sources: list[list[Path]] = field(default_factory=list)
    epochs: int = 2

    @classmethod
    def of(
        cls,
        root: Path,
        *sources: Sequence[int],
        weights: Sequence[float] = (),
        epochs: int = 2,
        seed: int = 0,
    ) -> Run:
        """Make the tars, of so many samples each, and the plan."""
        run = cls(root / "runs" / "r", epochs=epochs)
        (run.folder / "ledger").mkdir(parents=True)
        plan = []
        for source, sizes in enumerate(sources):
            paths = [root / f"source-{source}-{number}.tar" for number in range(len(sizes))]
            for path, rows in zip(paths, sizes, strict=True):
                path.write_bytes(tar_bytes(keys(rows)))
            run.sources.append(paths)
            shards = {
                f"{source}/{path.name}": {"url": str(path), "samples": rows}
                for path, rows in zip(paths, sizes, strict=True)
            }
            plan.append({"weight": weights[source] if weights else 1.0, "shards": shards})
        run.write("shards.json", {"sources": plan})
        patterns = [str(root / f"source-{source}-*.tar") for source in range(len(sources))]
        data = {"shards": patterns, "key_ends_at": "first_dot"}
        run.write("config.json", {"train": {"epochs": epochs}, "run": {"seed": seed}, "data": data})
        run.write("complete.json", {})
        return run

    def write(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value))

    def attempt(
        self, attempt: int, steps: dict[int, list[list[Row]]], from_step: int = 0, kind: str = "trained"
    ) -> None:
        """Write an attempt's ledgers: for each step the rows of each rank."""
        world_size = len(next(iter(steps.values()), [[]]))
        for rank in range(world_size):
            head = {"attempt": attempt, "rank": rank, "world_size": world_size, "from_step": from_step}
            lines = [head, *({"step": step, kind: places(of[rank])} for step, of in steps.items())]
            self.ledger(attempt, rank).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def ledger(self, attempt: int, rank: int) -> Path:
        return self.folder / "ledger" / f"{attempt:04d}-{rank:05d}.jsonl"

    def quarantine(self, *rows: Row, key: str = "0001", reason: str = "no caption") -> None:
        with (self.folder / "quarantine.jsonl").open("a") as file:
            for source, pass_, shard, index in rows:
                path = self.sources[source][shard]
                line = {
                    "step": 5,
                    "source": source,
                    "pass": pass_,
                    "name": f"{source}/{path.name}",
                    "shard": str(path),
                }
                file.write(json.dumps(line | {"index": index, "key": key, "reason": reason}) + "\n")


def places(rows: Iterable[Row]) -> list[list[Any]]:
    """Return rows as a ledger has them, by visit."""
    of_visit: dict[tuple[int, int, int], list[int]] = {}
    for *visit, index in rows:
        of_visit.setdefault((visit[0], visit[1], visit[2]), []).append(index)
    return [[*visit, indices] for visit, indices in of_visit.items()]


def passes(sizes: Sequence[int], epochs: int = 2) -> list[Row]:
    """Return the rows that a run of one source trains on, in some order."""
    return [
        (0, p, shard, i)
        for p in range(epochs)
        for i in range(max(sizes))
        for shard, n in enumerate(sizes)
        if i < n
    ]


def dealt(rows: Sequence[Row], world_size: int, batch: int = 3, first: int = 1) -> dict[int, list[list[Row]]]:
    """Deal rows out to steps from `first` on and to ranks."""
    of_step = batch * world_size
    return {
        first + at // of_step: [
            rows[at + rank * batch : at + (rank + 1) * batch] for rank in range(world_size)
        ]
        for at in range(0, len(rows), of_step)
    }
