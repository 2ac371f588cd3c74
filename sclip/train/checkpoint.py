"""Save and load sharded checkpoints: each rank writes its part of weights and optimizer, and any world size can load.

`sclip.train.manifest` defines the layout; torch.distributed.checkpoint (DCP) writes the safetensors files. Nothing is
pickled (DCP's default storage pickles its metadata), so a checkpoint from elsewhere can be opened without trust.
On each rank, a thread copies the rank's part to the host, then writes and hashes it. Rank 0 marks the checkpoint as
complete. Training pauses only if the copies are not done when the next step is about to change the weights. If the
checkpoint's path is a URI, each node writes the files on its own disk before it sends them.

The optimizer's hyperparameters are not stored: they come from the config of the run that loads. Random generator
states are not stored either: the loop seeds torch again in every step, from (seed, step, rank).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict as dsd
from torch.distributed.checkpoint._state_dict_stager import StateDictStager

from sclip.config import ModelConfig, TrainConfig
from sclip.model import lora
from sclip.model.build import build_model
from sclip.model.structure_clip import StructureCLIP
from sclip.storage.paths import StoragePath, local_copy, remove, send, staged, storage_path
from sclip.train.checkpoint_tensors import (
    EMA_WEIGHTS,
    FLAT,
    MODEL,
    OPTIMIZER,
    compare,
    of_prefix,
    read_tensors,
    share_of_rank,
    stored_tensors,
    tensors_of,
    write_tensors,
)
from sclip.train.collectives import gather_json, in_unison
from sclip.train.manifest import (
    CheckpointError,
    NotWritten,
    checked_manifest,
    fingerprint,
    is_complete,
    write_manifest,
)
from sclip.train.optimizer import EMA
from sclip.train.teacher import check_start, weights_digest

__all__ = ["Saver", "consolidate", "load", "save", "size_bytes"]


class Saver:
    """Write checkpoints while training continues, one at a time. All ranks call every method together."""

    def __init__(self, timeout_s: float = TrainConfig.collective_timeout_s) -> None:
        """Create the writer thread with its own process group: the ranks may be at different steps while it writes.

        In this group, a rank waits at most `timeout_s` seconds for the slowest rank.
        """
        self._cuda = torch.cuda.is_available()
        self._stager = _Stager(pin_memory=self._cuda)
        self._stream = torch.cuda.Stream() if self._cuda else None  # type: ignore[no-untyped-call]
        self._group: dist.ProcessGroup | None = None
        if dist.is_initialized():
            self._group = cast(
                dist.ProcessGroup, dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
            )
        # A new thread uses the machine's first GPU by default; every rank would create a CUDA context there.
        own_device = partial(torch.cuda.set_device, torch.cuda.current_device()) if self._cuda else None
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=own_device)
        self._copied: Future[tuple[dict[str, Any], dict[str, Any]]] | None = None
        self._waited_s, self._waiting = 0.0, list[torch.cuda.Event]()
        self._written: Future[None] | None = None

    def start(
        self,
        path: str | StoragePath,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
        ema: EMA | None = None,
        afterwards: Callable[[], None] = lambda: None,
    ) -> None:
        """Start to copy this rank's part to the host, and to write it as `save` does; return before this is done.

        The caller must call `until_copied` before it changes weights, moments or averages. `start` first
        waits for the previous checkpoint; if that failed, `start` raises the same error as `wait`. The writer
        thread of rank 0 calls `afterwards` once the checkpoint is complete.
        """
        self.wait()
        share, elements = share_of_rank(tensors_of(model, optimizer, ema)[0])
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())  # copy after the step queued last
        self._waited_s, self._waiting = 0.0, []
        self._copied = self._thread.submit(self._copy, share)
        on_host = partial(self._on_host, self._copied)
        self._written = self._thread.submit(
            _write, storage_path(path), on_host, elements, dict(state), self._group, afterwards
        )

    def until_copied(self) -> None:
        """Wait until the checkpoint in progress no longer needs the weights.

        On a GPU, the host waits until the copies are queued, and the current CUDA stream waits until they are done.
        """
        copied, self._copied = self._copied, None
        if copied is None:
            return
        if self._stream is not None:
            stream = torch.cuda.current_stream()
            self._waiting = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            stream.record_event(self._waiting[0])  # the gradients are done, and the GPU begins to wait
        called = time.perf_counter()
        futures.wait([copied])  # raises nothing: if copying failed, `wait` raises the error on all ranks
        self._waited_s = time.perf_counter() - called
        if self._stream is not None:
            stream.wait_stream(self._stream)
            stream.record_event(self._waiting[1])

    def waited_s(self) -> float:
        """Return the seconds for which the last call of `until_copied` held back an update."""
        if not self._waiting:
            return self._waited_s
        before, after = self._waiting
        after.synchronize()
        return float(before.elapsed_time(after)) / 1000

    @property
    def is_done(self) -> bool:
        """Whether this rank's last checkpoint is written or has failed. False again after `wait`."""
        return self._written is not None and self._written.done()

    def wait(self) -> None:
        """Wait until the last started checkpoint is complete. Raises NotWritten if storage did not accept it."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def close(self) -> None:
        """Finish the checkpoint in progress and end the thread."""
        self._thread.shutdown()
        self._stager.close()  # type: ignore[no-untyped-call]

    def _copy(self, share: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Copy `share`; on a GPU, only queue the copy. Also return `share`, so that it lives until the copy is done."""
        with torch.cuda.stream(self._stream):
            return self._stager.stage(share, non_blocking=self._cuda), share

    def _on_host(self, copied: Future[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
        copies, _ = copied.result()
        if self._stream is not None:
            self._stream.synchronize()
        return copies


class _Stager(StateDictStager):
    """Copier of tensors into host memory that is allocated only once. Other threads can run during a copy.

    Copies from a GPU are those of torch's StateDictStager, which only queues them. It would not pin tensors below 5
    bytes, so copies of AdamW's step counts would wait for the GPU; hence `pin_memory_min_bytes`. On a CPU, it would
    hold Python's lock during a copy. torch's DefaultStager uses StateDictStager. In torch 2.11, DefaultStager also
    closes the stager after each copy, so that a second copy fails.
    """

    def __init__(self, pin_memory: bool) -> None:
        super().__init__(pin_memory=pin_memory)  # type: ignore[no-untyped-call]
        self.pin_memory_min_bytes = 1

    def _stage_untyped_storage(self, storage: torch.UntypedStorage, non_blocking: bool = False) -> Any:
        if self.pin_memory:  # torch's caching host allocator would round each block up to a power of two
            return super()._stage_untyped_storage(storage, non_blocking)  # type: ignore[no-untyped-call]
        copied = self._cached_storage_mapping.get(storage)  # type: ignore[no-untyped-call]
        if copied is None:
            host = torch.empty(storage.nbytes(), dtype=torch.uint8)
            copied = self._cached_storage_mapping[storage] = host.untyped_storage()
        # UntypedStorage.copy_ would hold Python's lock; Tensor.copy_ releases it.
        dst, src = (torch.empty(0, dtype=torch.uint8, device=s.device).set_(s) for s in (copied, storage))
        dst.copy_(src, non_blocking=non_blocking)
        return copied


def save(
    path: str | StoragePath,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    ema: EMA | None = None,
) -> None:
    """Write a checkpoint to a folder that all ranks see, or to a URI. All ranks call it together.

    `state` is the caller's JSON value (progress and metrics); rank 0's value is stored. A folder at `path` without a
    manifest is removed first. Raises CheckpointError if `path` already holds a complete checkpoint, and NotWritten on
    every rank if any rank cannot write.
    """
    share, elements = share_of_rank(tensors_of(model, optimizer, ema)[0])
    _write(storage_path(path), lambda: share, elements, state, None)


def load(
    path: str | StoragePath, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None = None
) -> dict[str, Any]:
    """Load a checkpoint into a model and its optimizer, whatever their sharding; return the state given to `save`.

    All ranks call it together. Raises CheckpointError on every rank, before anything is changed, if the
    checkpoint is incomplete, a file is missing or truncated, or the tensors do not match this model.
    """
    checkpoint_path = storage_path(path)
    tensors, hyperparameters = tensors_of(model, optimizer, ema)
    shared = gather_json({"word": secrets.token_hex(8)})[0]["word"]
    with ExitStack() as stack:
        folders: list[Path] = []

        def checked() -> dict[str, Any]:
            state: dict[str, Any] = checked_manifest(checkpoint_path)["state"]
            folders.append(stack.enter_context(local_copy(checkpoint_path, shared)))
            compare(checkpoint_path, tensors, stored_tensors(folders[0]))
            return state

        state = in_unison(checked, CheckpointError)[0]
        # `read_tensors` ends on all ranks together, so no rank still reads the shared copy when the block ends.
        read_tensors(folders[0], tensors)
    dsd.set_state_dict(
        model,
        optimizer,
        model_state_dict=of_prefix(tensors, MODEL),
        optim_state_dict=of_prefix(tensors, OPTIMIZER) | hyperparameters,
        options=replace(FLAT, strict=not lora.has_updates(model)),
    )
    return state


def consolidate(path: str | StoragePath, config: ModelConfig) -> StructureCLIP:
    """Return the checkpoint's model as one plain model on the CPU, in eval mode, without a process group.

    Uses the averaged weights if the checkpoint has them (train.ema_decay). `config` is the model config of the run that
    wrote it. If the checkpoint holds low-rank updates (`model.lora`), loads the pretrained weights and merges the
    updates into them. Raises ModelError if the pretrained weights are gone, CheckpointError if they changed.
    """
    checkpoint_path = storage_path(path)
    start = checked_manifest(checkpoint_path)["state"].get("start", {})
    has_updates = config.lora.rank > 0
    model = build_model(config, load_weights=has_updates)
    if has_updates:
        check_start(start.get("towers", ""), weights_digest(model.clip), checkpoint_path)
        lora.add(model)
    with local_copy(checkpoint_path) as folder:
        stored = stored_tensors(folder)
        tensors = {
            (EMA_WEIGHTS if EMA_WEIGHTS + name in stored else MODEL) + name: tensor
            for name, tensor in model.state_dict().items()
            if not has_updates or lora.is_stored(name)
        }
        # Leave out the optimizer's tensors, and each weight whose average the checkpoint has.
        compared = {
            name: entry
            for name, entry in stored.items()
            if name in tensors
            or (name.startswith(MODEL) and EMA_WEIGHTS + name.removeprefix(MODEL) not in tensors)
        }
        compare(checkpoint_path, tensors, compared)
        read_tensors(folder, tensors, alone=True)
    if has_updates:
        lora.merge(model)
    return model.eval()


def size_bytes(model: nn.Module, has_ema: bool) -> int:
    """Return the bytes of a checkpoint: weights, two moments of each trained weight, and its average if `has_ema`."""
    copies, updates = 4 if has_ema else 3, lora.has_updates(model)
    return sum(
        p.numel() * p.element_size() * (copies if p.requires_grad else 1)
        for name, p in model.named_parameters()
        if not updates or lora.is_stored(name.removeprefix("module."))  # the prefix is DDP's
    )


def _write(
    path: StoragePath,
    share: Callable[[], dict[str, Any]],
    elements: int,
    state: Mapping[str, Any],
    group: dist.ProcessGroup | None,
    afterwards: Callable[[], None] = lambda: None,
) -> None:
    """Write this rank's tensors, `share()`. Once the ranks have written all `elements` numbers, write the manifest.

    Rank 0 then calls `afterwards`.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0

    def unused() -> dict[str, Any]:
        if is_complete(path):
            raise CheckpointError(f"{path}: already holds a complete checkpoint; write to another folder")
        return {}

    def prepare() -> dict[str, Any]:
        if rank == 0:
            remove(path)
            path.mkdir(parents=True)
        return {}

    in_unison(unused, CheckpointError, group)
    in_unison(prepare, NotWritten, group)
    with staged(path) as folder:

        def written() -> dict[str, Any]:
            # All ranks write, hash and upload their own files in parallel; DCP numbers the ranks' files from 1.
            try:
                count = write_tensors(folder, share(), rank)
            except OSError as error:
                raise NotWritten(f"{path}: cannot be written by rank {rank} ({error})") from error
            files = {f.name: fingerprint(f) for f in folder.glob(f"shard-{rank + 1:05d}-*.safetensors")}
            send(folder, path)
            return {"elements": count, "files": files}

        results = in_unison(written, NotWritten, group)
    if (count := sum(result["elements"] for result in results)) != elements:
        raise NotWritten(f"{path}: the ranks have written {count} of {elements} elements")
    files = {name: entry for result in results for name, entry in result["files"].items()}

    def declare() -> dict[str, Any]:
        if rank == 0:
            write_manifest(path, state, files)
            afterwards()
        return {}

    in_unison(declare, NotWritten, group)
