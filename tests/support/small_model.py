"""The small model of the scenes, with captions and triples, for the tests of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sclip.config import KEEConfig, ModelConfig
from sclip.inference.scorer import Scorer
from sclip.model import StructureCLIP, Tokenizer, build_model, image_size

NAME = "scenes-conv"
SMALL = ModelConfig(name=NAME, kee=KEEConfig(layers=1, heads=4))

END = 49407
"""CLIP's end-of-text token."""

Triples = Sequence[tuple[str, str, str]]

CAPTIONS = [
    "a brown dog lies on a sofa",
    "an astronaut rides a horse",
    "a red square left of a blue circle",
    "a cup of tea on a wooden table",
]
TRIPLES: list[Triples] = [
    [("dog", "lie on", "sofa"), ("brown", "is", "dog")],
    [("astronaut", "ride", "horse")],
    [("red", "is", "square"), ("blue", "is", "circle"), ("square", "left of", "circle")],
    [("cup of tea", "on", "table"), ("wooden", "is", "table")],
]


def small_model(seed: int = 0, config: ModelConfig = SMALL) -> StructureCLIP:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return build_model(config)


def text_ids(tokenizer: Tokenizer, captions: Sequence[str] = CAPTIONS) -> Tensor:
    return torch.from_numpy(tokenizer.text(captions))


def triple_ids(tokenizer: Tokenizer, triples: Sequence[Triples] = TRIPLES) -> Tensor:
    return torch.from_numpy(tokenizer.triples(triples))


def pictures(rows: int, model_name: str = NAME) -> Tensor:
    side = image_size(model_name)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=generator)


def assert_same_weights(model: StructureCLIP, expected: StructureCLIP, prefix: str = "") -> None:
    state = {name: tensor for name, tensor in expected.state_dict().items() if name.startswith(prefix)}
    assert state
    for name, tensor in state.items():
        assert torch.equal(model.state_dict()[name], tensor), name


def small_scorer() -> Scorer:
    return Scorer(small_model())
