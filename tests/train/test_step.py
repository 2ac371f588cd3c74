"""A training step on one rank: what it lowers, bounds, clips and tells."""

from __future__ import annotations

import math

import pytest
import torch

from sclip.config import LossConfig
from sclip.model import build_model
from sclip.train.step import TrainStep, unwrapped
from support.train_cases import VIT, config_with, start, training_batch


def test_without_negatives_the_step_is_that_of_a_batch_that_has_none() -> None:
    config = config_with(LossConfig(negatives="none", hinge_weight=2.0), VIT)
    batch = training_batch(0, VIT)
    bare = {name: column for name, column in batch.items() if "negative" not in name}
    assert len(batch) > len(bare)
    metrics = start(config)(batch, 0.5)
    assert metrics["loss"] == metrics["loss_contrastive"]
    assert "loss_hinge" not in metrics
    torch.testing.assert_close(metrics, start(config)(bare, 0.5))


@pytest.mark.parametrize(("log", "bound"), [(5.0, 100.0), (-0.5, 1.0)])
def test_the_logit_scale_is_kept_between_1_and_100(log: float, bound: float) -> None:
    step = start(config_with(model=VIT))
    with torch.no_grad():
        unwrapped(step.model).logit_scale.log.fill_(log)
    first = step(training_batch(0, VIT), 0.0)
    assert first["logit_scale"].item() == pytest.approx(math.exp(log), rel=1e-4)
    assert step(training_batch(1, VIT), 0.0)["logit_scale"].item() == pytest.approx(bound, rel=1e-4)


def test_gradients_are_scaled_down_to_the_norm_and_the_norm_before_is_told() -> None:
    def after_step(bound: float) -> tuple[float, float]:
        config = config_with(model=VIT, max_grad_norm=bound)
        torch.manual_seed(0)
        model = build_model(VIT)
        before = [p.detach().clone() for p in model.parameters()]
        # Plain descent at rate 1: the way the weights go is the gradient itself.
        step = TrainStep(model, torch.optim.SGD(model.parameters(), fused=True), config)
        norm = step(training_batch(0, VIT), 0.25)["grad_norm"].item()
        moved = torch.cat([(p - old).flatten() for p, old in zip(model.parameters(), before, strict=True)])
        return norm, moved.norm().item() / config.train.learning_rate

    norm, unbounded = after_step(0.0)
    assert norm > 0.2
    assert unbounded == pytest.approx(norm, rel=1e-2)
    assert after_step(0.1) == (pytest.approx(norm), pytest.approx(0.1, rel=1e-2))
