"""Every option of model, loss and training changes what it should in a run, and nothing else."""

from __future__ import annotations

import copy
import functools
import re
from typing import Any

import numpy as np
import pytest
import torch

from sclip.config import Config, LossConfig, RunConfig, TrainConfig
from sclip.config.loader import from_tree, keys, to_tree
from sclip.model import build_model
from sclip.train.optimizer import learning_rate, make_optimizer
from sclip.train.prefetch import prepared
from sclip.train.sharding import apply, apply_frozen
from sclip.train.step import TrainStep, unwrapped
from support.paths import ROOT
from support.train_cases import MODEL, training_batch, with_units

SECTIONS = ("model", "loss", "train", "checkpoint", "health")
BASE = Config(
    run=RunConfig(init_from="weights"),
    model=MODEL,
    loss=LossConfig(hinge_weight=2.0, positives=0.5),
    train=TrainConfig(batch_size=6, learning_rate=1e-3, warmup=0.1),
)

# Each caption here has one triple, so the number of attention heads changes neither loss nor weights.
CHANGES: dict[str, tuple[Any, str]] = {
    "model.logit_bias": (-10.0, "tensors groups"),
    "model.context_length": (20, "tensors loss weights"),
    "model.attention": ("plain", "kept"),
    "model.kee.enabled": (False, "tensors groups columns metrics kept loss weights"),
    "model.kee.weight": (0.9, "loss weights"),
    "model.kee.form": ("sum", "loss weights"),
    "model.kee.on_negatives": (False, "loss weights"),
    "model.kee.own_embeddings": (True, "tensors groups weights"),
    "model.kee.layers": (2, "tensors groups kept loss weights"),
    "model.kee.heads": (2, "kept"),
    "loss.contrastive": ("max_margin", "metrics kept loss weights"),
    "loss.negatives": ("none", "columns metrics kept loss weights"),
    "loss.negatives_as_texts": (True, "kept loss weights"),
    "loss.hinge_weight": (5.0, "loss weights"),
    "loss.hinge_margin": (0.05, "loss weights"),
    "loss.positives": (0.0, "columns metrics kept loss weights"),
    "loss.positive_margin": (1.0, "loss weights"),
    "loss.units": (5.0, "columns metrics kept loss weights"),
    "loss.distil": (5.0, "metrics kept weights"),  # the first step's divergence is 0
    "train.precision": ("bf16", "kept loss weights"),
    "train.activation_checkpointing": ("block", "kept"),
    "train.micro_batch": (2, "columns passes kept"),
    "train.pack_text": (False, "columns kept"),
    "train.learning_rate": (2e-3, "rates weights"),
    "train.schedule": ("linear", "rates weights"),
    "train.warmup": (0.4, "rates weights"),
    "train.lr_scale_image": (0.0, "groups kept weights"),
    "train.lr_scale_text": (0.0, "groups kept weights"),
    "train.lr_scale_kee": (0.5, "groups weights"),
    "train.weight_decay": (0.9, "groups weights"),
    "train.beta2": (0.5, "groups weights"),
    "train.max_grad_norm": (0.01, "weights"),
}
"""By key: another value, and everything that differs with it."""


def with_value(key: str, value: Any) -> Config:
    tree = to_tree(BASE)
    *sections, name = key.split(".")
    functools.reduce(lambda section, part: section[part], sections, tree)[name] = value
    return from_tree(tree)


def observed(config: Config) -> dict[str, Any]:
    """Train two steps and return everything that the tests compare."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain = build_model(config.model)
    if plain.kee is not None:  # seeded by name, so that an option that adds weights changes no other weights
        for name, parameter in plain.named_parameters():
            if name.startswith("kee.") and "token" not in name:
                generator = torch.Generator().manual_seed(len(name))
                with torch.no_grad():
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    teacher = copy.deepcopy(plain) if config.loss.distil else None
    model = apply(plain, config.train, torch.device("cpu"))
    if teacher is not None:
        teacher = apply_frozen(teacher, model, config.train, torch.device("cpu"))
    optimizer = make_optimizer(model, config.train)
    step = TrainStep(model, optimizer, config, teacher)
    passes: list[int] = []
    unwrapped(model).register_forward_hook(lambda *_: passes.append(1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    metrics: dict[str, torch.Tensor] = {}
    losses = []
    columns: dict[str, Any] = {}
    for number in range(2):
        raw_batch = training_batch(number, positives=config.loss.positives > 0)
        raw_batch = with_units(raw_batch) if config.loss.units else raw_batch
        host = {name: tensor.numpy() for name, tensor in raw_batch.items()}
        columns = prepared(host, config, unwrapped(model).packs_text)
        batch = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            metrics = step(batch, 0.3 + 0.1 * number)
        losses.append(metrics["loss"].item())
    after = model.state_dict()
    hyper = ("lr_scale", "weight_decay", "betas")
    return {
        "tensors": {name: tuple(tensor.shape) for name, tensor in before.items()},
        "groups": [(len(g["params"]), *(g.get(name) for name in hyper)) for g in optimizer.param_groups],
        "columns": {name: column.shape for name, column in columns.items()},
        "metrics": sorted(metrics),
        "passes": len(passes),
        "kept": kept,
        "rates": [learning_rate(share / 10, config.train) for share in range(11)],
        "loss": losses[0],
        "weights": sum((after[name].double() - before[name]).norm().item() for name in sorted(before)),
    }


@functools.cache
def base() -> dict[str, Any]:
    return observed(BASE)


@pytest.mark.parametrize("key", CHANGES)
def test_an_option_changes_the_listed_observations_and_nothing_else(key: str) -> None:
    value, expected = CHANGES[key]
    assert value != keys()[key][0] or value != getattr(BASE, key.split(".")[0])
    actual = observed(with_value(key, value))
    # Sums in another order round differently, so loss and weights are compared approximately.
    close = ("loss", "weights")
    changed = {
        name for name, reference in base().items()
        if (actual[name] != pytest.approx(reference, rel=2e-5) if name in close else actual[name] != reference)
    }  # fmt: skip
    assert changed == set(expected.split())


def test_every_option_is_set_in_some_test() -> None:
    """Every option that is not in CHANGES (it changes data or code around a step) is set in another test."""
    other_tests = "\n".join(
        file.read_text() for file in (ROOT / "tests").glob("*/test_*.py") if file.parent.name != "config"
    )
    for key in keys().keys() - CHANGES.keys():
        section, _, name = key.rpartition(".")
        if section.split(".")[0] in SECTIONS:
            assert re.search(rf"\b{name}=|{section}\.{name}|\b{name}: |\"{name}\"", other_tests), key
