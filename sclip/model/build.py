"""Build the model that a config describes, with random weights or weights from a tag, a file or a folder."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sclip.config import ModelConfig
from sclip.model import hub, lora
from sclip.model import weights as files
from sclip.model.architecture import (
    ModelError,
    architecture,
    check_model,
    context_length,
    open_clip_config,
    pretrained_normalisation,
    pretrained_source,
)
from sclip.model.attention import make_lean
from sclip.model.structure_clip import CLIP_PREFIX, StructureCLIP
from sclip.model.tokenizer import Tokenizer
from sclip.model.towers import fitted_positions, skip_unread_tokens, text_tower
from sclip.model.weights import Weights

__all__ = [
    "SCALARS",
    "assemble",
    "build_model",
    "check_fit",
    "check_trainable",
    "meta_model",
    "parameter_count",
    "pretrained_weights",
    "resolved",
    "unpackable_reason",
]

SCALARS = {"logit_scale.log": "logit_scale", "logit_bias.value": "logit_bias"}
"""Name of each scalar parameter in `StructureCLIP` -> its name in open_clip's CLIP."""

_KEE_WORDS = "kee.token_embedding.weight"
_DECODER = CLIP_PREFIX + "text_decoder."
_OLD_BUFFER = CLIP_PREFIX + "text.transformer.embeddings.position_ids"  # saved by older transformers
_IMAGE_POSITIONS = CLIP_PREFIX + "visual.positional_embedding"
_OPTIONAL = {
    "kee.": "the knowledge encoder starts anew",
    "logit_bias.": "the logit bias starts anew",
    "image_mean": "",
    "image_inverse_std": "",
}
"""Prefixes of tensors that weights may lack; the model then keeps its initial values. Each has a note for the user."""


def build_model(config: ModelConfig, load_weights: bool = True) -> StructureCLIP:
    """Return the model on the CPU in fp32, with random weights or the weights that `config.pretrained` names.

    `load_weights=False` skips pretrained weights, for a checkpoint that is loaded later. Raises `ModelError` for an
    unknown architecture or tag, a missing or unfitting file, or an activation that contradicts the weights.
    """
    check_model(config if load_weights else dataclasses.replace(config, pretrained=""))
    return assemble(config, pretrained_weights(config) if load_weights else None, tag=load_weights)


def check_trainable(config: ModelConfig, has_start: bool = False) -> StructureCLIP:
    """Return the model on the meta device; raise `ModelError` if it cannot be trained. Takes about a second.

    A model with BatchNorm needs starting weights: from `config.pretrained` or, if `has_start`, from another source.
    """
    check_model(config)
    Tokenizer(config)
    with torch.device("meta"):
        model = _from_open_clip(dataclasses.replace(config, pretrained=""), "")
        if config.lora.rank:
            lora.add(model)
    layer = next((name for name, module in model.clip.named_modules() if isinstance(module, _BatchNorm)), "")
    if layer and not config.pretrained and not has_start:
        raise ModelError(
            f"model.name={config.name!r}: has BatchNorm ({layer}), which keeps the statistics of the starting weights, "
            "but random weights have none; set model.pretrained or run.init_from, or choose a ViT"
        )
    return model


@functools.lru_cache(maxsize=8)
def meta_model(config: ModelConfig) -> StructureCLIP:
    """Return the model on the meta device, to read its sizes. Callers share this model and must not change it."""
    with torch.device("meta"):
        return build_model(config, load_weights=False)


def unpackable_reason(config: ModelConfig) -> str:
    """Return the reason why this model cannot take packed captions; "" if it can."""
    return meta_model(config).unpackable


@functools.lru_cache(maxsize=8)
def parameter_count(config: ModelConfig) -> int:
    """Return the number of the model's parameters in training, including low-rank updates (`model.lora`)."""
    model = meta_model(config)
    if config.lora.rank:
        lora.add(model := copy.deepcopy(model))
    return sum(parameter.numel() for parameter in model.parameters())


