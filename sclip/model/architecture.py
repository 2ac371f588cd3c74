"""Architectures by name: open_clip's own, and the small ones of sclip/model/configs with their image tower.

A name goes in; its open_clip config (image size, context length) or one clear error comes out, without
building the model: the CPU actors of the data stream and the driver need only these.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import get_model_config
from timm.layers import LayerNorm2d
from timm.models import register_model
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from sclip.config import ModelConfig
from sclip.model import hub

__all__ = [
    "ModelError",
    "ScenesTower",
    "architecture",
    "check_model",
    "context_length",
    "contrastive",
    "image_size",
    "most_words",
    "open_clip_config",
    "pretrained_normalisation",
    "pretrained_source",
    "with_quick_gelu",
]

open_clip.add_model_config(Path(__file__).parent / "configs")


class ModelError(ValueError):
    """A model that cannot be built or loaded; one line with what was found and what to do."""


def open_clip_config(name: str) -> dict[str, Any]:
    """Return the open_clip config of an architecture; `ModelError` with the nearest name where it is unknown."""
    config: dict[str, Any] | None = get_model_config(name.replace("/", "-"))
    if config is None:
        spelt = {known.lower(): known for known in open_clip.list_models()}
        nearest = [spelt[n] for n in difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.3)]
        hint = f"did you mean {nearest[0]!r}?" if nearest else "see open_clip.list_models()"
        raise ModelError(f"model.name={name!r}: no such architecture; {hint}")
    return config


def contrastive(config: dict[str, Any]) -> dict[str, Any]:
    """Return the open_clip config without CoCa's caption decoder; other configs as they are."""
    if "multimodal_cfg" not in config:
        return config
    towers = {name: config[name] | {"output_tokens": False} for name in ("vision_cfg", "text_cfg")}
    return {name: value for name, value in config.items() if name != "multimodal_cfg"} | towers


def with_quick_gelu(name: str) -> bool:
    """Return whether an architecture has QuickGELU, OpenAI's approximation of GELU."""
    return bool(open_clip_config(name).get("quick_gelu", False))


def architecture(config: ModelConfig, source: str = "", quick_gelu: bool | None = None) -> str:
    """Return the open_clip name whose activation is the one that the pretrained weights were trained with.

    OpenAI's and several other weights need QuickGELU, which open_clip keeps under names of their own
    (`ViT-B-32-quickgelu`); loaded into the plain name they run, and score several points lower. The open_clip tag
    or a file of weights says it (`source`, the file's name, and what it says: `quick_gelu`); where a file does not,
    `config.quick_gelu`. Raises `ModelError` where nothing says it and both are to be had, where two contradict each
    other, and where there is no such architecture.
    """
    name = config.name.replace("/", "-")
    own = with_quick_gelu(name)
    tag = open_clip.pretrained.get_pretrained_cfg(name, config.pretrained) if config.pretrained else {}
    stated = quick_gelu if source else bool(tag.get("quick_gelu", False)) if tag else None
    asked = {"auto": None, "on": True, "off": False}[config.quick_gelu]
    origin = source or f"model.pretrained={config.pretrained!r}"
    words = {True: "with QuickGELU", False: "without QuickGELU"}
    if stated is not None and asked not in (None, stated):
        raise ModelError(
            f"model.quick_gelu={config.quick_gelu!r}: {origin} was trained {words[stated]}; leave it at auto"
        )
    wanted = stated if stated is not None else asked
    if wanted is None and source and not own and f"{name}-quickgelu" in open_clip.list_models():
        raise ModelError(
            f"{source} does not say with which activation it was trained; set model.quick_gelu=on (OpenAI's weights "
            "and what was trained on from them) or off"
        )
    if wanted is None or wanted == own:
        return name
    if wanted and f"{name}-quickgelu" in open_clip.list_models():
        return f"{name}-quickgelu"
    plain = name.removesuffix("-quickgelu")
    what = f"{origin} was trained {words[wanted]}" if stated is not None else f"model.quick_gelu={asked}"
    remedy = f"{name} is to be had {words[own]} only" if plain == name else f"set model.name={plain}"
    raise ModelError(f"model.name={config.name!r}: {what}; {remedy}")


def pretrained_source(config: ModelConfig) -> tuple[Path | None, str]:
    """Return the file or folder, or the open_clip tag, that `config.pretrained` names; (None, "") for random weights.

    Raises `ModelError` for a file that is not there and for a tag that the architecture has not.
    """
    source = config.pretrained
    name = config.name.replace("/", "-")
    open_clip_config(name)
    if not source or open_clip.pretrained.get_pretrained_cfg(name, source):
        return None, source
    path = Path(source).expanduser()
    if path.exists():
        return path, ""
    if path.suffix or len(path.parts) > 1:
        raise ModelError(f"model.pretrained={source!r}: no such file")
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
    raise ModelError(
        f"model.pretrained={source!r}: neither a file or folder of weights nor a tag of {name} (tags: {tags})"
    )


def check_model(config: ModelConfig) -> None:
    """Raise `ModelError` for what can be seen to be wrong with a model config without reading weights."""
    _, tag = pretrained_source(config)
    if tag or not config.pretrained:
        architecture(config)
    image_size(config.name)
    text = open_clip_config(config.name)["text_cfg"]
    try:
        of_hub = hub.text_config(text, config.hub_folder) if text.get("hf_model_name") else None
    except hub.HubError as error:
        raise ModelError(f"model.name={config.name!r}: {error}") from error
    width = of_hub.hidden_size if of_hub else text["width"]
    _check_context(config, of_hub)
    if config.kee.enabled and width % config.kee.heads:
        raise ModelError(
            f"model.kee.heads={config.kee.heads}: must divide the text tower's width {width} of {config.name}"
        )


