"""Read the stream as a worker of a run does: one iterator of blocks (a feed) per stream, and batches made from them.

This module does not import torch, because actors that only take batches import it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sclip.data import columns as col
from sclip.data import stream
from sclip.data.batches import Batch, Batches, Columns
from sclip.data.order import Order
from sclip.data.stream import StreamPlan

__all__ = ["batches_of", "feeds_of"]


def feeds_of(
    plan: StreamPlan, rank: int = 0, world_size: int = 1, encoder: type[Any] | None = None
) -> list[Iterator[Columns]]:
    """Return the feeds of a worker: one iterator of blocks for each of its streams, as in a run."""
    streams = stream.build(plan, plan.order, 0, rank, world_size, encoder=encoder)
    return [iter(blocks) for blocks in stream.blocks(streams)]


def batches_of(
    feeds: Sequence[Iterator[Columns]], order: Order, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Yield a worker's batches, made from its feeds by `Batches`."""
    firsts = [next(feed) for feed in feeds]
    blank = {name: np.zeros_like(firsts[0][name][0]) for name in col.MODEL_COLUMNS}
    whole = [_chained(first, feed) for first, feed in zip(firsts, feeds, strict=True)]
    batches = Batches(whole, order, 0, blank, rank=rank, world_size=world_size)
    for _ in range(order.steps):
        yield batches.next()


def _chained(first: Columns, rest: Iterator[Columns]) -> Iterator[Columns]:
    yield first
    yield from rest
