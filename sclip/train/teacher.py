"""The weights that a run starts from, where it needs them to its end: as `loss.distil`'s teacher, under `model.lora`.

They are in no checkpoint; a checkpoint holds their digest, so that no run goes on with others, and no updates are
merged into others.
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
    """Return the model of the weights that a run starts from, with an encoder only where they hold one.

    A new encoder knows nothing, and would only disturb what the towers know.
    """
    with folder.starting(config) as model:
        if not (folder.init.exists() and _holds_encoder(model.pretrained)):
            model = dataclasses.replace(model, kee=KEEConfig(enabled=False))
        return build_model(model)


def build_teacher(config: Config, folder: RunFolder) -> StructureCLIP:
    """Return `build_start` of a run with `loss.distil`, plain. Raises CheckpointError or ModelError if it is away."""
    if config.run.init_from and not folder.init.exists():
        raise CheckpointError(
            f"{folder.init}: gone, and loss.distil={config.loss.distil} needs the weights that the run started from; "
            "start the same command again to fetch them from run.init_from"
        )
    return build_start(folder, config.model)


def weights_digest(module: nn.Module) -> str:
    """Return a SHA-256 of plain weights on the CPU, without the positions: resized, they differ a little by CPU."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if not name.endswith("positional_embedding"):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def check_start(recorded: str, present: str, place: StoragePath) -> None:
    """Raise CheckpointError unless the start is the one that a checkpoint, or those of a run, were trained from."""
    if recorded != present:
        raise CheckpointError(
            f"{place}: the weights that the run started from have changed (SHA-256 {present[:12]}, was "
            f"{recorded[:12]}), which loss.distil and model.lora build on; bring them back, or name another run"
        )


def _holds_encoder(weights_file: str) -> bool:
    with safe_open(weights_file, "pt") as weights:
        return any(name.startswith("kee.") for name in weights.keys())  # noqa: SIM118  (no mapping)
