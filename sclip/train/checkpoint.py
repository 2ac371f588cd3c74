"""Sharded checkpoints: every rank writes its part of weights and optimizer, any world size reads them back.

A checkpoint is a folder of safetensors files, written by torch.distributed.checkpoint, and manifest.json:
the caller's JSON state, and size and SHA-256 of each file. The manifest comes last and in one piece, so a
folder without one is what a crash left. Nothing in it is pickled (DCP's default storage pickles its own
metadata), so a checkpoint from elsewhere can be opened without trust.

Tensors stand under "model.NAME" and "optimizer.state.NAME.exp_avg"; hyperparameters of the optimizer are not
stored, they come from the config of the run that loads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as dsd
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from sclip.config import ModelConfig
from sclip.model.structure_clip import StructureCLIP, build_model
from sclip.train.collectives import gather_json

__all__ = [
    "MANIFEST",
    "CheckpointError",
    "consolidate",
    "is_complete",
    "load",
    "read_state",
    "save",
    "verify",
]

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the layout above; a reader refuses another one."""

_MODEL, _OPTIMIZER = "model.", "optimizer."
_FLAT = dsd.StateDictOptions(flatten_optimizer_state_dict=True)


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message names the folder, what differs and the remedy."""


def save(
    path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Write a checkpoint into a local folder that all ranks see; called by all of them, together.

    `state` is JSON of the caller's (progress, position in the data, config), rank 0's counts. What stands at
    `path` without a manifest is removed first; a complete checkpoint is never written over.
    """
    path = Path(path)
    if is_complete(path):
        raise CheckpointError(f"{path}: already holds a complete checkpoint; write to another folder")
    rank = dist.get_rank() if dist.is_initialized() else 0
    if rank == 0:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    _barrier()
    tensors, _ = _tensors(model, optimizer)
    writer = HuggingFaceStorageWriter(str(path), save_distributed=True)
    state_dict_saver.save(tensors, storage_writer=writer, no_dist=not dist.is_initialized())
    # Each rank hashes what it wrote itself, at the same time as the others; DCP numbers its files from 1.
    own = {file.name: _fingerprint(file) for file in path.glob(f"shard-{rank + 1:05d}-*.safetensors")}
    files = {name: entry for of_rank in gather_json(own) for name, entry in of_rank.items()}
    if rank == 0:
        manifest = {"format": FORMAT, "state": state, "files": dict(sorted(files.items()))}
        partial = path / f".{MANIFEST}.partial"
        with partial.open("w") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path / MANIFEST)
    _barrier()


def load(path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load a checkpoint into a model and its optimizer, sharded however they are now; return the caller's state.

    Called by all ranks together. Raises CheckpointError, before anything is changed, if the checkpoint is
    incomplete, a file is missing or cut, or its tensors are not those of this model.
    """
    path = Path(path)
    manifest = _checked_manifest(path)
    tensors, hyperparameters = _tensors(model, optimizer)
    _read(path, tensors)
    dsd.set_state_dict(
        model,
        optimizer,
        model_state_dict=_without(tensors, _MODEL),
        optim_state_dict=_without(tensors, _OPTIMIZER) | hyperparameters,
        options=_FLAT,
    )
    state: dict[str, Any] = manifest["state"]
    return state


def consolidate(path: str | Path, config: ModelConfig) -> StructureCLIP:
    """Return the checkpoint's model as one plain model on the CPU, in eval mode, without any process group.

    `config` is the model config of the run that wrote it; its pretrained weights are not fetched again.
    """
    path = Path(path)
    _checked_manifest(path)
    model = build_model(config, load_weights=False)
    _read(path, {_MODEL + name: tensor for name, tensor in model.state_dict().items()}, alone=True)
    return model.eval()


def is_complete(path: str | Path) -> bool:
    """Return whether the folder holds a checkpoint that was written to its end."""
    return (Path(path) / MANIFEST).is_file()


def read_state(path: str | Path) -> dict[str, Any]:
    """Return the caller's state of a checkpoint without reading any tensor."""
    state: dict[str, Any] = _manifest(Path(path))["state"]
    return state


def verify(path: str | Path) -> str:
    """Return what is damaged in a complete checkpoint, in one line, or "" if every byte is as it was written.

    Reads all files (about a second a gigabyte): meant for one process before a resume, not for every rank.
    """
    path = Path(path)
    try:
        manifest = _checked_manifest(path)
    except CheckpointError as error:
        return str(error)
    for name, entry in manifest["files"].items():
        if _fingerprint(path / name) != entry:
            return f"{path / name}: its bytes are not those that were written (SHA-256 differs)"
    return ""


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors of a checkpoint, DTensors where sharded, and the optimizer's hyperparameters."""
    model_state, optimizer_state = dsd.get_state_dict(model, optimizer, options=_FLAT)
    tensors = {_MODEL + name: value for name, value in model_state.items()}
    flat: dict[str, Any] = dict(optimizer_state)
    tensors |= {_OPTIMIZER + name: v for name, v in flat.items() if isinstance(v, Tensor)}
    return tensors, {name: v for name, v in flat.items() if not isinstance(v, Tensor)}


def _without(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read(path: Path, tensors: dict[str, Any], alone: bool = False) -> None:
    """Read the tensors in place; the optimizer's are ignored if none of them is asked for."""
    reader = HuggingFaceStorageReader(str(path))
    try:
        found: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    except SafetensorError as error:
        raise CheckpointError(f"{path}: a file is no readable safetensors file ({error})") from error
    if not any(name.startswith(_OPTIMIZER) for name in tensors):
        found = {name: entry for name, entry in found.items() if name.startswith(_MODEL)}
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
            f"{path}: not a checkpoint of this model: tensors {'; '.join(told)}. Use the model.* and train.lr_scale_* "
            "keys of the config it was written with, or another run.name to start anew"
        )
    state_dict_loader.load(tensors, storage_reader=reader, no_dist=alone or not dist.is_initialized())


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no complete checkpoint ({MANIFEST} is missing)") from None
    except ValueError as error:
        raise CheckpointError(f"{path / MANIFEST}: damaged ({error})") from error
    if not isinstance(manifest, dict) or not {"format", "state", "files"} <= manifest.keys():
        raise CheckpointError(f"{path / MANIFEST}: damaged (no format, state or files in it)")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {manifest['format']}, this version reads {FORMAT}")
    return manifest


def _checked_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest if the files beside it are those it names, by name and size."""
    manifest = _manifest(path)
    sizes = {file.name: file.stat().st_size for file in path.glob("*.safetensors")}
    for name in sorted(sizes.keys() | manifest["files"].keys()):
        stored, expected = sizes.get(name), manifest["files"].get(name, {}).get("bytes")
        if stored != expected:
            raise CheckpointError(f"{path / name}: {stored} bytes, the manifest says {expected}")
    return manifest


def _fingerprint(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