def assemble(config: ModelConfig, weights: Weights | None, tag: bool = True) -> StructureCLIP:
    """Return the model with `weights`, on the CPU in fp32. Raises the errors of `build_model`.

    If `weights` is None, the model gets the weights of the open_clip tag in `config.pretrained`. Without such a tag, or
    if `tag` is False, its weights are random. `model.config.name` is the architecture whose activation matches.
    """
    config = dataclasses.replace(config, name=_architecture(config, weights))
    source = config.pretrained if tag and weights is None else ""
    own = dataclasses.replace(config, context_length=0)
    if source and context_length(config) != context_length(own):
        # Load at the original length and stretch later: open_clip stretches positions in another way.
        weights = Weights(f"model.pretrained={source!r}", _from_open_clip(own, source).state_dict())
        source = ""
    model = _from_open_clip(config, source)
    if weights is not None:
        model.load_state_dict(_fitted(model, weights)[0])
    return model


def check_fit(config: ModelConfig, weights: Weights) -> list[str]:
    """Compare the weights' names and shapes with the model's. Return notes on differences; raise as `assemble` does."""
    with torch.device("meta"):
        _, notes = _fitted(
            _from_open_clip(dataclasses.replace(config, name=_architecture(config, weights)), ""), weights
        )
    return notes + [f"left out: {entry}" for entry in weights.left_out]


def pretrained_weights(config: ModelConfig) -> Weights | None:
    """Return the weights if `config.pretrained` names a file or folder; otherwise None."""
    path, _ = pretrained_source(config)
    return files.read(path, f"model.pretrained={config.pretrained!r}") if path else None


def resolved(config: ModelConfig) -> ModelConfig:
    """Return the config with the name of the architecture whose activation matches its pretrained weights."""
    return dataclasses.replace(config, name=_architecture(config, pretrained_weights(config)))


def _from_open_clip(config: ModelConfig, tag: str) -> StructureCLIP:
    """Return a model of the architecture `config.name` on the default device; `tag` names its weights ("": random)."""
    text = open_clip_config(config.name)["text_cfg"]
    more: dict[str, Any] = {} if tag else {"force_preprocess_cfg": pretrained_normalisation(config.name)}
    try:
        if text.get("hf_model_name"):  # skip the hub's weights: they are not CLIP's
            folder = hub.source(text["hf_model_name"], config.hub_folder)
            more["text_cfg"] = text | {"hf_model_name": folder, "hf_model_pretrained": False}
        with _without_warnings():
            clip = open_clip.create_model(
                config.name,
                pretrained=tag or None,
                device=torch.get_default_device(),
                force_context_length=config.context_length or None,
                pretrained_text=False,
                **more,
            )
    except (
        RuntimeError,
        ImportError,
        hub.HubError,
    ) as error:  # a failed download, a tower that timm lacks
        key = f"model.pretrained={tag!r}" if tag else f"model.name={config.name!r}: cannot be built here"
        raise ModelError(f"{key}: {' '.join(str(error).split())}") from error
    if isinstance(clip, open_clip.CoCa):
        clip.text_decoder = None  # no loss trains it
    skip_unread_tokens(text_tower(clip))
    model = StructureCLIP(clip, config)
    if config.attention == "lean":
        make_lean(model)
    return model


def _architecture(config: ModelConfig, weights: Weights | None) -> str:
    return architecture(config, weights.source, weights.quick_gelu) if weights else architecture(config)


