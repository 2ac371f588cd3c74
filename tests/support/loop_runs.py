"""Run the training loop without a cluster or shards: rows are generated when the loop asks for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from sclip.config import Config, DataConfig, HealthConfig, RunConfig, TrainConfig
from sclip.data import columns as col
from sclip.data.columns import Marker, Note, VisitEnd
from sclip.data.order import Order
from sclip.data.schedule import NamedShard, Schedule
from sclip.model import Tokenizer, image_size
from sclip.train import loop
from sclip.train.health import TrainingDiverged
from sclip.train.launcher import TrainJob
from sclip.train.loop import train
from sclip.train.run_folder import RunFolder
from sclip.train.step import TrainStep
from support.launchers import ListLauncher
from support.stream_blocks import Columns
from support.train_cases import CASES, MODEL, WHITE, with_overflow

SHARDS, PER_SHARD, SHARE = 4, 7, 2
STATUS = {2: col.REJECTED, 3: col.FILTERED, 4: col.FILTERED}
"""Status of the rows of each shard that are not trained on, by index."""
INDICES = (5, 2, 0, 6, 1, 3, 4)
"""Index in the shard of the row at each ordinal; it imitates the reader's shuffling."""
SAMPLES = SHARDS * (PER_SHARD - 3)
SCHEDULE = Schedule(3, 1, (SHARDS,))
PATHS = tuple(f"/data/{number}.tar" for number in range(SHARDS))
NAMED = tuple(NamedShard(f"0/{path[6:]}", path) for path in PATHS)


def order_of(batch_size: int, open_shards: int = 2, recorded: int = PER_SHARD) -> Order:
    return Order(SCHEDULE, (SHARDS * (recorded,),), open_shards, batch_size)


class PlacedRow(NamedTuple):
    entry: int
    ordinal: int
    place: int


def rows_of_rank(order: Order, step: int, rank: int, world_size: int) -> Iterator[PlacedRow]:
    for _, round_ in order.rounds(step):
        rows = []
        for share in round_.share(rank, world_size):
            number = round_.row_at(share.track, step * order.batch_size)
            for part in round_.track_parts(share.track, number):
                for ordinal in range(part.start, part.stop):
                    if number % share.split in share.turns:
                        rows.append(PlacedRow(part.entry, ordinal, round_.place(share.track, number)))
                    number += 1
        yield from sorted(rows, key=attrgetter("place"))


def key(entry: int, index: int) -> int:
    return 100 * entry + index


def block(rows: Sequence[PlacedRow], order: Order, white: Sequence[int]) -> Columns:
    """Return the columns of rows; the images of the keys in `white` are entirely white."""
    markers = []
    for entry, ordinal, place in rows:
        if status := STATUS.get(index := INDICES[ordinal]):
            markers.append(Marker(entry, place, index, status, f"{index}", "not a picture"))
        if ordinal == order.count(entry) - 1:
            end = VisitEnd(more=PER_SHARD - order.count(entry))
            markers.append(Marker(entry, place, PER_SHARD, col.END, PATHS[entry], end.to_json()))
    samples = [row for row in rows if INDICES[row.ordinal] not in STATUS]
    note = Note(markers, upto=rows[-1].place + 1, samples=len(samples))
    samples = samples or [PlacedRow(0, 0, col.NO_SAMPLE)]
    tokenizer, side = Tokenizer(MODEL), image_size(MODEL.name)
    keys = [key(row.entry, INDICES[row.ordinal]) for row in samples]
    cases = [CASES[k % len(CASES)] for k in keys]
    images = [np.random.default_rng(k).integers(0, 255, (3, side, side), np.uint8) for k in keys]
    return {
        col.ENTRY: np.array([row.entry for row in samples]),
        col.PLACE: np.array([row.place for row in samples]),
        col.INDEX: np.array([INDICES[row.ordinal] for row in samples]),
        col.NOTE: np.array([note.to_json()] + [""] * (len(samples) - 1), object),
        col.IMAGE: np.stack([np.full_like(i, WHITE) if k in white else i for k, i in zip(keys, images, strict=True)]),
        col.TEXT: tokenizer.text([case[0] for case in cases]),
        col.NEGATIVE_TEXT: tokenizer.text([case[1] for case in cases])[:, None],
        col.HAS_NEGATIVE: np.array([[bool(case[1])] for case in cases]),
        col.TRIPLES: tokenizer.triples([[case[2]] if case[2] else [] for case in cases]),
        col.NEGATIVE_TRIPLES: tokenizer.triples([[case[2][::-1]] if case[2] else [] for case in cases])[:, None],
        col.IMAGE_DIGEST: np.array(keys),
    }  # fmt: skip


class Run:
    """A run of the loop on one rank. It keeps the reports and the image keys of each step."""

    def __init__(
        self, rank: int, world_size: int, folder: Path, recorded: int, white: Sequence[int] = (), crash_at: int = 0,
        **health: Any,
    ) -> None:  # fmt: skip
        config = Config(
            run=RunConfig(seed=3),
            data=DataConfig(max_quarantined=1.0, open_shards=2),
            model=MODEL,
            train=TrainConfig(
                epochs=1, num_workers=world_size, batch_size=SHARE * world_size, learning_rate=1e-4, log_every=1
            ),
            health=HealthConfig(**health),
        )  # fmt: skip
        self.folder, self.white, self.crash_at = RunFolder(folder), white, crash_at
        self.rank, self.world_size, self.config, self.recorded = rank, world_size, config, recorded
        self.put: list[dict[str, Any]] = []
        self.trained: dict[int, list[int]] = {}
        self.error = ""
        self.packed = False
        self.threads = 0

    def with_(self, section: str, **values: Any) -> Run:
        changed = dataclasses.replace(getattr(self.config, section), **values)
        self.config = dataclasses.replace(self.config, **{section: changed})
        return self

    def blocks(self, order: Order, step: int) -> list[Columns]:
        self.steps = order.steps
        rows = list(rows_of_rank(order, step, self.rank, self.world_size))
        return [block(rows[start : start + 3], order, self.white) for start in range(0, len(rows), 3)]

    def run(self) -> Run:
        order = order_of(self.config.train.batch_size, self.config.data.open_shards, self.recorded)
        launcher = ListLauncher(self.blocks, self.rank, self.world_size, reports=self.put)
        run = self

        class Recorded(TrainStep):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                with_overflow(self)

            def __call__(self, batch: Any, progress: float) -> dict[str, torch.Tensor]:
                step = 1 + round(progress * run.steps)
                if step == run.crash_at:
                    raise OSError("the machine is gone")
                metrics = super().__call__(batch, progress)
                run.trained[step] = batch["image_digest"][batch["valid"]].tolist()
                run.packed = "packed_text" in batch
                return metrics

        job = TrainJob(self.config, order, (NAMED,), image_size(MODEL.name), self.folder.path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "TrainStep", Recorded)
            try:
                train(job, launcher)
            except (OSError, TrainingDiverged) as error:
                self.error = f"{type(error).__name__}: {error}"
        self.threads = torch.get_num_threads()
        return self

    @property
    def told(self) -> dict[str, Any]:
        metrics = {report["step"]: report["metrics"] for report in self.put if report["kind"] == "metrics"}
        names = ("trained", "error", "packed", "threads")
        return {name: getattr(self, name) for name in names} | {"metrics": metrics}
