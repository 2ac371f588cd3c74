"""Look up architectures by name: those of open_clip, and small ones from sclip/model/configs.

A name goes in; its open_clip config or a one-line `ModelError` comes out. No model is built: the driver and the CPU
actors need only image size and context length. The image tower of the small architectures is defined here too.
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
    """Error for a model that cannot be built or loaded: one line that says what is wrong and what to do."""


def open_clip_config(name: str) -> dict[str, Any]:
    """Return the open_clip config of an architecture. Raise `ModelError` with the nearest name if it is unknown."""
    config: dict[str, Any] | None = get_model_config(name.replace("/", "-"))
    if config is None:
        canonical = {known.lower(): known for known in open_clip.list_models()}
        nearest = [canonical[n] for n in difflib.get_close_matches(name.lower(), canonical, n=1, cutoff=0.3)]
        hint = f"did you mean {nearest[0]!r}?" if nearest else "see open_clip.list_models()"
        raise ModelError(f"model.name={name!r}: no such architecture; {hint}")
    return config


def contrastive(config: dict[str, Any]) -> dict[str, Any]:
    """Return the open_clip config without CoCa's caption decoder. Other configs are returned unchanged."""
    if "multimodal_cfg" not in config:
        return config
    towers = {name: config[name] | {"output_tokens": False} for name in ("vision_cfg", "text_cfg")}
    return {name: value for name, value in config.items() if name != "multimodal_cfg"} | towers


def with_quick_gelu(name: str) -> bool:
    """Return whether an architecture uses QuickGELU, OpenAI's approximation of GELU."""
    return bool(open_clip_config(name).get("quick_gelu", False))


def architecture(config: ModelConfig, source: str = "", quick_gelu: bool | None = None) -> str:
    """Return the open_clip architecture name whose activation function matches the pretrained weights.

    OpenAI's and several other weights need QuickGELU. open_clip keeps these models under separate names
    (`ViT-B-32-quickgelu`). The same weights also run under the plain name, but score several points lower. `source`
    names a weights file in messages; "" means an open_clip tag or random weights. `quick_gelu` is what the file
    records; if that is nothing (None), `config.quick_gelu` decides.

    Raises `ModelError` if the architecture is unknown, if neither it nor its -quickgelu variant has the activation, if
    `config.quick_gelu` contradicts the weights, or if it is auto, both variants exist and the file records nothing.
    """
    name = config.name.replace("/", "-")
    own = with_quick_gelu(name)
    tag = open_clip.pretrained.get_pretrained_cfg(name, config.pretrained) if config.pretrained else {}
    stated = quick_gelu if source else bool(tag.get("quick_gelu", False)) if tag else None
    setting = {"auto": None, "on": True, "off": False}[config.quick_gelu]
    origin = source or f"model.pretrained={config.pretrained!r}"
    words = {True: "with QuickGELU", False: "without QuickGELU"}
    if stated is not None and setting not in (None, stated):
        raise ModelError(
            f"model.quick_gelu={config.quick_gelu!r}: {origin} was trained {words[stated]}; leave it at auto"
        )
    wanted = stated if stated is not None else setting
    if wanted is None and source and not own and f"{name}-quickgelu" in open_clip.list_models():
        raise ModelError(
            f"{source} does not say whether it was trained with QuickGELU; set model.quick_gelu=on (OpenAI's weights, "
            "and weights trained further from them) or off"
        )
    if wanted is None or wanted == own:
        return name
    if wanted and f"{name}-quickgelu" in open_clip.list_models():
        return f"{name}-quickgelu"
    plain = name.removesuffix("-quickgelu")
    reason = (
        f"model.quick_gelu={config.quick_gelu}" if stated is None else f"{origin} was trained {words[wanted]}"
    )
    remedy = f"{name} exists only {words[own]}" if plain == name else f"set model.name={plain}"
    raise ModelError(f"model.name={config.name!r}: {reason}; {remedy}")


