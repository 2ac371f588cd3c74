"""Sharded checkpoints: every rank writes its part of weights and optimizer, any world size reads them back.

A checkpoint is what `sclip.train.manifest` says, its safetensors files written by torch.distributed.checkpoint.
Nothing in it is pickled (DCP's default storage pickles its own metadata), so a checkpoint from elsewhere can be opened
without trust. Training stands still only while the tensors are copied to the host; a thread with a process group of
its own writes them, hashes them and declares the checkpoint complete. Checkpoints of a URI are staged on the disk of
each node.

Tensors stand under "model.NAME", "optimizer.state.NAME.exp_avg" and "ema.NAME"; hyperparameters of the optimizer are
not stored, they come from the config of the run that loads. No state of a random generator is stored either: the
loop seeds torch's anew in every step, from (seed, step, rank).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as dsd
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint._state_dict_stager import StateDictStager
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from sclip.config import ModelConfig
from sclip.model.build import build_model
from sclip.model.structure_clip import StructureCLIP
from sclip.storage.paths import StoragePath, local_copy, remove, send, staged, storage_path
from sclip.train.collectives import gather_json, in_unison
from sclip.train.ema import EMA
from sclip.train.manifest import (
    CheckpointError,
    NotWritten,
    checked_manifest,
    fingerprint,
    is_complete,
    write_manifest,
)

__all__ = ["Saver", "consolidate", "load", "save", "size_bytes"]

_MODEL, _OPTIMIZER, _EMA = "model.", "optimizer.", "ema."
_FLAT = dsd.StateDictOptions(flatten_optimizer_state_dict=True)


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
        tensors = _tensors(model, optimizer, ema)[0]
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

    `state` is JSON of the caller's (progress, position in the data, config), rank 0's counts. What stands at
    `path` without a manifest is removed first; a complete checkpoint is never written over. Raises NotWritten on
    every rank where one of them cannot write.
    """
    _write(storage_path(path), _tensors(model, optimizer, ema)[0], state, None)


def load(
    path: str | StoragePath, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None = None
) -> dict[str, Any]:
    """Load a checkpoint into a model and its optimizer, sharded however they are now; return the caller's state.

    Called by all ranks together. Raises CheckpointError on every one of them, before anything is changed, if the
    checkpoint is incomplete, a file is missing or cut, or its tensors are not those of this model.
    """
    of = storage_path(path)
    tensors, hyperparameters = _tensors(model, optimizer, ema)
    shared = gather_json({"word": secrets.token_hex(8)})[0]["word"]
    with ExitStack() as stack:
        folders: list[Path] = []

        def checked() -> dict[str, Any]:
            state: dict[str, Any] = checked_manifest(of)["state"]
            folders.append(stack.enter_context(local_copy(of, shared)))
            _compare(of, tensors, _found(folders[0]))
            return state

        state = in_unison(checked, CheckpointError)[0]
        _read(folders[0], tensors)  # ends on all ranks together, so that none still needs the shared copy
    dsd.set_state_dict(
        model,
        optimizer,
        model_state_dict=_without(tensors, _MODEL),
        optim_state_dict=_without(tensors, _OPTIMIZER) | hyperparameters,
        options=_FLAT,
    )
    return state


def consolidate(path: str | StoragePath, config: ModelConfig) -> StructureCLIP:
    """Return the checkpoint's model as one plain model on the CPU, in eval mode, without any process group.

    Its averaged weights, where it holds them (train.ema_decay). `config` is the model config of the run that wrote
    it; its pretrained weights are not fetched again.
    """
    of = storage_path(path)
    checked_manifest(of)
    model = build_model(config, load_weights=False)
    with local_copy(of) as folder:
        found = _found(folder)
        tensors = {
            (_EMA if _EMA + name in found else _MODEL) + name: tensor
            for name, tensor in model.state_dict().items()
        }
        # The optimizer's are not asked for, nor the last weights where there is an average of them.
        of_the_model = {
            name: entry
            for name, entry in found.items()
            if name in tensors
            or (name.startswith(_MODEL) and _EMA + name.removeprefix(_MODEL) not in tensors)
        }
        _compare(of, tensors, of_the_model)
        _read(folder, tensors, alone=True)
    return model.eval()


def size_bytes(model: nn.Module, has_ema: bool) -> int:
    """Return the bytes of a checkpoint of a model over all ranks: weights, two moments of those trained, their mean."""
    copies = 4 if has_ema else 3
    return sum(p.numel() * p.element_size() * (copies if p.requires_grad else 1) for p in model.parameters())


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
            raise NotWritten(f"{path}: cannot be written ({_reasons(error)})") from error
        of_ranks = in_unison(fingerprints, NotWritten, group)
    files = {name: entry for of_rank in of_ranks for name, entry in of_rank.items()}

    def declare() -> dict[str, Any]:
        if rank == 0:
            write_manifest(path, state, files)
            afterwards()
        return {}

    in_unison(declare, NotWritten, group)


def _tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors of a checkpoint, DTensors where sharded, and the optimizer's hyperparameters."""
    model_state, optimizer_state = dsd.get_state_dict(model, optimizer, options=_FLAT)
    tensors = {_MODEL + name: value for name, value in model_state.items()}
    flat: dict[str, Any] = dict(optimizer_state)
    tensors |= {_OPTIMIZER + name: v for name, v in flat.items() if isinstance(v, Tensor)}
    if ema is not None:
        tensors |= {_EMA + name: tensor for name, tensor in ema.weights.items()}
    return tensors, {name: v for name, v in flat.items() if not isinstance(v, Tensor)}


def _without(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _found(path: Path) -> Mapping[str, Any]:
    """Return the tensors that the files of a checkpoint say they hold."""
    try:
        found: Mapping[str, Any] = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Of a header that was changed the reader raises whatever it stumbles over.
        raise CheckpointError(
            f"{path}: a file is no readable safetensors file ({type(error).__name__}: {error}); "
            "start from the checkpoint before it"
        ) from error
    return found


def _compare(path: StoragePath, tensors: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise CheckpointError, with the names, where the tensors found are not those that are asked for."""
    differences = {
        "missing in it": sorted(tensors.keys() - found.keys()),
        "unknown to the model": sorted(found.keys() - tensors.keys()),
        "of another shape": sorted(
            n for n in tensors.keys() & found.keys() if tensors[n].shape != found[n].size
        ),
    }
    told = [f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in differences.items() if names]
    if told:
        raise CheckpointError(
            f"{path}: not a checkpoint of this model: tensors {'; '.join(told)}. Use the model.*, train.lr_scale_* and "
            "train.ema_decay of the config it was written with, or another run.name to start anew"
        )


def _read(path: Path, tensors: dict[str, Any], alone: bool = False) -> None:
    """Read the tensors in place; by all ranks together, or by this process alone."""
    reader = HuggingFaceStorageReader(str(path))
    try:
        state_dict_loader.load(tensors, storage_reader=reader, no_dist=alone or not dist.is_initialized())
    except CheckpointException as error:  # of any rank, raised on each
        raise CheckpointError(f"{path}: cannot be read ({_reasons(error)})") from error


def _reasons(error: CheckpointException) -> str:
    return "; ".join(f"rank {rank}: {reason}" for rank, (reason, _) in sorted(error.failures.items()))
