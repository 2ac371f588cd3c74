"""The teacher of `loss.distil`: the weights that a run starts from, which every start of the run has to find again.

It is in no checkpoint and no export; a checkpoint holds its fingerprint, so that a run cannot go on with another one.
"""

from __future__ import annotations

import dataclasses
import hashlib

from safetensors import safe_open
from torch import nn

from sclip.config import Config, KEEConfig, ModelConfig
from sclip.model.build import build_model
from sclip.model.structure_clip import StructureCLIP
from sclip.train.manifest import CheckpointError
from sclip.train.run_folder import RunFolder

__all__ = ["build_start", "build_teacher", "check_fingerprint", "fingerprint"]


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


def fingerprint(teacher: nn.Module) -> str:
    """Return a SHA-256 of a plain model's weights, without the positions: resized, they are a little of the CPU's."""
    digest = hashlib.sha256()
    for name, tensor in teacher.state_dict().items():
        if not name.endswith("positional_embedding"):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def check_fingerprint(recorded: str, found: str, folder: RunFolder) -> None:
    """Raise CheckpointError unless the teacher is the one that a checkpoint of the run was trained with."""
    if recorded != found:
        raise CheckpointError(
            f"{folder.path}: the weights that the run started from have changed (SHA-256 {found[:12]}, was "
            f"{recorded[:12]}), which loss.distil keeps to; bring them back, or name another run"
        )


def _holds_encoder(weights_file: str) -> bool:
    with safe_open(weights_file, "pt") as weights:
        return any(name.startswith("kee.") for name in weights.keys())  # noqa: SIM118  (no mapping)