def pretrained_source(config: ModelConfig) -> tuple[Path | None, str]:
    """Return what `config.pretrained` names: (path, ""), (None, open_clip tag), or (None, "") for random weights.

    Raises `ModelError` if the file does not exist or the architecture has no such tag.
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
    """Raise `ModelError` if a model config has an error that can be found without reading weights."""
    _, tag = pretrained_source(config)
    if tag or not config.pretrained:
        architecture(config)
    image_size(config.name)
    text = open_clip_config(config.name)["text_cfg"]
    try:
        hub_config = hub.text_config(text, config.hub_folder) if text.get("hf_model_name") else None
    except hub.HubError as error:
        raise ModelError(f"model.name={config.name!r}: {error}") from error
    width = hub_config.hidden_size if hub_config else text["width"]
    _check_context(config, hub_config)
    if config.kee.enabled and width % config.kee.heads:
        raise ModelError(
            f"model.kee.heads={config.kee.heads}: must divide the text tower's width {width} of {config.name}"
        )


def _check_context(config: ModelConfig, hub_config: Any) -> None:
    text = open_clip_config(config.name)["text_cfg"]
    if hub_config:
        max_positions = getattr(hub_config, "max_position_embeddings", None)  # T5 has none
        if max_positions is not None and "roberta" in hub_config.model_type:
            max_positions -= hub_config.pad_token_id + 1  # RoBERTa's positions start after the padding id
        if max_positions is not None and context_length(config) > max_positions:
            raise ModelError(
                f"model.context_length={config.context_length}: {config.name} has {max_positions} positions; "
                f"set {max_positions} or less"
            )
        return
    if context_length(config) == context_length(ModelConfig(name=config.name)):
        return
    if text.get("embed_cls"):
        key = f"model.context_length={config.context_length}"
        raise ModelError(f"{key}: {config.name} needs its last position for its class token; set 0")
    if text.get("no_causal_mask"):
        raise ModelError(
            f"model.context_length={config.context_length}: {config.name} has no causal mask, so words attend to the "
            "padding after the caption, and another length would change every feature; set 0"
        )


def context_length(config: ModelConfig) -> int:
    """Return the number of caption tokens that the text tower reads, including start and end."""
    return config.context_length or int(open_clip_config(config.name)["text_cfg"].get("context_length", 77))


def most_words(config: ModelConfig) -> int:
    """Return the maximum number of words that the text tower can read, at one token each."""
    return context_length(config) - 2


def pretrained_normalisation(name: str) -> dict[str, Any]:
    """Return the image mean and std that all pretrained weights of an architecture share; {} if they differ.

    A bare weights file records neither value, and SigLIP, CLIPA and MobileCLIP use other values than CLIP.
    """
    tags = open_clip.list_pretrained_tags_by_model(name)
    configs = [open_clip.pretrained.get_pretrained_cfg(name, tag) for tag in tags]
    stats = [{part: config[part] for part in ("mean", "std")} for config in configs]
    return stats[0] if stats and all(other == stats[0] for other in stats) else {}


def image_size(name: str) -> int:
    """Return the side in pixels of the square images that the architecture takes."""
    size = open_clip_config(name)["vision_cfg"].get("image_size", 224)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ModelError(
            f"model.name={name!r}: takes images of {size} pixels; only square ones are supported"
        )
    return int(sides.pop())


_SIZE = 48
_WIDTHS, _STRIDES = (16, 32, 64, 128), (2, 2, 2, 1)
_POOLED_WIDTH = 256


class ScenesTower(nn.Module):
    """Image tower of four convolutions. Its output joins the maximum over all positions and the features per position.

    The maximum alone does not show which of two objects is above the other. From the features per position alone, the
    tower must learn for each position anew how a red ring looks. Accuracy for relations / for attributes on held-out
    scenes, with towers twice as wide, after 500 steps of 128 samples: 0.50 / 0.99 with the maximum, 1.00 / 0.77 with
    features per position, 1.00 / 0.98 with both. This narrower tower takes a third of the time and reaches 1.00 / 0.95.

    `depth` transformer blocks follow the convolutions, for methods such as LoRA that need attention and MLP layers.
    """

    num_features = _POOLED_WIDTH + _WIDTHS[-1] * (_SIZE // 8) ** 2
    default_cfg: dict[str, Any] = {}  # noqa: RUF012  (open_clip's adapter reads it)

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
        self.what = nn.Sequential(nn.Conv2d(_WIDTHS[-1], _POOLED_WIDTH, 1), nn.ReLU())
        self.layers = nn.Sequential(*(Block(_WIDTHS[-1], num_heads=4, mlp_ratio=2.0) for _ in range(depth)))

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Do nothing: the tower has no classifier and only one kind of pooling."""

    def forward(self, image: Tensor) -> Tensor:
        """Return features [B, num_features] of normalized images [B, 3, 48, 48]."""
        grid = self.blocks(image)
        if self.layers:
            tokens = (grid + self.position).flatten(2).transpose(1, 2)  # [B, 36, 128]
            grid = self.layers(tokens).transpose(1, 2).unflatten(2, grid.shape[2:])
        pooled = self.what(grid + self.position).flatten(2).amax(2)
        return torch.cat([pooled, grid.flatten(1)], dim=1)


@register_model  # type: ignore[untyped-decorator]
def sclip_scenes(pretrained: bool = False, **_: Any) -> ScenesTower:
    """Return the tower with random weights; timm finds this function by its name."""
    return ScenesTower()


@register_model  # type: ignore[untyped-decorator]
def sclip_scenes_attention(pretrained: bool = False, **_: Any) -> ScenesTower:
    """Return the tower with one transformer block, which `model.lora` can update."""
    return ScenesTower(depth=1)
