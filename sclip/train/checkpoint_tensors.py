"""Name a checkpoint's tensors, divide them over the ranks, write them, read them, and compare them with a model's.

The names are "model.NAME", "optimizer.state.NAME.exp_avg" and "ema.NAME". torch.distributed.checkpoint writes
the files, in the safetensors format.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as dsd
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.tensor import DTensor

from sclip.model import lora
from sclip.storage.paths import StoragePath
from sclip.train.manifest import CheckpointError
from sclip.train.optimizer import EMA

__all__ = [
    "EMA_WEIGHTS", "FLAT", "MODEL", "OPTIMIZER", "compare", "of_prefix", "read_tensors", "share_of_rank",
    "stored_tensors", "tensors_of", "write_tensors",
]  # fmt: skip

MODEL, OPTIMIZER, EMA_WEIGHTS = "model.", "optimizer.", "ema."
"""Prefixes of tensor names."""
FLAT = dsd.StateDictOptions(flatten_optimizer_state_dict=True)


def tensors_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors of a checkpoint (sharded ones are DTensors) and the optimizer's hyperparameters.

    With low-rank updates (`model.lora`), the frozen weights of the towers are left out.
    """
    model_state, optimizer_state = dsd.get_state_dict(model, optimizer, options=FLAT)
    updates = lora.has_updates(model)
    tensors = {
        MODEL + name: value for name, value in model_state.items() if not updates or lora.is_stored(name)
    }
    flat: dict[str, Any] = dict(optimizer_state)
    tensors |= {OPTIMIZER + name: v for name, v in flat.items() if isinstance(v, Tensor)}
    if ema is not None:
        tensors |= {EMA_WEIGHTS + name: tensor for name, tensor in ema.weights.items()}
    return tensors, {name: v for name, v in flat.items() if not isinstance(v, Tensor)}


def share_of_rank(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the tensors that this rank writes, and the number of tensor elements that all ranks together write.

    If several ranks hold the same tensor or shard (DDP, HSDP), one of them writes it, so that all write about equally
    many bytes.
    """
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    # By number of copies: a heap of (bytes assigned to a copy's rank, number of the copy); the same on every rank.
    loads: dict[int, list[tuple[int, int]]] = {}
    share = {}
    for name in sorted(tensors, key=lambda name: (-sizes[name], name)):
        copies, own = _copies(tensors[name])
        heap = loads.setdefault(copies, [(0, copy) for copy in range(copies)])
        load, writer = heap[0]
        heapq.heapreplace(heap, (load + sizes[name], writer))
        if writer == own:
            share[name] = tensors[name]
    return share, sum(tensor.numel() for tensor in tensors.values())


def _copies(tensor: Tensor) -> tuple[int, int]:
    """Return the number of ranks that hold the same part of a tensor, and this rank's index among them."""
    if not isinstance(tensor, DTensor):
        return (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    copies, own = 1, 0
    mesh = tensor.device_mesh
    for size, rank, placement in zip(mesh.shape, mesh.get_coordinate() or (), tensor.placements, strict=True):
        if placement.is_replicate():
            copies, own = copies * size, own * size + rank
    return copies, own


def write_tensors(path: Path, share: dict[str, Any], rank: int) -> int:
    """Write the tensors from `share_of_rank` into one file in the folder `path`; return the number of elements."""
    # DCP's `save` would merge the plans of all ranks to find copies, which takes two minutes with 512 ranks.
    writer = HuggingFaceStorageWriter(str(path), save_distributed=True)
    planner = DefaultSavePlanner(flatten_state_dict=False)
    planner.set_up_planner(share)
    plan = writer.prepare_local_plan(planner.create_local_plan())
    chunks = [item.tensor_data.chunk.sizes.numel() for item in plan.items if item.tensor_data is not None]
    # Leave out empty shards. The writer numbers a file by its plan's place in the list.
    items = [item for item, elements in zip(plan.items, chunks, strict=True) if elements]
    plan = writer.prepare_global_plan([SavePlan([])] * rank + [dataclasses.replace(plan, items=items)])[rank]
    writer.write_data(plan, planner).wait()
    return sum(chunks)


def of_prefix(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the tensors with names that start with a prefix, keyed by the rest of the name."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def stored_tensors(path: Path) -> Mapping[str, Any]:
    """Return the metadata of a checkpoint's tensors, by name. Raises CheckpointError if a file is damaged."""
    try:
        metadata: Mapping[str, Any] = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        # The reader does not check headers: a damaged one causes any of these errors.
        raise CheckpointError(
            f"{path}: a file is not readable as safetensors ({type(error).__name__}: {error}); "
            "start from the checkpoint before this one"
        ) from error
    return metadata


def compare(path: StoragePath, tensors: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless the stored tensors have the names and shapes of the model's `tensors`."""
    differences = {
        "missing in it": sorted(tensors.keys() - stored.keys()),
        "unknown to the model": sorted(stored.keys() - tensors.keys()),
        "of another shape": sorted(
            n for n in tensors.keys() & stored.keys() if tensors[n].shape != stored[n].size
        ),
    }
    lines = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in differences.items() if names]
    if lines:
        raise CheckpointError(
            f"{path}: not a checkpoint of this model: tensors {'; '.join(lines)}. Use model.*, train.lr_scale_* and "
            "train.ema_decay of the config that wrote the checkpoint, or another run.name to start anew"
        )


def read_tensors(path: Path, tensors: dict[str, Any], alone: bool = False) -> None:
    """Read a checkpoint's values into `tensors`. All ranks call it together, except with `alone`.

    Raises CheckpointError on all these ranks if a file cannot be read.
    """
    reader = HuggingFaceStorageReader(str(path))
    try:
        state_dict_loader.load(tensors, storage_reader=reader, no_dist=alone or not dist.is_initialized())
    except CheckpointException as error:  # raised on every rank if one fails
        raise CheckpointError(f"{path}: cannot be read ({_reasons(error)})") from error


def _reasons(error: CheckpointException) -> str:
    return "; ".join(f"rank {rank}: {reason}" for rank, (reason, _) in sorted(error.failures.items()))
