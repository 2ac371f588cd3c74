"""Small models, batches and configs, for tests of the training core on one or several ranks."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sclip.config import Config, KEEConfig, LossConfig, ModelConfig, RunConfig, TrainConfig
from sclip.model import Tokenizer, build_model, image_size
from sclip.model.packing import pack
from sclip.train.optimizer import make_optimizer
from sclip.train.sharding import apply, apply_frozen
from sclip.train.step import TrainStep, unwrapped

open_clip.add_model_config(Path(__file__).parent / "models")

MODEL = ModelConfig(name="scenes-conv", kee=KEEConfig(layers=1, heads=4))
VIT = ModelConfig(name="tests-vit", kee=KEEConfig(layers=2, heads=2))
"""Two blocks in each tower and in the encoder; small enough to train some hundred times in a minute."""
ROWS = 6

Tensors = dict[str, Tensor]

CASES = [
    ("a dog lies on a sofa", "a sofa lies on a dog", ("dog", "lie on", "sofa")),
    ("an astronaut rides a horse", "a horse rides an astronaut", ("astronaut", "ride", "horse")),
    ("a cup under a table", "a table under a cup", ("cup", "under", "table")),
    ("a man with a hat", "a hat with a man", ("man", "with", "hat")),
    ("a quiet evening", "", None),
    ("a bird above a tree", "a tree above a bird", ("bird", "above", "tree")),
]

tokenizer_of = functools.cache(Tokenizer)
"""Cached, since a new tokenizer reads its vocabulary for 70 ms, while four steps of the small model take 80 ms."""


def training_batch(
    step: int,
    model: ModelConfig = MODEL,
    valid: Sequence[bool] | None = None,
    negatives: int = 1,
    positives: bool = False,
) -> Tensors:
    """Return the global batch of a step: random images, and captions of which one in six has no negative.

    `valid` has an entry per row, False for padding; by default there are ROWS rows, and the last is padding. With two
    `negatives`, odd rows with a triple have a second negative, whose object is also its subject. With `positives`,
    captions with a triple have a second wording.
    """
    valid = [True] * (ROWS - 1) + [False] if valid is None else valid
    tokenizer = tokenizer_of(model)
    generator = torch.Generator().manual_seed(step)
    text, negative_text, triples, negative_triples = [], [], [], []
    for row in range(len(valid)):
        caption, negative, triple = CASES[(row + step) % len(CASES)]
        head, relation, tail = triple or ("", "", "")
        second = f"a {head} {relation} a {head}" if triple and row % 2 else ""
        text.append(caption)
        negative_text += [negative, second][:negatives]
        triples.append([triple] if triple else [])
        exchanged = [(tail, relation, head)] if negative else []
        negative_triples += [exchanged, [(head, relation, head)] if second else []][:negatives]
    wordings = {
        "positive_text": torch.from_numpy(
            tokenizer.text([f"there {text[k]}" if triples[k] else "" for k in range(len(text))])
        )[:, None],
        "positive_triples": torch.from_numpy(tokenizer.triples(triples))[:, None],
        "has_positive": torch.tensor([bool(row_triples) for row_triples in triples]),
    }
    wordings["positive_text"][~wordings["has_positive"]] = 0
    side = image_size(model.name)
    per_caption = (len(valid), negatives)
    return (wordings if positives else {}) | {
        "image": torch.randint(0, 256, (len(valid), 3, side, side), dtype=torch.uint8, generator=generator),
        "text": torch.from_numpy(tokenizer.text(text)),
        "negative_text": torch.from_numpy(tokenizer.text(negative_text)).unflatten(0, per_caption),
        "triples": torch.from_numpy(tokenizer.triples(triples)),
        "negative_triples": torch.from_numpy(tokenizer.triples(negative_triples)).unflatten(0, per_caption),
        "has_negative": torch.tensor([bool(negative) for negative in negative_text]).unflatten(
            0, per_caption
        ),
        "image_digest": torch.arange(len(valid)) + 100 * step,
        "valid": torch.tensor(valid),
    }


def with_units(batch: Tensors) -> Tensors:
    """Return the batch with a unit for each row that has a negative: the caption, and the negative as its foil."""
    pairs = {
        f"unit_{name}": torch.stack([batch[name], batch[f"negative_{name}"][:, 0]], dim=1)
        for name in ("text", "triples")
    }
    return batch | pairs | {"has_unit": batch["has_negative"][:, 0]}


def small(width: int = 3, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the smallest model that a checkpoint can hold, and its optimizer after one step."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def part_of(batch: Tensors, rank: int, world_size: int) -> Tensors:
    return {name: column.chunk(world_size)[rank] for name, column in batch.items()}


def config_with(loss: LossConfig | None = None, model: ModelConfig = MODEL, **train: Any) -> Config:
    train = {"batch_size": ROWS, "learning_rate": 1e-3, "warmup": 0.25} | train
    loss = loss or LossConfig(hinge_weight=2.0)
    model = dataclasses.replace(model, logit_bias=-10.0 if loss.contrastive == "sigmoid" else 0.0)
    run = RunConfig(init_from="a start" if loss.distil or model.lora.rank else "")
    return Config(run=run, model=model, loss=loss, train=TrainConfig(**train))


def start(
    config: Config, seed: int = 0, compile_backend: str | Callable[..., Any] = "aot_eager"
) -> TrainStep:
    """Return a training step of a new model with random weights. Compilation skips the compiler's slow last stage.

    A teacher, if the config asks for one, has other random weights.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    cpu = torch.device("cpu")
    model = apply(build_model(config.model), config.train, cpu, compile_backend)
    teacher = None
    if config.loss.distil:
        torch.manual_seed(seed + 100)
        teacher = apply_frozen(build_model(config.model), model, config.train, cpu, compile_backend)
    return TrainStep(model, make_optimizer(model, config.train), config, teacher)


