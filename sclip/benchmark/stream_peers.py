"""Run the peers of the stream: webdataset with a DataLoader, and Ray Data iterated once for each epoch.

Both peers make the same columns from the same samples with the same functions. They differ in how samples reach these
functions and how batches reach the consumer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from webdataset import WebDataset

from sclip import negatives, seeding
from sclip.benchmark.stream_cases import LOADER_AHEAD, CpuClock, StreamCase, Times, plan_of, timed
from sclip.config import Config
from sclip.data import annotation, stream
from sclip.data import columns as col
from sclip.data.annotation import read_record
from sclip.data.images import image_digest, random_crop
from sclip.data.names import ANNOTATION_SUFFIX
from sclip.data.window import window_of
from sclip.model import Tokenizer

__all__ = ["epochs_of_ray_data", "loaded", "loader_of"]


@dataclass
class _Encode:
    config: Config
    image_size: int
    _tokenizer: Tokenizer | None = None

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        if self._tokenizer is None:  # made in the worker
            self._tokenizer = Tokenizer(self.config.model)
        seed = self.config.run.seed
        identity = f"0/{Path(sample['__url__']).name}/{sample['__key__']}"  # as `StreamCase.named`
        captions = json.loads(sample["json"])["captions"]
        _, records = annotation.unpack(sample[ANNOTATION_SUFFIX])
        index = seeding.generator("caption", seed, 0, identity).choice(range(len(captions)))
        graph, candidates = read_record(records[index], captions[index])
        window = window_of(graph, self._tokenizer)
        drawn = negatives.draw(candidates, seed=seed, epoch=0, identity=identity, window=window)
        rng = seeding.generator("crop", seed, 0, identity)
        texts = self._tokenizer.text([captions[index], drawn.caption if drawn else ""])
        triples = self._tokenizer.triples([window.triples, window.triples_of(drawn.graph) if drawn else []])
        return {
            col.IMAGE: random_crop(sample["jpg"], self.image_size, self.config.data.crop_scale, rng),
            col.TEXT: texts[0],
            col.NEGATIVE_TEXT: texts[1:] if drawn else np.zeros_like(texts[1:]),
            col.HAS_NEGATIVE: np.array([drawn is not None]),
            col.TRIPLES: triples[0],
            col.NEGATIVE_TRIPLES: triples[1:],
            col.IMAGE_DIGEST: np.array(image_digest(sample["jpg"])),
        }


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in col.MODEL_COLUMNS}


def loader_of(case: StreamCase) -> DataLoader[dict[str, Tensor]]:
    """Return a DataLoader that reads batches of the annotated shards through webdataset."""
    data = WebDataset(list(case.shards.annotated), shardshuffle=len(case.shards.annotated), seed=0)
    data = data.shuffle(case.config.data.shuffle_buffer).map(_Encode(case.config, case.image_size))
    return DataLoader(
        data.batched(case.batch, collation_fn=_collate),
        batch_size=None, num_workers=case.processes, prefetch_factor=LOADER_AHEAD, persistent_workers=True,
        multiprocessing_context="spawn",  # a fork of a process connected to Ray may hang
    )  # fmt: skip


def loaded(case: StreamCase) -> Times:
    """Read the annotated shards through the DataLoader; return the arrival times of its batches."""
    clock = CpuClock(_this_and_workers, families=False)
    times = Times()
    return timed(((columns, len(columns[col.IMAGE_DIGEST])) for columns in loader_of(case)), times, clock)


def epochs_of_ray_data(case: StreamCase, epochs: int) -> Times:
    """Iterate a Ray dataset of the plain shards once for each epoch; return the arrival times of batches."""
    times = Times()
    plan = plan_of(case, annotated=False)
    (dataset,) = stream.build(plan, plan.order, 0)
    for epoch in range(epochs):
        for _ in dataset.iter_batches(batch_size=case.batch, batch_format="numpy", prefetch_batches=2):
            times.add([])
            times.passes.append({epoch})
    return times


def _this_and_workers() -> list[int]:
    return [os.getpid(), *(child.pid for child in active_children() if child.pid)]