def _check_context(config: ModelConfig, of_hub: Any) -> None:
    """Raise `ModelError` for a context that the text tower cannot have; `of_hub` is its config, of Hugging Face's."""
    text = open_clip_config(config.name)["text_cfg"]
    if of_hub:
        most = getattr(of_hub, "max_position_embeddings", None)  # T5's are relative
        if most is not None and context_length(config) > most - 2:  # RoBERTa's begin behind its padding
            raise ModelError(
                f"model.context_length={config.context_length}: {config.name} has {most - 2} positions; "
                "set that or less"
            )
        return
    if context_length(config) == context_length(ModelConfig(name=config.name)):
        return
    if text.get("embed_cls"):
        key = f"model.context_length={config.context_length}"
        raise ModelError(f"{key}: the last position of {config.name} is its class token's; set 0")
    if text.get("no_causal_mask"):
        raise ModelError(
            f"model.context_length={config.context_length}: {config.name} has no causal mask, so words see the padding "
            "behind their caption, and another length changes every feature; set 0"
        )


def context_length(config: ModelConfig) -> int:
    """Return L, the tokens of a caption that the text tower reads, start and end included."""
    return config.context_length or int(open_clip_config(config.name)["text_cfg"].get("context_length", 77))


def most_words(config: ModelConfig) -> int:
    """Return how many words of a caption the text tower can read: each has a token at least."""
    return context_length(config) - 2


def pretrained_normalisation(name: str) -> dict[str, Any]:
    """Return the image mean and std that all pretrained weights of an architecture share; {} if they differ.

    A bare file of weights does not record them, and SigLIP's, CLIPA's and MobileCLIP's differ from CLIP's.
    """
    tags = open_clip.list_pretrained_tags_by_model(name)
    configs = [open_clip.pretrained.get_pretrained_cfg(name, tag) for tag in tags]
    found = [{part: config[part] for part in ("mean", "std")} for config in configs]
    return found[0] if found and all(of == found[0] for of in found) else {}


def image_size(name: str) -> int:
    """Return the height and width in pixels of the images that the architecture takes."""
    size = open_clip_config(name)["vision_cfg"].get("image_size", 224)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ModelError(
            f"model.name={name!r}: takes images of {size} pixels; only square ones are supported"
        )
    return int(sides.pop())


_SIZE = 48
_WIDTHS, _STRIDES = (16, 32, 64, 128), (2, 2, 2, 1)
_WHAT = 256


class ScenesTower(nn.Module):
    """Four convolutions with LayerNorm; what is there, wherever it is, beside what is where.

    An average over positions forgets which of two objects is above the other, and the feature of every position alone
    has to learn what a red ring is in each place anew. Both together, measured on held-out scenes after 500 steps of
    128, of a tower twice as wide (relation / attribute accuracy): the largest over positions alone 0.50 / 0.99, the
    positions alone 1.00 / 0.77, both 1.00 / 0.98. This one takes a third of the wider one's time: 1.00 / 0.95.

    `depth` transformer blocks follow the convolutions, for what is done to attention and MLP alone.
    """

    num_features = _WHAT + _WIDTHS[-1] * (_SIZE // 8) ** 2
    default_cfg: dict[str, Any] = {}  # noqa: RUF012  (what open_clip's adapter looks up)

    def __init__(self, depth: int = 0) -> None:
        super().__init__()
        inputs = (3, *_WIDTHS[:-1])
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), LayerNorm2d(o), nn.ReLU())
                for i, o, stride in zip(inputs, _WIDTHS, _STRIDES, strict=True)
            )
        )
        side = _SIZE // 8
        self.position = nn.Parameter(0.5 * torch.randn(_WIDTHS[-1], side, side))
        self.what = nn.Sequential(nn.Conv2d(_WIDTHS[-1], _WHAT, 1), nn.ReLU())
        self.layers = nn.Sequential(*(Block(_WIDTHS[-1], num_heads=4, mlp_ratio=2.0) for _ in range(depth)))

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """There is none, and no other pooling."""

    def forward(self, image: Tensor) -> Tensor:
        """Return features [B, num_features] of normalised images [B, 3, 48, 48]."""
        where = self.blocks(image)
        if self.layers:
            tokens = (where + self.position).flatten(2).transpose(1, 2)  # [B, 36, 128]
            where = self.layers(tokens).transpose(1, 2).unflatten(2, where.shape[2:])
        what = self.what(where + self.position).flatten(2).amax(2)
        return torch.cat([what, where.flatten(1)], dim=1)


@register_model  # type: ignore[untyped-decorator]
def sclip_scenes(pretrained: bool = False, **_: Any) -> ScenesTower:
    """Return the tower with random weights; timm finds it in this module by this name."""
    return ScenesTower()


@register_model  # type: ignore[untyped-decorator]
def sclip_scenes_attention(pretrained: bool = False, **_: Any) -> ScenesTower:
    """Return the tower with one transformer block, which `model.lora` can update."""
    return ScenesTower(depth=1)
