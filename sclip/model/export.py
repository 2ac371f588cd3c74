"""Write a trained model to files that run no code when loaded: as a whole for sclip, its CLIP part for open_clip.

model.safetensors, config.json, hub/                `export`, read by `load_exported`
open_clip_model.safetensors, open_clip_config.json  `export_clip`, read by open_clip's "local-dir:FOLDER"

hub/ holds the tokenizer and config of a text tower from a hub. For the formats of transformers and ONNX, see
`sclip.model.clip_model` and `sclip.model.onnx_files`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor

from sclip.config import KEEConfig, ModelConfig
from sclip.model import hub, weights
from sclip.model.architecture import (
    ModelError,
    context_length,
    contrastive,
    open_clip_config,
    with_quick_gelu,
)
from sclip.model.build import SCALARS, build_model
from sclip.model.hub import hub_name
from sclip.model.processor_files import normalisation
from sclip.model.structure_clip import CLIP_PREFIX, StructureCLIP
from sclip.model.tokenizer import Tokenizer
from sclip.model.towers import is_hub_tower
from sclip.model.weights import CONFIG_FILE, WEIGHTS_FILE

__all__ = ["export", "export_clip", "export_state", "load_exported"]


def export(model: StructureCLIP, directory: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write the whole model's weights and config; return the directory, which is created if missing.

    Without "clip.", the tensors "clip.*" are the state dict of the open_clip model `model.config.name`. Pass the
    model's `tokenizer` if it is loaded already, because the folder that it came from may be gone.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights.save(export_state(model), directory / WEIGHTS_FILE, with_quick_gelu(model.config.name))
    config = dataclasses.asdict(dataclasses.replace(model.config, pretrained=""))
    del config["lora"]  # a training setting; the exported model is plain
    config["hub_folder"] = ""
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    text = open_clip_config(model.config.name)["text_cfg"]
    if hub_name(text) and (hub_tokenizer := (tokenizer or Tokenizer(model.config)).hub):
        hub_tokenizer.save(hub.below(directory / hub.FOLDER, hub_name(text)))
        if is_hub_tower(model.text_tower):
            model.text_tower.config.save_pretrained(hub.below(directory / hub.FOLDER, text["hf_model_name"]))
    return directory


def export_clip(model: StructureCLIP, directory: str | Path) -> Path:
    """Write the CLIP part in open_clip's folder format; return the directory, which is created if missing."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    state = {
        n.removeprefix(CLIP_PREFIX): t for n, t in export_state(model).items() if n.startswith(CLIP_PREFIX)
    }
    save_file(state, directory / HF_SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
    config = contrastive(open_clip_config(model.config.name))
    config["text_cfg"]["context_length"] = context_length(model.config)
    if model.logit_bias is not None:
        config["init_logit_bias"] = model.logit_bias().item()  # open_clip creates a bias only if this is set
    mean, std = normalisation(model)
    written = {"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": std}}
    (directory / HF_CONFIG_NAME).write_text(json.dumps(written, indent=2) + "\n")
    if hub_name(config["text_cfg"]) and (hub_tokenizer := Tokenizer(model.config).hub):
        hub_tokenizer.save(directory)  # open_clip looks for a tokenizer here
    return directory


def export_state(model: StructureCLIP) -> dict[str, Tensor]:
    """Return the weights under their names in files: "clip." plus open_clip's name, or "kee." plus the KEE's name."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for own, clip_name in SCALARS.items():  # renamed, so that open_clip loads the CLIP part unchanged
        if own in state:
            state[CLIP_PREFIX + clip_name] = state.pop(own).reshape(())
    return state


def load_exported(directory: str | Path) -> StructureCLIP:
    """Return the model that `export` wrote, on the CPU in eval mode; raise `ModelError` if it cannot be loaded."""
    path = Path(directory) / CONFIG_FILE
    try:
        fields = json.loads(path.read_text())
        config = ModelConfig(**{**fields, "kee": KEEConfig(**fields["kee"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: not the config of an exported model ({error})") from error
    if (Path(directory) / hub.FOLDER).is_dir():
        config = dataclasses.replace(config, hub_folder=str((Path(directory) / hub.FOLDER).absolute()))
    model = build_model(dataclasses.replace(config, pretrained=str(directory)))
    model.config = config
    return model.eval()
