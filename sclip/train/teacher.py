"""Build and check the starting weights of runs that need them to the end: with `loss.distil` or `model.lora`.

With `loss.distil`, these weights are the teacher; with `model.lora`, low-rank updates are added to them. Checkpoints
hold only their digest. It prevents a run from continuing with other starting weights, and low-rank updates from being
merged into other weights.
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
    """Return a model with the run's starting weights. It has a knowledge encoder only if these weights hold one.

    A new knowledge encoder would be random and only disturb what the towers know.
    """
    with folder.starting(config) as model:
        if not (folder.init.exists() and _holds_encoder(model.pretrained)):
            model = dataclasses.replace(model, kee=KEEConfig(enabled=False))
        return build_model(model)


def build_teacher(config: Config, folder: RunFolder) -> StructureCLIP:
    """Return the plain teacher for `loss.distil`. Raises CheckpointError or ModelError if its weights are gone."""
    if config.run.init_from and not folder.init.exists():
        raise CheckpointError(
            f"{folder.init}: no such file; loss.distil={config.loss.distil} needs the run's starting weights: start "
            "the same command again to fetch them from run.init_from"
        )
    return build_start(folder, config.model)


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a plain module's weights on the CPU.

    Positional embeddings are left out, because the result of resizing them differs between CPUs.
    """
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if not name.endswith("positional_embedding"):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def check_start(recorded: str, present: str, path: StoragePath) -> None:
    """Raise CheckpointError unless the present starting weights have the digest that a checkpoint recorded."""
    if recorded != present:
        raise CheckpointError(
            f"{path}: the run's starting weights have changed (SHA-256 {present[:12]}, was {recorded[:12]}), but "
            "loss.distil and model.lora need them unchanged; restore them, or choose another run.name"
        )


def _holds_encoder(weights_file: str) -> bool:
    with safe_open(weights_file, "pt") as weights:
        return any(name.startswith("kee.") for name in weights.keys())  # noqa: SIM118  (no mapping)
