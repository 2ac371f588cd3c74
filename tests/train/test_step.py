"""A training step on one rank: its bounds, clipping and metrics; a batch in parts trains like the whole batch."""

from __future__ import annotations

import math

import pytest
import torch

from sclip.config import Config, LossConfig
from sclip.model import build_model
from sclip.train.step import TrainStep, passes_of, unwrapped
from support.train_cases import (
    FORMS,
    VIT,
    Tensors,
    batch_for,
    config_with,
    start,
    training_batch,
    whole_weights,
)


def test_a_step_with_negatives_disabled_equals_a_step_on_a_batch_without_negatives() -> None:
    config = config_with(LossConfig(negatives="none", hinge_weight=2.0), VIT)
    batch = training_batch(0, VIT)
    bare = {name: column for name, column in batch.items() if "negative" not in name}
    assert len(batch) > len(bare)
    metrics = start(config)(batch, 0.5)
    assert metrics["loss"] == metrics["loss_contrastive"]
    assert "loss_hinge" not in metrics
    torch.testing.assert_close(metrics, start(config)(bare, 0.5))


def test_the_logit_scale_is_kept_between_1_and_100() -> None:
    step = start(config_with(model=VIT))
    for log, bound in ((5.0, 100.0), (-0.5, 1.0)):
        with torch.no_grad():
            unwrapped(step.model).logit_scale.log.fill_(log)
        scales = [step(training_batch(number, VIT), 0.0)["logit_scale"].item() for number in range(2)]
        assert scales == pytest.approx([math.exp(log), bound], rel=1e-4)


def test_gradients_are_scaled_down_to_the_maximum_norm_and_the_original_norm_is_reported() -> None:
    def after_step(bound: float) -> tuple[float, float]:
        config = config_with(model=VIT, max_grad_norm=bound)
        torch.manual_seed(0)
        model = build_model(VIT)
        before = [p.detach().clone() for p in model.parameters()]
        # Plain gradient descent moves the weights along the gradient itself.
        step = TrainStep(model, torch.optim.SGD(model.parameters(), fused=True), config)
        norm = step(training_batch(0, VIT), 0.25)["grad_norm"].item()
        moved = torch.cat([(p - old).flatten() for p, old in zip(model.parameters(), before, strict=True)])
        return norm, moved.norm().item() / config.train.learning_rate

    norm, unbounded = after_step(0.0)
    assert norm > 0.2
    assert unbounded == pytest.approx(norm, rel=1e-2)
    assert after_step(0.1) == (pytest.approx(norm), pytest.approx(0.1, rel=1e-2))


def test_a_teacher_does_not_change_and_is_not_part_of_the_model() -> None:
    step = start(config_with(LossConfig(distil=1.0), VIT))
    teacher = step.teacher
    assert teacher is not None
    teacher.load_state_dict(step.model.state_dict())  # type: ignore[arg-type]
    before = whole_weights(teacher)
    divergences = [step(training_batch(number, VIT), 0.25)["loss_distil"].item() for number in range(2)]
    assert abs(divergences[0]) < 1e-6 < divergences[1]
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    for name, weight in whole_weights(teacher).items():
        assert torch.equal(weight, before[name])
    assert step.model.state_dict().keys() == build_model(VIT).state_dict().keys()


def trained(config: Config) -> dict[str, Tensors]:
    """Train two steps; return the metrics of each, and the weights after the last.

    Not more steps: Adam turns a gradient that is only rounding error into a full update.
    """
    step = start(config)
    batches = [batch_for(config, number) for number in range(2)]
    assert ("packed_text" in batches[0]) == config.train.pack_text
    metrics = [step(batch, 0.25 + 0.1 * number) for number, batch in enumerate(batches)]
    return {
        "metrics": {name: torch.stack([figures[name] for figures in metrics]) for name in metrics[0]},
        "weights": whole_weights(step.model),
    }


def assert_same(actual: dict[str, Tensors], expected: dict[str, Tensors]) -> None:
    torch.testing.assert_close(actual["metrics"], expected["metrics"], rtol=1e-4, atol=1e-4)
    apart = [
        (actual["weights"][name] - w).norm() / w.norm().clamp(min=1.0)
        for name, w in expected["weights"].items()
    ]
    assert max(apart) < 1e-3


def test_a_batch_in_parts_trains_as_the_whole_does() -> None:
    assert [passes_of(rows, 32) for rows in (128, 132, 164, 3)] == [4, 4, 4, 1]
    for form, loss in FORMS.items():
        expected = trained(config_with(loss, VIT, pack_text=False))
        assert expected["metrics"]["grad_norm"].min() > 0, form
        for rows, packed in ((1, False), (2, True)) if form == "infonce" else ((2, True),):
            assert_same(trained(config_with(loss, VIT, micro_batch=rows, pack_text=packed)), expected)


def test_dropout_is_the_same_in_both_passes_of_a_batch_in_parts() -> None:
    step = start(config_with(model=VIT, micro_batch=2, pack_text=False))
    kee = unwrapped(step.model).kee
    assert kee is not None
    kee.layers[0].dropout.p = 0.5  # type: ignore[union-attr, assignment]
    features: list[Tensors] = []
    unwrapped(step.model).register_forward_hook(lambda _, __, out: features.append(out))
    torch.manual_seed(7)
    step(batch := batch_for(step.config, 0), 0.25)
    assert len(features) == 6
    for first, again in zip(features[:3], features[3:], strict=True):
        for name in first:
            torch.testing.assert_close(first[name], again[name])
    whole = step.model.eval()(batch)["text_features"]
    assert not torch.equal(features[0]["text_features"], whole[:2])


def peak_of_saved(step: TrainStep, batch: Tensors) -> int:
    """Return the peak number of bytes saved for backward during a step, not counting weights."""
    now = peak = 0
    weights = {weight.untyped_storage().data_ptr() for weight in step.model.parameters()}

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal now, peak
            is_weight = tensor.untyped_storage().data_ptr() in weights
            self.tensor, self.bytes = tensor, 0 if is_weight else tensor.nbytes
            now += self.bytes
            peak = max(peak, now)

        def __del__(self) -> None:
            nonlocal now
            now -= self.bytes

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        step(batch, 0.25)
    return peak


def test_a_step_in_parts_keeps_the_memory_of_one_part() -> None:
    whole, parts = (
        peak_of_saved(start(config), batch_for(config, 0))
        for config in (config_with(model=VIT), config_with(model=VIT, micro_batch=1))
    )
    assert parts < 0.5 * whole
