"""The trained model as two files: model.safetensors and config.json, nothing that runs code on loading."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from safetensors.torch import save_file

from sclip.config import KEEConfig, ModelConfig
from sclip.model.architecture import ModelError
from sclip.model.structure_clip import StructureCLIP, build_model, export_state

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "export", "load_exported"]

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def export(model: StructureCLIP, directory: str | Path) -> Path:
    """Write the whole model's weights and its config; return the directory, which is made if missing.

    The tensors named "clip.*" are, without that prefix, the state of open_clip's model of the same name.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(export_state(model), directory / WEIGHTS_FILE, metadata={"format": "pt"})
    config = dataclasses.replace(model.config, pretrained="")
    (directory / CONFIG_FILE).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    return directory


def load_exported(directory: str | Path) -> StructureCLIP:
    """Return the model that `export` wrote, on the CPU in eval mode; `ModelError` where it cannot."""
    path = Path(directory) / CONFIG_FILE
    try:
        fields = json.loads(path.read_text())
        config = ModelConfig(**{**fields, "kee": KEEConfig(**fields["kee"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: not the config of an exported model ({error})") from error
    model = build_model(dataclasses.replace(config, pretrained=str(Path(directory) / WEIGHTS_FILE)))
    model.config = config
    return model.eval()
