"""The trained model as files that run no code on loading: whole for us, its CLIP part for open_clip.

model.safetensors, config.json, hub/                `export`, read by `load_exported`
open_clip_model.safetensors, open_clip_config.json  `export_clip`, read by open_clip's "local-dir:FOLDER"

hub/ holds tokenizer and config of a text tower that comes from a hub, so that an export is whole without it.
For transformers and for ONNX see `sclip.model.clip_model` and `sclip.model.onnx_files`.
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
from sclip.model.hub_tokenizer import hub_name
from sclip.model.processor_files import normalisation
from sclip.model.structure_clip import CLIP_PREFIX, StructureCLIP
from sclip.model.text_tower import is_hub_tower
from sclip.model.tokenizer import Tokenizer
from sclip.model.weights import CONFIG_FILE, WEIGHTS_FILE

__all__ = ["export", "export_clip", "export_state", "load_exported"]


def export(model: StructureCLIP, directory: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write the whole model's weights and its config; return the directory, which is made if missing.

    `tokenizer` is the model's, where it is loaded already: the folder that it came from may be gone.
    The tensors named "clip.*" are, without that prefix, the state of open_clip's model of the same name.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights.save(export_state(model), directory / WEIGHTS_FILE, with_quick_gelu(model.config.name))
    config = dataclasses.asdict(dataclasses.replace(model.config, pretrained=""))
    del config["lora"]  # how it was trained, and no part of the plain model
    config["hub_folder"] = ""
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    text = open_clip_config(model.config.name)["text_cfg"]
    if hub_name(text) and (of_hub := (tokenizer or Tokenizer(model.config)).hub):
        of_hub.save(hub.below(directory / hub.FOLDER, hub_name(text)))
        if is_hub_tower(model.text_tower):
            model.text_tower.config.save_pretrained(hub.below(directory / hub.FOLDER, text["hf_model_name"]))
    return directory


def export_clip(model: StructureCLIP, directory: str | Path) -> Path:
    """Write the CLIP part as open_clip's own folder; return the directory, which is made if missing.

    `open_clip.create_model_and_transforms("local-dir:DIRECTORY")` loads it as it is.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    state = {
        n.removeprefix(CLIP_PREFIX): t for n, t in export_state(model).items() if n.startswith(CLIP_PREFIX)
    }
    save_file(state, directory / HF_SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
    config = contrastive(open_clip_config(model.config.name))
    config["text_cfg"]["context_length"] = context_length(model.config)
    if model.logit_bias is not None:
        config["init_logit_bias"] = model.logit_bias().item()  # or open_clip's model has none to load it into
    mean, std = normalisation(model)
    written = {"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": std}}
    (directory / HF_CONFIG_NAME).write_text(json.dumps(written, indent=2) + "\n")
    if hub_name(config["text_cfg"]) and (of_hub := Tokenizer(model.config).hub):
        of_hub.save(directory)  # where open_clip looks for it
    return directory


def export_state(model: StructureCLIP) -> dict[str, Tensor]:
    """Return the weights under the names of a file: those of open_clip's CLIP with "clip." before them, and the KEE's.

    Logit scale and bias go back to where open_clip keeps them, so that the CLIP part loads there as it is.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for own, of_clip in SCALARS.items():
        if own in state:
            state[CLIP_PREFIX + of_clip] = state.pop(own).reshape(())
    return state


def load_exported(directory: str | Path) -> StructureCLIP:
    """Return the model that `export` wrote, on the CPU in eval mode; `ModelError` where it cannot."""
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
