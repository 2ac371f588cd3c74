"""Test one architecture at full width with few layers: two training steps, an evaluation, an export and its reload.

`check` takes the name of the architecture and raises an error if a test fails.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import timm
import torch
from timm.models import model_entrypoint, register_model
from torch import Tensor
from torch.distributed.tensor import DTensor

from sclip.benchmark.towers_hub import CAPTIONS, WORDS
from sclip.config import Config, KEEConfig, ModelConfig, TrainConfig
from sclip.evaluate.recall import rivals
from sclip.model import Tokenizer, build_model, image_size
from sclip.model.export import export, export_clip, load_exported
from sclip.model.hub import hub_name
from sclip.model.structure_clip import StructureCLIP, part_of
from sclip.model.towers import is_hub_tower
from sclip.train.optimizer import make_optimizer
from sclip.train.prefetch import prepared
from sclip.train.sharding import apply
from sclip.train.step import TrainStep

_TRIPLES = [
    [("dog", "lie on", "sofa"), ("brown", "is", "dog")], [("astronaut", "ride", "horse")],
    [("square", "left of", "circle")], [], [("cup", "on", "table")], [("bird", "above", "tree")],
]  # fmt: skip
_NEGATIVES = ["a sofa lies on a brown dog", "a horse rides an astronaut", "a blue square left of a red circle", "",
              "a table on a wooden cup of tea", "a tree above a bird"]  # fmt: skip
_ROWS = 4


class Failed(Exception):
    """Error of an architecture that fails a test; the message is one line."""


def check(name: str, hub_folder: Path, folder: Path) -> None:
    """Train, evaluate and export an architecture with few layers. Raises `Failed`, or any library's error.

    `hub_folder` holds the architecture's hub files, with few layers too; configs and exports are written to `folder`.
    """
    cut = cut_config(name, folder)
    torch.manual_seed(0)
    model = build_model(ModelConfig(name=cut, hub_folder=str(hub_folder), kee=KEEConfig(layers=1)))
    train(model)
    images, texts, recall = _evaluated(model)
    if not (images.isfinite().all() and texts.isfinite().all()):
        raise Failed("features are not finite")
    reloaded = _evaluated(load_exported(export(model, folder / "export")))
    if not (torch.equal(reloaded[0], images) and torch.equal(reloaded[1], texts) and reloaded[2] == recall):
        raise Failed("an export read again has other features")
    if not is_hub_tower(model.text_tower):  # open_clip would load a hub tower from the hub
        _check_open_clip(model, export_clip(model, folder / "clip"))


def cut_config(name: str, folder: Path) -> str:
    """Register the architecture at full width with few layers; return the new name."""
    config = copy.deepcopy(open_clip.get_model_config(name))
    vision, text = config["vision_cfg"], config["text_cfg"]
    if timm_name := vision.get("timm_model_name"):
        vision["timm_model_name"] = _cut_timm(timm_name)
    else:
        vision["layers"] = [1, 1, 1, 1] if isinstance(vision["layers"], list) else 1
    if "layers" in text or "hf_model_name" not in text:
        text["layers"] = 1
    if hub_name(text) and "hf_model_name" not in text:
        text["vocab_size"] = WORDS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"cut-{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"cut-{name}.json")
    return f"cut-{name}"


@functools.cache
def _cut_timm(name: str) -> str:
    with torch.device("meta"):
        for cut in ({"depth": 1}, {"depths": (1, 1, 1, 1)}, {"layers": (1, 1, 1, 1)}, {}):
            try:
                timm.create_model(name, num_classes=0, **cut)
                break
            except TypeError:
                continue

    def made(pretrained: bool = False, **more: Any) -> Any:
        return model_entrypoint(name)(pretrained=pretrained, **(more | cut))

    made.__name__ = f"sclip_cut_{name}"
    made.__module__ = __name__
    register_model(made)
    return made.__name__


def train(model: StructureCLIP, precision: Literal["fp32", "bf16"] = "fp32") -> None:
    """Train two steps. Raises `Failed` if a loss is not finite or a part of the model does not change."""
    settings = TrainConfig(
        batch_size=_ROWS, learning_rate=1e-3, warmup=0.0, micro_batch=2, precision=precision
    )
    config = Config(model=model.config, train=settings)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step = TrainStep(
        apply(model, config.train, torch.device("cpu")), make_optimizer(model, config.train), config
    )
    for number in range(2):
        columns = prepared(_columns(model.config, number), config, model.packs_text)
        batch = {column: torch.from_numpy(np.ascontiguousarray(values)) for column, values in columns.items()}
        metrics = step(batch, 0.5)
        if not math.isfinite(metrics["loss"].item()) or metrics["skipped"].item():
            raise Failed(f"the loss of step {number + 1} is {metrics['loss'].item()}")
    moved = {
        part_of(name)
        for name, parameter in model.named_parameters()
        if not torch.equal(
            parameter.full_tensor() if isinstance(parameter, DTensor) else parameter, before[name]
        )
    }
    if missing := {"image", "text", "kee"} - moved:
        raise Failed(f"two steps do not change {', '.join(sorted(missing))}")


def _columns(model: ModelConfig, step: int) -> dict[str, Any]:
    """Return a batch in which one caption has neither triples nor a negative, and one row is padding."""
    tokenizer, side = Tokenizer(model), image_size(model.name)
    rows = [(step + row + 1) % len(CAPTIONS) for row in range(_ROWS)]
    has_negative = np.array([bool(_NEGATIVES[row]) for row in rows])
    negative = tokenizer.text([_NEGATIVES[row] for row in rows])
    negative[~has_negative] = 0
    triples = tokenizer.triples([_TRIPLES[row] for row in rows])
    exchanged = tokenizer.triples([[(t, r, h) for h, r, t in _TRIPLES[row]] for row in rows])
    return {
        "image": np.random.default_rng(step).integers(0, 256, (_ROWS, 3, side, side), np.uint8),
        "text": tokenizer.text([CAPTIONS[row] for row in rows]),
        "negative_text": negative[:, None], "has_negative": has_negative[:, None],
        "triples": triples, "negative_triples": exchanged[:, None],
        "image_digest": np.arange(_ROWS), "valid": np.array([True] * (_ROWS - 1) + [False]),
    }  # fmt: skip


@torch.no_grad()
def _evaluated(model: StructureCLIP) -> tuple[Tensor, Tensor, dict[str, float]]:
    tokenizer, side = Tokenizer(model.config), image_size(model.config.name)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (len(CAPTIONS), 3, side, side), dtype=torch.uint8, generator=generator)
    ids, triples = (torch.from_numpy(ids) for ids in (tokenizer.text(CAPTIONS), tokenizer.triples(_TRIPLES)))
    model.eval()
    images, texts = model.encode_image(pixels), model.encode_text(ids, triples)
    return images, texts, rivals(images, texts, torch.arange(len(CAPTIONS))).recall()


@torch.no_grad()
def _check_open_clip(model: StructureCLIP, folder: Path) -> None:
    clip = open_clip.create_model(f"local-dir:{folder}").eval()
    ids = torch.from_numpy(Tokenizer(model.config).text(CAPTIONS)).long()
    features = clip.encode_text(ids, normalize=True)
    if not torch.allclose(features, model.eval().encode_text(ids), atol=1e-5):
        raise Failed("open_clip reads other features from its folder")
