"""Name the tensors of a checkpoint, compare them with those in its files, and read them.

The names are "model.NAME", "optimizer.state.NAME.exp_avg" and "ema.NAME". torch.distributed.checkpoint writes the
files, in the safetensors format.
"""

from __future__ import annotations

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
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

from sclip.model import lora
from sclip.storage.paths import StoragePath
from sclip.train.manifest import CheckpointError
from sclip.train.optimizer import EMA

__all__ = [
    "EMA_WEIGHTS", "FLAT", "MODEL", "OPTIMIZER", "compare", "of_prefix", "read_tensors", "reasons", "stored_tensors",
    "tensors_of",
]  # fmt: skip

MODEL, OPTIMIZER, EMA_WEIGHTS = "model.", "optimizer.", "ema."
"""Prefixes of tensor names."""
FLAT = dsd.StateDictOptions(flatten_optimizer_state_dict=True)


def tensors_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors of a checkpoint (sharded ones are DTensors) and the optimizer's hyperparameters.

    If the model has low-rank updates, the frozen weights of its towers are left out.
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


def of_prefix(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the tensors with names that start with a prefix, keyed by the rest of the name."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def stored_tensors(path: Path) -> Mapping[str, Any]:
    """Return the metadata of the tensors in a checkpoint's files, by name. Raises CheckpointError if damaged."""
    try:
        metadata: Mapping[str, Any] = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        # On a damaged header, the reader raises whatever error it runs into.
        raise CheckpointError(
            f"{path}: a file is no readable safetensors file ({type(error).__name__}: {error}); "
            "start from the checkpoint before it"
        ) from error
    return metadata


def compare(path: StoragePath, tensors: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Raise CheckpointError, with tensor names, if the stored tensors are not those that the model needs."""
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
            f"{path}: not a checkpoint of this model: tensors {'; '.join(lines)}. Use the model.*, train.lr_scale_* "
            "and train.ema_decay of the config it was written with, or another run.name to start anew"
        )


def read_tensors(path: Path, tensors: dict[str, Any], alone: bool = False) -> None:
    """Read the tensors in place, on all ranks together or, if `alone`, in this process only. Raises CheckpointError."""
    reader = HuggingFaceStorageReader(str(path))
    try:
        state_dict_loader.load(tensors, storage_reader=reader, no_dist=alone or not dist.is_initialized())
    except CheckpointException as error:  # raised on every rank if one fails
        raise CheckpointError(f"{path}: cannot be read ({reasons(error)})") from error


def reasons(error: CheckpointException) -> str:
    """Return the reason of each failed rank, in one line."""
    return "; ".join(f"rank {rank}: {reason}" for rank, (reason, _) in sorted(error.failures.items()))