def losses(
    step: TrainStep, numbers: Sequence[int], rank: int = 0, world_size: int = 1, rows: int = ROWS
) -> list[float]:
    values: list[float] = []
    for number in numbers:
        batch = training_batch(number, step.config.model, [True] * (rows - 1) + [False])
        metrics = step(part_of(batch, rank, world_size), 0.1 * number)
        values += [metrics["loss"].item(), metrics["grad_norm"].item()]
    return values


def whole_weights(model: nn.Module) -> Tensors:
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
        for name, tensor in unwrapped(model).state_dict().items()
    }


FORMS = {
    "infonce": LossConfig(hinge_weight=2.0),
    "max_margin": LossConfig(contrastive="max_margin", contrastive_warmup=0.0),
    "sigmoid": LossConfig(contrastive="sigmoid"), "negatives as texts": LossConfig(negatives_as_texts=True),
    "no negatives": LossConfig(negatives="none"), "distil": LossConfig(distil=2.0),
    "positives": LossConfig(positives=2.0),
}  # fmt: skip


def batch_for(config: Config, number: int, rank: int = 0, world_size: int = 1, rows: int = ROWS) -> Tensors:
    """Return a rank's share of a step's batch, packed if the config says so. Its last row is padding."""
    valid = [True] * (rows - 1) + [False]
    whole = training_batch(number, config.model, valid, positives=config.loss.positives > 0)
    batch = part_of(whole, rank, world_size)
    if config.loss.negatives == "none":
        batch = {name: column for name, column in batch.items() if "negative" not in name}
    if not config.train.pack_text:
        return batch
    share = rows // world_size
    columns = pack(
        {name: c.numpy() for name, c in batch.items()}, share // (config.train.micro_batch or share)
    )
    return {name: torch.from_numpy(column) for name, column in columns.items()}


WHITE = 255


def with_overflow(step: TrainStep, bad: float = math.nan) -> TrainStep:
    """Make the image tower return `bad` for entirely white images, on the rank that has them."""

    def overflow(_: Any, args: tuple[Any, ...], features: Tensors) -> Tensors:
        white = (args[0]["image"] == WHITE).flatten(1).all(1, keepdim=True)
        image_features = torch.where(white, bad, 1.0) * features["image_features"]
        return features | {"image_features": image_features}

    unwrapped(step.model).register_forward_hook(overflow)
    return step
