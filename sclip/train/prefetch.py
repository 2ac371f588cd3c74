"""The next batch made ready while this one trains: assembled, packed and copied to the device in a thread.

`Batches` go in on the host; a `ReadyBatch` each comes out, in the same order and one ahead. The device copy runs on a
stream of its own from pinned memory, so that neither the loop nor the step waits for it.

Two sets of buffers take the batches by turns, because fresh pages cost more than the copy into them. A set is written
again when nobody reads its last batch any more. On a CPU the step reads it: the loop asks for the next batch when its
step is over, and only then the one after that is begun. On a GPU the copy does, whose event is waited for.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sclip.config import Config
from sclip.data import columns as col
from sclip.data.batches import Batch, Batches, Columns
from sclip.model.packing import pack, text_lengths
from sclip.train.step import NEGATIVE_COLUMNS, passes_of

__all__ = ["Prefetcher", "ReadyBatch", "prefetch_batches", "prepared"]

T = TypeVar("T")

TELL_S = 60.0
"""Who waits so long for a batch is told of it, again and again."""
_JOIN_TIMEOUT_S = 10.0
"""The end of a run waits so long for the thread. A thread whose data never comes dies with the process."""


class Prefetcher(Generic[T]):
    """Calls `make` in a thread, one result ahead: the next one is made while the caller uses this one.

    An exception of `make` is raised by `next`, at its place in the order; nothing is made after it. Leaving the
    context ends the thread.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        self._made: SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = SimpleQueue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="next batch", daemon=True)

    def __enter__(self) -> Prefetcher[T]:
        self._wanted.put(True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wanted.put(False)
        self._thread.join(_JOIN_TIMEOUT_S)

    def next(self, on_wait: Callable[[float], None] = lambda _: None) -> T:
        """Return the next result, waiting for it if necessary, and let the thread make the one after it.

        `on_wait` is told each time that another `TELL_S` seconds were waited, how many it were in all.
        """
        waited_s = 0.0
        while self._failure is None:
            try:
                made, self._failure = self._made.get(timeout=TELL_S)
            except Empty:
                waited_s += TELL_S
                on_wait(waited_s)
                continue
            if self._failure is None:
                self._wanted.put(True)
                return made  # type: ignore[return-value]
        raise self._failure

    def _run(self) -> None:
        while self._wanted.get():
            try:
                self._made.put((self._make(), None))
            except BaseException as error:  # also SystemExit: the loop would wait for ever
                self._made.put((None, error))


@dataclass(frozen=True, slots=True)
class ReadyBatch:
    """A batch on the device."""

    batch: Batch
    """What the accounts need of it; without its columns."""
    tokens: int
    """Of captions, negatives, units and positives, without padding."""
    gflops: int
    """Operations of its step on this rank, in 10^9 (`sclip.train.flops`)."""
    tensors: dict[str, Tensor]
    copied: torch.cuda.Event | None
    """Recorded after the copy, on the stream that copies; None on a CPU."""

    def on_device(self) -> dict[str, Tensor]:
        """Return what `StructureCLIP.forward` and the loss take, for use on the current stream."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.tensors[col.IMAGE_DIGEST].device)
            stream.wait_event(self.copied)
            for tensor in self.tensors.values():
                # Allocated on the copying stream, which must not write into it before this one has read it.
                tensor.record_stream(stream)
        return self.tensors


@dataclass(slots=True)
class _Buffers:
    """Host memory of the columns of one batch, pinned for a GPU; grows with the batches."""

    is_pinned: bool
    columns: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    copied: torch.cuda.Event | None = None
    """Recorded after the copy of the batch that was last in it."""

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array for a column, in the memory that it had before where that has room for the rows."""
        if name not in self.columns or len(self.columns[name]) < shape[0]:
            torch_dtype = torch.from_numpy(np.empty(0, dtype)).dtype
            self.columns[name] = torch.empty(shape, dtype=torch_dtype, pin_memory=self.is_pinned)
        return self.columns[name][: shape[0]].numpy()


def prefetch_batches(
    batches: Batches,
    config: Config,
    packs_text: bool,
    device: torch.device,
    flops: Callable[[Columns], float] = lambda _: 0.0,
) -> Prefetcher[ReadyBatch]:
    """Return the batches of a worker, each made ready while the one before it is trained on.

    `flops` gives the operations of a step by the columns that it trains on; `packs_text` is the model's
    (`StructureCLIP.packs_text`). The thread alone calls `batches` from now on. On a CPU the tensors of a batch are good
    until the next one is asked for.
    """
    side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    by_turns = itertools.cycle([_Buffers(is_pinned=side is not None) for _ in range(2)])

    def make() -> ReadyBatch:
        buffers = next(by_turns)
        if buffers.copied is not None:
            buffers.copied.synchronize()
        batch = batches.next(buffers.allocate)
        tokens = sum(
            int(text_lengths(batch.columns[name][: batch.rows]).sum())
            for name in (col.TEXT, col.NEGATIVE_TEXT, col.UNIT_TEXT, col.POSITIVE_TEXT)
            if name in batch.columns and (name != col.NEGATIVE_TEXT or config.loss.negatives != "none")
        )
        gflops = round(flops(trained_columns(batch.columns, config)) / 1e9)
        columns = prepared(batch.columns, config, packs_text)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in columns.items()}
        if side is not None:
            # Also makes this thread's device the one of the stream. What is packed is pinned here; the host allocator
            # keeps that memory until the copy is done.
            with torch.cuda.stream(side):
                tensors = {
                    name: tensor.pin_memory().to(device, non_blocking=True)
                    for name, tensor in tensors.items()
                }
                buffers.copied = side.record_event()
        return ReadyBatch(dataclasses.replace(batch, columns={}), tokens, gflops, tensors, buffers.copied)

    return Prefetcher(make)


def trained_columns(columns: Columns, config: Config) -> Columns:
    """Return the columns of a batch that a step reads."""
    unread: tuple[str, ...] = NEGATIVE_COLUMNS if config.loss.negatives == "none" else ()
    if not config.model.kee.enabled:
        unread += (col.TRIPLES, col.NEGATIVE_TRIPLES, col.UNIT_TRIPLES, col.POSITIVE_TRIPLES)
    return {name: values for name, values in columns.items() if name not in unread}


def prepared(columns: Columns, config: Config, packs_text: bool) -> Columns:
    """Return what the step reads of a batch's columns, with captions and triples packed if config and model allow."""
    columns = trained_columns(columns, config)
    if not (config.train.pack_text and packs_text):
        return columns
    parts = passes_of(len(columns[col.IMAGE_DIGEST]), config.train.micro_batch)
    return pack(columns, parts, on_negatives=config.model.kee.on_negatives)
