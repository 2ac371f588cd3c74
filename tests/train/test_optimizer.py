"""The optimizer's groups and the learning rate over a run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sclip.config import TrainConfig
from sclip.model import build_model
from sclip.train.optimizer import learning_rate, make_optimizer
from support.train_cases import MODEL, config_with, start, training_batch


def test_the_rate_rises_from_0_to_its_peak_and_falls_to_0() -> None:
    config = TrainConfig(learning_rate=3e-4, warmup=0.1)
    assert learning_rate(0.0, config) == 0
    assert learning_rate(0.05, config) == pytest.approx(1.5e-4)
    assert learning_rate(0.1, config) == pytest.approx(3e-4)
    assert learning_rate(0.55, config) == pytest.approx(1.5e-4)
    assert learning_rate(1.0, config) == pytest.approx(0, abs=1e-12)
    rates = [learning_rate(share / 100, config) for share in range(101)]
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("cosine", [0.0, 0.5, 1.0, 0.5 + 0.25 * math.sqrt(2.0), 0.5, 0.0, 0.0]),
        ("linear", [0.0, 0.5, 1.0, 0.75, 0.5, 0.0, 0.0]),
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_after_the_warmup_the_rate_goes_as_the_schedule_says(schedule: Any, rates: list[float]) -> None:
    config = TrainConfig(learning_rate=2.0, warmup=0.2, schedule=schedule)
    found = [learning_rate(share, config) / 2.0 for share in (0.0, 0.1, 0.2, 0.4, 0.6, 1.0, 1.2)]
    assert found == pytest.approx(rates, abs=1e-12)


def test_the_step_follows_the_schedule() -> None:
    def rate(**train: Any) -> float:
        return start(config_with(**train))(training_batch(0), 0.625)["learning_rate"].item()

    assert rate(schedule="linear") == pytest.approx(5e-4)
    assert rate(schedule="constant") == pytest.approx(1e-3)
    assert rate(schedule="linear", warmup=0.0) == pytest.approx(3.75e-4)


@pytest.mark.parametrize(("warmup", "first", "last"), [(0.0, 1.0, 0.0), (1.0, 0.0, 1.0)])
def test_a_run_may_have_no_warmup_or_nothing_else(warmup: float, first: float, last: float) -> None:
    config = TrainConfig(learning_rate=1.0, warmup=warmup)
    assert learning_rate(0.0, config) == pytest.approx(first)
    assert learning_rate(1.0, config) == pytest.approx(last)
    assert learning_rate(0.5, config) == pytest.approx(0.5)


def test_progress_beyond_the_end_keeps_the_rate_at_0() -> None:
    assert learning_rate(1.2, TrainConfig(warmup=0.1)) == pytest.approx(0, abs=1e-15)


def test_matrices_decay_and_vectors_gains_and_the_logit_scale_do_not() -> None:
    torch.manual_seed(0)
    model = build_model(MODEL)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, TrainConfig(weight_decay=0.3, beta2=0.9)).param_groups
    decayed, kept = ({names[id(p)] for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {group["betas"] for group in groups} == {(0.9, 0.9)}
    assert decayed | kept == set(names.values())
    assert not decayed & kept
    assert {"clip.token_embedding.weight", "kee.projection.weight", "clip.text_projection"} <= decayed
    assert {"logit_scale.log", "kee.ln_pre.weight", "clip.ln_final.weight"} <= kept
    assert {name for name in names.values() if name.endswith("bias")} <= kept


def test_frozen_weights_are_not_given_to_the_optimizer() -> None:
    model = build_model(MODEL)
    model.clip.visual.requires_grad_(False)
    given = {id(p) for group in make_optimizer(model, TrainConfig()).param_groups for p in group["params"]}
    assert given == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(given) < len(list(model.parameters()))
