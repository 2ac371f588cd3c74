"""Sharded checkpoints: every rank writes its part of weights and optimizer, any world size reads them back.

A checkpoint is what `sclip.train.manifest` says, its safetensors files written by torch.distributed.checkpoint.
Nothing in it is pickled (DCP's default storage pickles its own metadata), so a checkpoint from elsewhere can be opened
without trust. Training stands still only while the tensors are copied to the host; a thread with a process group of
its own writes them, hashes them and declares the checkpoint complete. Checkpoints of a URI are staged on the disk of
each node.

Hyperparameters of the optimizer are not stored: they come from the config of the run that loads. No state of a random
generator is stored either: the loop seeds torch's anew in every step, from (seed, step, rank).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict as dsd
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint._state_dict_stager import StateDictStager
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from sclip.config import ModelConfig
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
    reasons,
    stored_tensors,
    tensors_of,
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
    """Writes checkpoints while training goes on, one at a time; every method is called by all ranks together."""

    def __init__(self) -> None:
        """Start the writing thread and its own process group: ranks are at different steps while it writes."""
        self._cuda = torch.cuda.is_available()
        # What DefaultStager copies with; that of torch 2.11 closes it after each copy, so that a second one fails.
        self._stager = StateDictStager(pin_memory=self._cuda)
        self._group: dist.ProcessGroup | None = None
        if dist.is_initialized():
            self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
        # A new thread's device is the first one of the machine, which would get a context of every rank.
        own_device = partial(torch.cuda.set_device, torch.cuda.current_device()) if self._cuda else None
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=own_device)
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
        """Copy everything to the host, then write it as `save` does while the caller goes on.

        `afterwards` is called in the thread of rank 0 once the checkpoint is complete. Waits for the previous
        checkpoint first, and raises what `wait` raises for it.
        """
        self.wait()
        # All copies are queued behind the step on its own stream, and run one after the other into pinned memory.
        tensors = tensors_of(model, optimizer, ema)[0]
        copied: dict[str, Any] = self._stager.stage(tensors, non_blocking=self._cuda)
        if self._cuda:
            torch.cuda.synchronize()
        self._written = self._thread.submit(
            _write, storage_path(path), copied, dict(state), self._group, afterwards
        )

    @property
    def is_done(self) -> bool:
        """Whether this rank has finished or failed the checkpoint last started, and `wait` was not called since."""
        return self._written is not None and self._written.done()

    def wait(self) -> None:
        """Return when the checkpoint last started is complete; raise NotWritten if storage did not take it."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def close(self) -> None:
        """Finish the checkpoint that is being written, and end the thread."""
        self._thread.shutdown()
        self._stager.close()  # type: ignore[no-untyped-call]


def save(
    path: str | StoragePath,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    ema: EMA | None = None,
) -> None:
    """Write a checkpoint into a folder that all ranks see, or of a URI; called by all of them, together.

    `state` is JSON of the caller's (progress and metrics), rank 0's counts. What stands at
    `path` without a manifest is removed first; a complete checkpoint is never written over. Raises NotWritten on
    every rank where one of them cannot write.
    """
    _write(storage_path(path), tensors_of(model, optimizer, ema)[0], state, None)


def load(
    path: str | StoragePath, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None = None
) -> dict[str, Any]:
    """Load a checkpoint into a model and its optimizer, sharded however they are now; return the caller's state.

    Called by all ranks together. Raises CheckpointError on every one of them, before anything is changed, if the
    checkpoint is incomplete, a file is missing or cut, or its tensors are not those of this model.
    """
    of = storage_path(path)
    tensors, hyperparameters = tensors_of(model, optimizer, ema)
    shared = gather_json({"word": secrets.token_hex(8)})[0]["word"]
    with ExitStack() as stack:
        folders: list[Path] = []

        def checked() -> dict[str, Any]:
            state: dict[str, Any] = checked_manifest(of)["state"]
            folders.append(stack.enter_context(local_copy(of, shared)))
            compare(of, tensors, stored_tensors(folders[0]))
            return state

        state = in_unison(checked, CheckpointError)[0]
        read_tensors(
            folders[0], tensors
        )  # ends on all ranks together, so that none still needs the shared copy
    dsd.set_state_dict(
        model,
        optimizer,
        model_state_dict=of_prefix(tensors, MODEL),
        optim_state_dict=of_prefix(tensors, OPTIMIZER) | hyperparameters,
        options=replace(FLAT, strict=not lora.has_updates(model)),
    )
    return state


def consolidate(path: str | StoragePath, config: ModelConfig) -> StructureCLIP:
    """Return the checkpoint's model as one plain model on the CPU, in eval mode, without any process group.

    Its averaged weights, where it holds them (train.ema_decay). `config` is the model config of the run that wrote
    it; its pretrained weights are not fetched again, unless the checkpoint holds but updates of them (`model.lora`),
    which are merged into them here. Raises ModelError where those are gone, CheckpointError where they are others.
    """
    of = storage_path(path)
    start = checked_manifest(of)["state"].get("start", {})
    has_updates = config.lora.rank > 0
    model = build_model(config, load_weights=has_updates)
    if has_updates:
        check_start(start.get("towers", ""), weights_digest(model.clip), of)
        lora.add(model)
    with local_copy(of) as folder:
        found = stored_tensors(folder)
        tensors = {
            (EMA_WEIGHTS if EMA_WEIGHTS + name in found else MODEL) + name: tensor
            for name, tensor in model.state_dict().items()
            if not has_updates or lora.is_stored(name)
        }
        # The optimizer's are not asked for, nor the last weights where there is an average of them.
        of_the_model = {
            name: entry
            for name, entry in found.items()
            if name in tensors
            or (name.startswith(MODEL) and EMA_WEIGHTS + name.removeprefix(MODEL) not in tensors)
        }
        compare(of, tensors, of_the_model)
        read_tensors(folder, tensors, alone=True)
    if has_updates:
        lora.merge(model)
    return model.eval()


def size_bytes(model: nn.Module, has_ema: bool) -> int:
    """Return the bytes of a checkpoint of a model over all ranks: weights, two moments of those trained, their mean."""
    copies, updates = 4 if has_ema else 3, lora.has_updates(model)
    return sum(
        p.numel() * p.element_size() * (copies if p.requires_grad else 1)
        for name, p in model.named_parameters()
        if not updates or lora.is_stored(name.removeprefix("module."))  # DDP's
    )


def _write(
    path: StoragePath,
    tensors: dict[str, Any],
    state: Mapping[str, Any],
    group: dist.ProcessGroup | None,
    afterwards: Callable[[], None] = lambda: None,
) -> None:
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

        def fingerprints() -> dict[str, Any]:
            # Each rank hashes and sends what it wrote itself, all at the same time; DCP numbers its files from 1.
            files = {f.name: fingerprint(f) for f in folder.glob(f"shard-{rank + 1:05d}-*.safetensors")}
            send(folder, path)
            return files

        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        try:
            state_dict_saver.save(
                tensors, storage_writer=writer, process_group=group, no_dist=not dist.is_initialized()
            )
        except CheckpointException as error:  # of any rank, raised on each
            raise NotWritten(f"{path}: cannot be written ({reasons(error)})") from error
        of_ranks = in_unison(fingerprints, NotWritten, group)
    files = {name: entry for of_rank in of_ranks for name, entry in of_rank.items()}

    def declare() -> dict[str, Any]:
        if rank == 0:
            write_manifest(path, state, files)
            afterwards()
        return {}

    in_unison(declare, NotWritten, group)
