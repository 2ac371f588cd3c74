"""A training step on one rank: what it lowers, bounds, clips and tells, and when it stops the run."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sclip.config import LossConfig
from sclip.model import build_model
from sclip.train.step import TrainStep, unwrapped
from support.train_cases import MODEL, config_with, start, training_batch


def moved(weights: dict[str, Tensor]) -> Tensor:
    """Return how far training moved every weight from the start, as one vector."""
    torch.manual_seed(0)
    before = build_model(MODEL).state_dict()
    assert before.keys() == weights.keys()
    return torch.cat([(weights[name] - before[name]).flatten() for name in sorted(before)])


def test_without_negatives_the_step_is_that_of_a_batch_that_has_none() -> None:
    config = config_with(LossConfig(negatives="none", hinge_weight=2.0))
    batch = training_batch(0)
    bare = {name: column for name, column in batch.items() if "negative" not in name}
    with_columns, without_columns = start(config), start(config)
    metrics = with_columns(batch, 0.5)
    assert metrics["loss"] == metrics["loss_contrastive"]
    assert "loss_hinge" not in metrics
    torch.testing.assert_close(metrics, without_columns(bare, 0.5))
    assert len(batch) > len(bare)


def test_with_negatives_the_hinge_is_part_of_the_loss() -> None:
    metrics = start(config_with())(training_batch(0), 0.5)
    assert metrics["loss_hinge"] > 0
    torch.testing.assert_close(metrics["loss"], metrics["loss_contrastive"] + 2.0 * metrics["loss_hinge"])


@pytest.mark.parametrize(("log", "bound"), [(5.0, 100.0), (-0.5, 1.0)])
def test_the_logit_scale_is_kept_between_1_and_100(log: float, bound: float) -> None:
    step = start(config_with())
    with torch.no_grad():
        unwrapped(step.model).logit_scale.log.fill_(log)
    first = step(training_batch(0), 0.0)
    assert first["logit_scale"].item() == pytest.approx(math.exp(log), rel=1e-4)
    assert step(training_batch(1), 0.0)["logit_scale"].item() == pytest.approx(bound, rel=1e-4)


def test_gradients_are_scaled_down_to_the_norm_and_the_norm_before_is_told() -> None:
    def after_step(bound: float) -> tuple[float, Tensor]:
        config = config_with(max_grad_norm=bound)
        torch.manual_seed(0)
        model = build_model(MODEL)
        # Plain descent at rate 1: the way the weights go is the gradient itself.
        step = TrainStep(model, torch.optim.SGD(model.parameters(), fused=True), config)
        norm = step(training_batch(0), 0.25)["grad_norm"].item()
        return norm, moved(model.state_dict()).norm() / config.train.learning_rate

    norm, unbounded = after_step(0.0)
    assert norm > 0.2
    assert unbounded.item() == pytest.approx(norm, rel=1e-2)
    same_norm, bounded = after_step(0.1)
    assert same_norm == pytest.approx(norm)
    assert bounded.item() == pytest.approx(0.1, rel=1e-2)
