"""The optimizer's groups and the learning rate over a run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sclip.config import TrainConfig
from sclip.model import build_model
from sclip.train.optimizer import learning_rate, make_optimizer
from support.train_cases import MODEL


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
def test_the_rate_rises_over_the_warmup_and_goes_then_as_the_schedule_says(
    schedule: Any, warmup: float, rates: list[float]
) -> None:
    config = TrainConfig(learning_rate=2.0, warmup=warmup, schedule=schedule)
    found = [learning_rate(share, config) / 2.0 for share in (0.0, 0.1, 0.2, 0.4, 0.6, 1.0, 1.2)]
    assert found == pytest.approx(rates, abs=1e-12)


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
