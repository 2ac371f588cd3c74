"""Architectures by name: open_clip's own, and the small ones of sclip/model/configs.

A name goes in; its open_clip config (image size, context length) or one clear error comes out, without
building the model: the CPU actors of the data stream and the driver need only these.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import open_clip
from open_clip.factory import get_model_config
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt
from torch import nn

from sclip.config import ModelConfig

__all__ = ["ModelError", "architecture", "check_model", "image_size", "names", "open_clip_config"]
__all__ += ["pretrained_source"]

open_clip.add_model_config(Path(__file__).parent / "configs")


class ModelError(ValueError):
    """A model that cannot be built or loaded; one line with what was found and what to do."""


default_cfgs = generate_default_cfgs({"sclip_convnext": {"input_size": (3, 64, 64), "pool_size": (2, 2)}})
"""What timm and open_clip's adapter look up for the tower below; timm finds it in this module by this name."""


@register_model  # type: ignore[untyped-decorator]
def sclip_convnext(pretrained: bool = False, **kwargs: Any) -> ConvNeXt:
    """Return the small tower of `scenes-convnext`: LayerNorm only, 64 px, random weights.

    Its last 2 x 2 positions are joined by a convolution and not averaged: an average forgets which of two objects
    is above the other (relation accuracy on held-out scenes stays at 0.5; with it, above 0.99 after 300 steps).
    """
    shape = {
        "depths": (1, 1, 1, 1),
        "dims": (32, 64, 96, 128),
        "kernel_sizes": (3, 3, 3, 1),
        "stem_type": "overlap_act",  # two 3 x 3 convolutions: outlines are told apart sooner than from patches
        "ls_init_value": None,
        "act_layer": "gelu_tanh",
    }
    tower: ConvNeXt = build_model_with_cfg(ConvNeXt, "sclip_convnext", pretrained, **shape, **kwargs)
    tower.norm_pre = nn.Conv2d(tower.num_features, tower.num_features, kernel_size=2)
    return tower


def names() -> list[str]:
    """Return the architectures that can be trained: towers of open_clip with CLIP's own BPE tokenizer."""
    return [name for name in open_clip.list_models() if not _refusal(get_model_config(name), name)]


def open_clip_config(name: str) -> dict[str, Any]:
    """Return the open_clip config of an architecture; `ModelError` with the nearest name where it is unknown."""
    config: dict[str, Any] | None = get_model_config(name.replace("/", "-"))
    if config is None:
        spelt = {known.lower(): known for known in names()}
        nearest = [spelt[n] for n in difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.3)]
        hint = f"did you mean {nearest[0]!r}?" if nearest else "see open_clip.list_models()"
        raise ModelError(f"model.name={name!r}: no such architecture; {hint}")
    refusal = _refusal(config, name)
    if refusal:
        raise ModelError(f"model.name={name!r}: {refusal}")
    return config


def architecture(config: ModelConfig) -> str:
    """Return the open_clip name whose activation is the one that the config's pretrained tag was trained with.

    OpenAI's and several other weights need QuickGELU, which open_clip keeps under names of their own
    (`ViT-B-32-quickgelu`); loaded into the plain name they run, and score several points lower.
    """
    name = config.name.replace("/", "-")
    tag = open_clip.pretrained.get_pretrained_cfg(name, config.pretrained) if config.pretrained else {}
    own = open_clip_config(name)
    if tag and tag.get("quick_gelu", False) and not own.get("quick_gelu", False):
        open_clip_config(f"{name}-quickgelu")
        return f"{name}-quickgelu"
    return name


def pretrained_source(config: ModelConfig) -> tuple[Path | None, str]:
    """Return the file or the open_clip tag that `config.pretrained` names; (None, "") for random weights.

    Raises `ModelError` for a file that is not there and for a tag that the architecture has not.
    """
    source = config.pretrained
    if source.endswith(".safetensors"):
        path = Path(source).expanduser()
        if not path.is_file():
            raise ModelError(f"model.pretrained={source!r}: no such file")
        return path, ""
    name = architecture(config)
    if source and not open_clip.pretrained.get_pretrained_cfg(name, source):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ModelError(
            f"model.pretrained={source!r}: neither a .safetensors file nor a tag of {name} (tags: {tags})"
        )
    return None, source


def check_model(config: ModelConfig) -> None:
    """Raise `ModelError` for what can be seen to be wrong with a model config without building the model."""
    pretrained_source(config)
    image_size(config.name)
    width = open_clip_config(config.name)["text_cfg"]["width"]
    if config.kee.enabled and width % config.kee.heads:
        raise ModelError(
            f"model.kee.heads={config.kee.heads}: must divide the text tower's width {width} of {config.name}"
        )


def image_size(name: str) -> int:
    """Return the height and width in pixels of the images that the architecture takes."""
    size = open_clip_config(name)["vision_cfg"].get("image_size", 224)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ModelError(
            f"model.name={name!r}: takes images of {size} pixels; only square ones are supported"
        )
    return int(sides.pop())


def _refusal(config: dict[str, Any], name: str) -> str:
    text = config["text_cfg"]
    if text.get("hf_model_name") or text.get("hf_tokenizer_name") or "siglip" in name.lower():
        return "its text tower has no CLIP BPE vocabulary, which phrases of triples are embedded with"
    if "multimodal_cfg" in config:
        return "it has a caption decoder, which the contrastive loss would leave untrained"
    return ""
