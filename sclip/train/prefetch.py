"""Prepare the next batch while the current one trains: a thread assembles it, packs it and copies it to the device.

The thread turns each host batch of `Batches` into a `ReadyBatch`, in order and one batch ahead. The copy to a GPU runs
on its own CUDA stream, while the step computes.
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
"""Seconds between two calls of `on_wait` while the caller waits for a batch."""
_JOIN_TIMEOUT_S = 10.0
"""Maximum seconds to wait for the thread at the end of a run. If it still waits for data, it dies with the process."""


class Prefetcher(Generic[T]):
    """Call `make` in a thread, which makes the next result while the caller uses the current one.

    If `make` raises, `next` raises the same exception after the earlier results. Leaving the context ends the thread.
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
        """Return the next result. While it waits, it calls `on_wait(seconds waited)` every `TELL_S` seconds."""
        waited_s = 0.0
        while self._failure is None:
            try:
                result, self._failure = self._made.get(timeout=TELL_S)
            except Empty:
                waited_s += TELL_S
                on_wait(waited_s)
                continue
            if self._failure is None:
                self._wanted.put(True)
                return result  # type: ignore[return-value]
        raise self._failure

    def _run(self) -> None:
        while self._wanted.get():
            try:
                self._made.put((self._make(), None))
            except BaseException as error:  # also SystemExit, else the loop would wait forever
                self._made.put((None, error))


@dataclass(frozen=True, slots=True)
class ReadyBatch:
    """A batch on the device."""

    batch: Batch
    """The batch without its columns, for `SampleAccounts`."""
    tokens: int
    """Tokens of captions, negatives, units (caption parts) and positives (other wordings), without padding."""
    gflops: int
    """Operations of the batch's step on this rank, in 10^9 (`sclip.train.flops`)."""
    tensors: dict[str, Tensor]
    copied: torch.cuda.Event | None
    """CUDA event after the copy to the device; None on a CPU."""

    def on_device(self) -> dict[str, Tensor]:
        """Return the tensors for `StructureCLIP.forward` and the loss, ready for use on the current stream."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.tensors[col.IMAGE_DIGEST].device)
            stream.wait_event(self.copied)
            for tensor in self.tensors.values():
                # The copying stream allocated it and must not reuse the memory before the current stream has read it.
                tensor.record_stream(stream)
        return self.tensors


@dataclass(slots=True)
class _Buffers:
    is_pinned: bool
    columns: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    copied: torch.cuda.Event | None = None
    """CUDA event after the copy of the last batch in these buffers."""

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
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
    """Return the batches of a worker; each is prepared while the step trains on the one before it.

    `flops` counts a step's operations (`StepFlops`). `packs_text` is `StructureCLIP.packs_text`. Only the thread may
    call `batches` from now on. On a CPU, the tensors of a batch are valid until the next batch is requested.
    """
    copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    # Repeated shapes save work of a GPU's caching allocator and of the compiler; a plain CPU gains nothing.
    round_rows = copy_stream is not None or config.train.compile
    # Reused, because fresh memory pages cost more than the copy into them. Two sets: one is filled while the other is
    # copied to the GPU, or trained on by a CPU.
    buffer_sets = itertools.cycle([_Buffers(is_pinned=copy_stream is not None) for _ in range(2)])

    def make() -> ReadyBatch:
        buffers = next(buffer_sets)
        if buffers.copied is not None:
            buffers.copied.synchronize()
        batch = batches.next(buffers.allocate)
        tokens = sum(
            int(text_lengths(batch.columns[name][: batch.rows]).sum())
            for name in (col.TEXT, col.NEGATIVE_TEXT, col.UNIT_TEXT, col.POSITIVE_TEXT)
            if name in batch.columns and (name != col.NEGATIVE_TEXT or config.loss.negatives != "none")
        )
        gflops = round(flops(trained_columns(batch.columns, config)) / 1e9)
        columns = prepared(batch.columns, config, packs_text, round_rows)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in columns.items()}
        if copy_stream is not None:
            # The context also selects the stream's device in this thread. Packed columns are pinned here; the host
            # allocator keeps that memory until the copy is done.
            with torch.cuda.stream(copy_stream):
                tensors = {
                    name: tensor.pin_memory().to(device, non_blocking=True)
                    for name, tensor in tensors.items()
                }
                buffers.copied = copy_stream.record_event()
        return ReadyBatch(dataclasses.replace(batch, columns={}), tokens, gflops, tensors, buffers.copied)

    return Prefetcher(make)


def trained_columns(columns: Columns, config: Config) -> Columns:
    """Return a batch with only those columns that a training step reads."""
    unread: tuple[str, ...] = NEGATIVE_COLUMNS if config.loss.negatives == "none" else ()
    if not config.model.kee.enabled:
        unread += (col.TRIPLES, col.NEGATIVE_TRIPLES, col.UNIT_TRIPLES, col.POSITIVE_TRIPLES)
    return {name: values for name, values in columns.items() if name not in unread}


def prepared(columns: Columns, config: Config, packs_text: bool, round_rows: bool = False) -> Columns:
    """Return the columns that the step reads, with captions and triples packed if config and model allow it.

    `round_rows` adds empty packed rows, so that shapes repeat (`sclip.model.packing.pack`).
    """
    columns = trained_columns(columns, config)
    if not (config.train.pack_text and packs_text):
        return columns
    parts = passes_of(len(columns[col.IMAGE_DIGEST]), config.train.micro_batch)
    return pack(columns, parts, on_negatives=config.model.kee.on_negatives, round_rows=round_rows)