def _fitted(model: StructureCLIP, weights: Weights) -> tuple[dict[str, Tensor], list[str]]:
    """Return the model's state dict with these weights, and notes; raise `ModelError` if a tensor does not fit."""
    own = model.state_dict()
    state = _named_as_in(model, weights)
    initial: dict[str, Tensor] = {}
    notes: list[str] = []
    for part, note in _OPTIONAL.items():
        part_tensors = {name: tensor for name, tensor in own.items() if name.startswith(part)}
        if part_tensors and not any(name.startswith(part) for name in state):
            initial |= part_tensors
            notes += [note] if note else []
    if any(name.startswith(_DECODER) for name in state):
        state = {name: tensor for name, tensor in state.items() if not name.startswith(_DECODER)}
        notes.append("left out: the caption decoder")
    if _KEE_WORDS in own:  # the KEE's own word table, if it is not in the weights, starts as the text tower's
        table = model.token_embedding.weight
        words = next(name for name, parameter in model.named_parameters() if parameter is table)
        initial[_KEE_WORDS] = state.get(words, own[words])
    if _IMAGE_POSITIONS in own and _IMAGE_POSITIONS in state:
        notes += _resize(model.clip, state, len(own[_IMAGE_POSITIONS]))
    notes += _fit_context(model, state, own, weights.source)
    state = initial | state
    shapes = [
        f"{name} {list(state[name].shape)}, not {list(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    differences = {
        "missing in it": sorted(own.keys() - state.keys()),
        "unknown to the model": sorted(state.keys() - own.keys()),
        "of another shape": shapes,
    }
    errors = [f"{len(names)} {kind} ({'; '.join(names[:3])})" for kind, names in differences.items() if names]
    if errors:
        origin = f" (it is of {weights.architecture})" if weights.architecture else ""
        raise ModelError(
            f"{weights.source}{origin} does not fit model.name={model.config.name!r} with "
            f"model.kee={model.config.kee}: tensors {', '.join(errors)}"
        )
    return state, notes


def _named_as_in(model: StructureCLIP, weights: Weights) -> dict[str, Tensor]:
    """Return the tensors under the model's names, which differ for the scalars and the text tower."""
    clip_tensors = {
        n.removeprefix(CLIP_PREFIX): t for n, t in weights.tensors.items() if n.startswith(CLIP_PREFIX)
    }
    other_tensors = {n: t for n, t in weights.tensors.items() if not n.startswith(CLIP_PREFIX)}
    clip_tensors = convert_state_dict(model.clip, clip_tensors)
    if model.text_tower is not model.clip:
        clip_tensors = convert_to_custom_text_state_dict(clip_tensors)
    state = other_tensors | {CLIP_PREFIX + name: tensor for name, tensor in clip_tensors.items()}
    state.pop(_OLD_BUFFER, None)
    for name, in_clip in SCALARS.items():
        if CLIP_PREFIX + in_clip in state:
            state[name] = state.pop(CLIP_PREFIX + in_clip).reshape(-1)
    return state


def _resize(clip: nn.Module, state: dict[str, Tensor], places: int) -> list[str]:
    """Resize a ViT's position embeddings [1 + n * n, W] in `state` to [places, W], as open_clip does; return notes."""
    embeddings = state[_IMAGE_POSITIONS]
    side = math.isqrt(len(embeddings) - 1)
    if len(embeddings) == places or side * side != len(embeddings) - 1:  # or another layout
        return []
    resized = {"visual.positional_embedding": embeddings.float()}
    resize_pos_embed(resized, clip)
    (state[_IMAGE_POSITIONS],) = resized.values()
    return [f"positions of {side} x {side} patches are resized to the model's {places - 1}"]


def _fit_context(
    model: StructureCLIP, state: dict[str, Tensor], own: Mapping[str, Tensor], source: str
) -> list[str]:
    """Fit the caption position embeddings [L, W] in `state` to the model's context length; return notes."""
    name = f"{CLIP_PREFIX}{'' if model.text_tower is model.clip else 'text.'}positional_embedding"
    if name not in state or name not in own or state[name].shape[1:] != own[name].shape[1:]:
        return []  # no such embeddings, or a mismatch that `_fitted` reports
    held, wanted = len(state[name]), len(own[name])
    if held == wanted:
        return []
    if not model.config.context_length:
        raise ModelError(
            f"{source}: its text tower reads {held} tokens, but {model.config.name} reads {wanted}; set "
            f"model.context_length={held} to keep this length, or {wanted} to change it"
        )
    try:
        state[name] = fitted_positions(state[name], wanted)
    except ValueError as error:
        raise ModelError(f"model.context_length={wanted}: {source} has {error}; set {held}") from error
    if wanted < held:
        return [f"text positions after the first {wanted} are left out"]
    return [f"the {held} text positions are stretched to {wanted}"]


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence open_clip's warning about random weights: a file may be loaded afterwards."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
