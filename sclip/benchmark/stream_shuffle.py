"""Measure how well samples are mixed by sclip's order and by webdataset's `shuffle`.

Only keys are mixed; no shard is read. Each side puts all samples in one order, which is cut into batches. sclip draws
each batch from `open_shards` open shards. webdataset has `open_shards` streams. Each GPU has a share of these streams
as workers of its DataLoader, which takes a batch from each in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from random import Random

import numpy as np
from numpy.typing import NDArray
from webdataset import filters

from sclip import seeding
from sclip.benchmark.table import Found
from sclip.config import DataConfig
from sclip.data.order import Order, mixed
from sclip.data.schedule import Schedule

__all__ = ["Mixture", "of_webdataset", "ours", "shuffling"]

Places = NDArray[np.int64]
"""[shards, samples of a shard, as in its tar]: index of each sample in the order."""


@dataclass(frozen=True)
class Mixture:
    """Settings of a mixture: the shards, and how they are mixed."""

    shards: int
    per_shard: int
    batch: int = 4096
    open_shards: int = DataConfig.open_shards
    """Number of shards from which sclip draws a batch, and number of webdataset's streams."""
    gpus: int = 8
    shuffle_buffer: int = DataConfig.shuffle_buffer  # samples per open shard
    peer_buffer: int = 5000
    """Samples in the shuffle buffer of each webdataset stream. As in open_clip, a fifth is filled at first."""


def shuffling(mixture: Mixture) -> Found:
    """Return each side's median shards in a batch, and median distance in the order of samples adjacent in a tar."""
    sides = {"ours": ours(mixture), "peer": of_webdataset(mixture)}
    shards = {name: shards_of_batches(places, mixture.batch) for name, places in sides.items()}
    apart = {name: float(np.median(np.abs(np.diff(places, axis=1)))) for name, places in sides.items()}
    held = {
        "ours": mixture.open_shards * mixture.shuffle_buffer, "peer": mixture.open_shards * mixture.peer_buffer,
    }  # fmt: skip

    def words(side: str) -> str:
        shard_count = float(np.median(shards[side]))
        return f"{shard_count:.0f} shards, {apart[side]:,.0f} places, {held[side]:,} samples held"

    figures = {f"{side}_shards": shards[side] for side in sides}
    figures |= {
        f"{side}_{figure}": [values[side]]
        for side in sides
        for figure, values in (("apart", apart), ("held", held))
    }
    return f"{words('ours')}; the peer {words('peer')}", figures


def ours(mixture: Mixture) -> Places:
    """Return sclip's order, from `sclip.data.order` and the readers' shuffle buffers."""
    data = DataConfig(shuffle_buffer=mixture.shuffle_buffer, open_shards=mixture.open_shards)
    counts = (mixture.per_shard,) * mixture.shards
    order = Order(Schedule(0, 1, (mixture.shards,)), (counts,), data.open_shards, mixture.batch)
    places = np.full((mixture.shards, mixture.per_shard), -1)
    for _, round_ in order.rounds():
        for track in range(len(round_.tracks)):
            row = 0
            for part in round_.track_parts(track, 0):
                visit = order.schedule.visit(part.entry)
                rng = seeding.generator("mix", order.schedule.seed, visit.pass_, f"0/{visit.shard:08d}.tar")
                for index in mixed(range(part.stop), data.shuffle_buffer, rng):
                    places[visit.shard, index] = round_.place(track, row)
                    row += 1
    return places


def of_webdataset(mixture: Mixture) -> Places:
    """Return the order that webdataset's `shuffle` gives over `open_shards` streams."""
    shards = Random(0).sample(range(mixture.shards), mixture.shards)
    share = mixture.batch // mixture.gpus
    gpu_samples = [
        _in_turns(
            [_batches(mixture, shards[stream :: mixture.open_shards], share, stream)
             for stream in range(gpu, mixture.open_shards, mixture.gpus)]
        )
        for gpu in range(mixture.gpus)
    ]  # fmt: skip
    places = np.full((mixture.shards, mixture.per_shard), -1)
    for place, (shard, index) in enumerate(chain.from_iterable(_in_turns(gpu_samples))):
        places[shard, index] = place
    return places


def _batches(
    mixture: Mixture, shards: list[int], share: int, seed: int
) -> Iterator[tuple[tuple[int, int], ...]]:
    samples = ((shard, index) for shard in shards for index in range(mixture.per_shard))
    shuffle = filters.shuffle(mixture.peer_buffer, initial=-(-mixture.peer_buffer // 5), rng=Random(seed))
    shuffled = iter(shuffle(samples))
    return iter(lambda: tuple(islice(shuffled, share)), ())


def _in_turns(streams: list[Iterator[tuple[tuple[int, int], ...]]]) -> Iterator[tuple[tuple[int, int], ...]]:
    while streams:
        for stream in list(streams):
            if (batch := next(stream, None)) is None:
                streams.remove(stream)
            else:
                yield batch


def shards_of_batches(places: Places, batch: int) -> list[float]:
    """Return the number of distinct shards of each full batch."""
    shards = np.repeat(np.arange(len(places)), places.shape[1])[np.argsort(places, axis=None)]
    full = shards[: len(shards) // batch * batch].reshape(-1, batch)
    return [float(len(np.unique(batch_shards))) for batch_shards in full]
