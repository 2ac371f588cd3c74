"""Build and check the starting weights of runs that need them to the end: with `loss.distil` or `model.lora`.

With `loss.distil`, the starting weights are the teacher; with `model.lora`, low-rank updates are added to them.
Checkpoints hold only a digest of the starting weights, which shows whether they have changed.
"""

from __future__ import annotations

import dataclasses
import hashlib

from safetensors import safe_open
from torch import nn

from sclip.config import Config, KEEConfig, ModelConfig
from sclip.model.build import build_model
from sclip.model.structure_clip import StructureCLIP
from sclip.storage.paths import StoragePath
from sclip.train.manifest import CheckpointError
from sclip.train.run_folder import RunFolder

__all__ = ["build_start", "build_teacher", "check_start", "weights_digest"]


def build_start(folder: RunFolder, config: ModelConfig) -> StructureCLIP:
    """Return a model with the run's starting weights. It has a knowledge encoder only if these weights hold one."""
    with folder.starting(config) as model:
        # A new knowledge encoder would be random, and only disturb what the towers know.
        if not (folder.init.exists() and _holds_encoder(model.pretrained)):
            model = dataclasses.replace(model, kee=KEEConfig(enabled=False))
        return build_model(model)


def build_teacher(config: Config, folder: RunFolder) -> StructureCLIP:
    """Return the teacher for `loss.distil`, unsharded. Raises CheckpointError or ModelError if its weights are gone."""
    if config.run.init_from and not folder.init.exists():
        raise CheckpointError(
            f"{folder.init}: no such file; loss.distil={config.loss.distil} needs the run's starting weights: start "
            "the same command again to fetch them from run.init_from"
        )
    return build_start(folder, config.model)


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of the weights of a plain module on the CPU, without positional embeddings."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        # Positional embeddings may have been resized, with results that differ between CPUs.
        if not name.endswith("positional_embedding"):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def check_start(recorded: str, present: str, path: StoragePath) -> None:
    """Raise CheckpointError unless the present starting weights have the digest that the checkpoint recorded."""
    if recorded != present:
        raise CheckpointError(
            f"{path}: the run's starting weights have changed (SHA-256 {present[:12]}, was {recorded[:12]}), but "
            "loss.distil and model.lora need them unchanged; restore them, or choose another run.name"
        )


def _holds_encoder(weights_file: str) -> bool:
    with safe_open(weights_file, "pt") as weights:
        return any(name.startswith("kee.") for name in weights.keys())  # noqa: SIM118  (no mapping)
