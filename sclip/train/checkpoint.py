"""Save and load sharded checkpoints: each rank writes its part of weights and optimizer, and any world size can load.

`sclip.train.manifest` defines the layout; torch.distributed.checkpoint (DCP) writes the safetensors files. Nothing is
pickled, so a checkpoint from elsewhere can be opened without trust. On each rank, a thread copies the rank's part to
the host, then writes and hashes it. Training waits for these copies only before it changes the weights.

Not stored: the optimizer's hyperparameters, which come from the config of the run that loads, and random generator
states, because the loop seeds torch in every step.
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
from sclip.train.manifest import (
    CheckpointError,
    NotWritten,
    checked_manifest,
    fingerprint,
    is_complete,
    write_manifest,
)
from sclip.train.optimizer import EMA
from sclip.train.ranks import gather_json, in_unison
from sclip.train.teacher import check_start, weights_digest

__all__ = ["Saver", "consolidate", "load", "save", "size_bytes"]


class Saver:
    """Write checkpoints while training continues, one at a time. All ranks call every method together."""

    def __init__(self, timeout_s: float = TrainConfig.collective_timeout_s) -> None:
        """Create the writer thread. After it has waited `timeout_s` seconds for a rank, `wait` raises RuntimeError."""
        self._cuda = torch.cuda.is_available()
        self._stager = _Stager(pin_memory=self._cuda)
        self._stream = torch.cuda.Stream() if self._cuda else None  # type: ignore[no-untyped-call]
        # The threads have a process group of their own: ranks may be at different steps while they write.
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
        """Start to write a checkpoint as `save` does. First calls `wait` for the previous checkpoint.

        The caller must call `until_copied` before it changes weights, moments or averages. Rank 0's writer thread calls
        `afterwards` once the checkpoint is complete.
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
        # On a GPU, the copies are only queued then. Raises nothing: if copying failed, `wait` raises it on all ranks.
        futures.wait([copied])
        self._waited_s = time.perf_counter() - called
        if self._stream is not None:
            stream.wait_stream(self._stream)
            stream.record_event(self._waiting[1])

    def waited_s(self) -> float:
        """Return the seconds that copying the last started checkpoint delayed an update."""
        if not self._waiting:
            return self._waited_s
        before, after = self._waiting
        after.synchronize()
        return float(before.elapsed_time(after)) / 1000

    @property
    def is_done(self) -> bool:
        """Whether a checkpoint is in progress and its writer thread has finished or failed."""
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
        # A stream only queues the copies, so `share` must stay alive until they are done.
        with torch.cuda.stream(self._stream):
            return self._stager.stage(share, non_blocking=self._cuda), share

    def _on_host(self, copied: Future[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
        copies, _ = copied.result()
        if self._stream is not None:
            self._stream.synchronize()
        return copies


class _Stager(StateDictStager):
    """Copier of tensors into host memory that it allocates once.

    Unlike StateDictStager, a CPU copy does not hold Python's lock, and the smallest tensors are pinned too.
    """

    def _stage_untyped_storage(self, storage: torch.UntypedStorage, non_blocking: bool = False) -> Any:
        # The parent pins exactly `nbytes`; torch.empty(pin_memory=True) would round large blocks up to a power of two.
        if self.pin_memory and storage.nbytes() >= self.pin_memory_min_bytes:
            return super()._stage_untyped_storage(storage, non_blocking)
        copied = self._cached_storage_mapping.get(storage)  # type: ignore[no-untyped-call]
        if copied is None:
            # Pinned too: a copy of AdamW's step counts (4 bytes) to unpinned memory would wait for the GPU.
            host = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=self.pin_memory)
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

    `state` is a JSON value (progress, metrics); rank 0's is stored. An incomplete checkpoint at `path` is replaced.
    Raises CheckpointError if `path` holds a complete one, and NotWritten on every rank if any rank cannot write.
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
    """Return a checkpoint's model, unsharded, on the CPU and in eval mode. Needs no process group.

    `config` is the model config of the run. Averaged weights (train.ema_decay) are preferred. Low-rank updates
    (`model.lora`) are merged into the pretrained weights. Raises ModelError if the pretrained weights are gone,
    CheckpointError if they changed.
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
    """Write this rank's tensors, which `share` returns. Then rank 0 writes the manifest and calls `afterwards`."""
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
