"""The learning rate over a run and of each part, and the moving average of the trained weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from sclip.config import TrainConfig
from sclip.model.structure_clip import part_of
from sclip.train.optimizer import EMA, learning_rate
from sclip.train.step import unwrapped
from support.train_cases import VIT, config_with, start, training_batch


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("cosine", 0.2, [0.0, 0.5, 1.0, 0.5 + 0.25 * math.sqrt(2.0), 0.5, 0.0, 0.0]),
        ("linear", 0.2, [0.0, 0.5, 1.0, 0.75, 0.5, 0.0, 0.0]),
        ("constant", 0.2, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", 0.0, [1.0, 0.9, 0.8, 0.6, 0.4, 0.0, 0.0]),
        ("linear", 1.0, [0.0, 0.1, 0.2, 0.4, 0.6, 1.0, 0.0]),
    ],
)
def test_the_learning_rate_rises_during_warmup_and_then_follows_the_schedule(
    schedule: Any, warmup: float, rates: list[float]
) -> None:
    config = TrainConfig(learning_rate=2.0, warmup=warmup, schedule=schedule)
    shares = [learning_rate(share, config) / 2.0 for share in (0.0, 0.1, 0.2, 0.4, 0.6, 1.0, 1.2)]
    assert shares == pytest.approx(rates, abs=1e-12)


@torch.no_grad()
def test_an_average_moves_by_its_share_and_faster_at_the_start() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.fill_(0.0)
    ema, expected = EMA(model, 0.9), 0.0
    for step in (1, 2, 200, 201):
        model.weight.fill_(float(step))
        ema.update(step)
        kept = min(0.9, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * step
        assert ema.weights["weight"].item() == pytest.approx(expected, rel=1e-4)
    before = ema.weights["weight"].clone()
    ema.update(202, torch.tensor(1.0))  # a step that made no update
    assert torch.equal(ema.weights["weight"], before)
    ema.update(202, torch.tensor(0.0))
    assert ema.weights["weight"] > before


def test_frozen_weights_have_no_average() -> None:
    step = start(config_with(model=VIT, lr_scale_image=0.0))
    names = set(EMA(unwrapped(step.model), 0.9).weights)
    assert names == {name for name, p in step.model.named_parameters() if p.requires_grad}
    assert not any(name.startswith("clip.visual.") for name in names)


def test_each_optimizer_group_has_the_rate_of_its_part_and_frozen_parts_have_no_group() -> None:
    step = start(config_with(model=VIT, warmup=0.5, lr_scale_image=0.1, lr_scale_text=0.0, lr_scale_kee=4.0))
    names = {id(p): name for name, p in step.model.named_parameters()}
    assert step(training_batch(0, VIT), 0.25)["learning_rate"].item() == pytest.approx(5e-4)
    groups = {
        (part_of(names[id(p)]), p.ndim >= 2): (group["lr"], group["weight_decay"])
        for group in step.optimizer.param_groups
        for p in group["params"]
    }
    rates = {"image": 5e-5, "kee": 2e-3, None: 5e-4}
    for (part, matrix), (rate, decay) in groups.items():
        assert rate == pytest.approx(rates[part])
        assert decay == (0.1 if matrix else 0.0)
    assert {part for part, _ in groups} == rates.keys()
    assert {part_of(name) for name, p in step.model.named_parameters() if p.requires_grad} == rates.keys()
