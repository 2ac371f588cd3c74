"""Hand-written run folders for the audit: tars, plan, ledger and quarantine in the documented formats.

The rows of each step are those that the shard reader yields from the tars.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from sclip.config import Config, DataConfig, RunConfig, TrainConfig
from sclip.config.loader import to_tree
from sclip.data import columns as col
from sclip.data.order import Order
from sclip.data.reader import OpenedVisit, ReadSettings, read_round
from sclip.data.schedule import NamedShard, Schedule
from support import tars

Row = tuple[int, int, int, int]
"""Source, pass, shard and index of a row."""
Steps = dict[int, list[list[Row]]]
"""Maps each step to the rows of each rank."""


def tar_bytes(keys: Iterable[str]) -> bytes:
    return tars.tar_bytes(member for key in keys for member in tars.pair(key))


def keys(rows: int) -> list[str]:
    return [f"{number:04d}" for number in range(rows)]


@dataclass
class Run:
    """The folder of a finished run, which `complete.json` declares complete."""

    folder: Path
    config: Config
    order: Order
    sources: list[list[Path]] = field(default_factory=list)

    @classmethod
    def of(
        cls, root: Path, *sources: Sequence[int], recorded: Sequence[Sequence[int]] = (),
        weights: tuple[float, ...] = (), epochs: int = 2, seed: int = 0,
    ) -> Run:  # fmt: skip
        """Write tars with the sample counts of `sources`, and a plan that records the same counts or `recorded`."""
        counts = tuple(map(tuple, recorded or sources))
        patterns = tuple(str(root / f"source-{source}-*.tar") for source in range(len(sources)))
        config = Config(
            run=RunConfig(seed=seed), train=TrainConfig(epochs=epochs, batch_size=6),
            data=DataConfig(patterns, weights, open_shards=2, shuffle_buffer=5, block_samples=64),
        )  # fmt: skip
        schedule = Schedule.weighted(seed, epochs, counts, weights or [1.0] * len(sources))
        visits = map(schedule.visit, range(len(schedule)))
        surplus = [sources[v.source][v.shard] - counts[v.source][v.shard] for v in visits]
        beyond = {entry: rows for entry, rows in enumerate(surplus) if rows > 0}
        run = cls(root / "runs" / "r", config, Order(schedule, counts, 2, 6, beyond))
        (run.folder / "ledger").mkdir(parents=True)
        plan = []
        for source, sizes in enumerate(sources):
            run.sources.append([root / f"source-{source}-{number}.tar" for number in range(len(sizes))])
            shards = {}
            for path, rows, count in zip(run.sources[-1], sizes, counts[source], strict=True):
                path.write_bytes(tar_bytes(keys(rows)))
                shards[f"{source}/{path.name}"] = {"url": str(path), "samples": count}
            plan.append({"weight": weights[source] if weights else 1.0, "shards": shards})
        run.write("shards.json", {"sources": plan})
        run.write("config.json", to_tree(config))
        run.write("complete.json", {})
        return run

    def write(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value))

    def steps(self, world_size: int = 1, without: Collection[Row] = ()) -> Steps:
        """Return the rows that the reader yields for each step and rank, except those in `without`."""
        order, reading = self.order, ReadSettings(self.config)
        steps: Steps = {step: [[] for _ in range(world_size)] for step in range(1, order.steps + 1)}
        for (_, round_), rank in product(order.rounds(), range(world_size)):
            visits = {part.entry: self._visit(part.entry) for track in round_.tracks for part in track}
            for table in read_round(reading, round_, round_.share(rank, world_size), visits):
                for table_row in table.filter(pc.field(col.STATUS) == col.SAMPLE).to_pylist():
                    row = (*order.schedule.visit(table_row[col.ENTRY]), table_row[col.INDEX])
                    if row not in without:
                        steps[table_row[col.PLACE] // order.batch_size + 1][rank].append(row)
        return steps

    def _visit(self, entry: int) -> OpenedVisit:
        source, pass_, shard = self.order.schedule.visit(entry)
        path = self.sources[source][shard]
        return OpenedVisit(NamedShard(f"{source}/{path.name}", str(path)), pass_, self.order.count(entry), -1)

    def attempt(self, attempt: int, steps: Steps, from_step: int = 0, filtered: Collection[Row] = ()) -> None:
        """Write an attempt's ledger for each rank: rows of each step, trained or (if in `filtered`) filtered."""
        world_size = len(next(iter(steps.values()), [[]]))
        for rank in range(world_size):
            lines = [{"attempt": attempt, "rank": rank, "world_size": world_size, "from_step": from_step}]
            for step, step_rows in steps.items():
                kinds = {
                    "trained": [row for row in step_rows[rank] if row not in filtered],
                    "filtered": [row for row in step_rows[rank] if row in filtered],
                }
                lines.append({"step": step} | {kind: places(rows) for kind, rows in kinds.items() if rows})
            self.ledger(attempt, rank).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def ledger(self, attempt: int, rank: int) -> Path:
        return self.folder / "ledger" / f"{attempt:04d}-{rank:05d}.jsonl"

    def quarantine(self, *rows: Row, key: str = "0001", reason: str = "no caption") -> None:
        with (self.folder / "quarantine.jsonl").open("a") as file:
            for source, pass_, shard, index in rows:
                path = self.sources[source][shard]
                base = {"source": source, "pass": pass_, "name": f"{source}/{path.name}", "shard": str(path)}
                line = {"step": 5} | base | {"index": index, "key": key, "reason": reason}
                file.write(json.dumps(line) + "\n")


def places(rows: Iterable[Row]) -> list[list[Any]]:
    indices_of: dict[tuple[int, int, int], list[int]] = {}
    for *visit, index in rows:
        indices_of.setdefault((visit[0], visit[1], visit[2]), []).append(index)
    return [[*visit, indices] for visit, indices in indices_of.items()]


def passes(sizes: Sequence[int]) -> list[Row]:
    """Return all rows of one source in two epochs; the order has no meaning."""
    return [(0, p, shard, i) for p in range(2) for shard, n in enumerate(sizes) for i in range(n)]
