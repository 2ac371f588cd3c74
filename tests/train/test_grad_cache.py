"""A batch in parts trains as the whole: every form of the loss, packed captions or not."""

from __future__ import annotations

import torch

from sclip.config import Config
from sclip.train.step import TrainStep, passes_of, unwrapped
from support.train_cases import FORMS, ROWS, VIT, Tensors, batch_for, config_with, start, whole_weights


def trained(config: Config) -> dict[str, Tensors]:
    """Train two steps; return the metrics of each, and the weights after the last.

    Not more: Adam makes a whole update of a gradient that is nothing but rounding.
    """
    step = start(config)
    metrics = [step(batch_for(config, number), 0.25 + 0.1 * number) for number in range(2)]
    return {
        "metrics": {name: torch.stack([of_step[name] for of_step in metrics]) for name in metrics[0]},
        "weights": whole_weights(step.model),
    }


def assert_same(found: dict[str, Tensors], expected: dict[str, Tensors]) -> None:
    torch.testing.assert_close(found["metrics"], expected["metrics"], rtol=1e-4, atol=1e-4)
    apart = [
        (found["weights"][name] - w).norm() / w.norm().clamp(min=1.0)
        for name, w in expected["weights"].items()
    ]
    assert max(apart) < 1e-3


def test_a_batch_in_parts_trains_as_the_whole_does() -> None:
    for form, loss in FORMS.items():
        expected = trained(config_with(loss, VIT, pack_text=False))
        assert expected["metrics"]["grad_norm"].min() > 0, form
        for rows in (2, 1, ROWS) if form == "infonce" else (2,):
            for packed in (False, True):
                assert_same(trained(config_with(loss, VIT, micro_batch=rows, pack_text=packed)), expected)


def test_what_is_dropped_at_random_is_the_same_in_both_passes() -> None:
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
    """Return the most bytes, beside the weights, that are kept to go backward at one time in a step."""
    now = peak = 0
    weights = {weight.untyped_storage().data_ptr() for weight in step.model.parameters()}

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal now, peak
            of_weights = tensor.untyped_storage().data_ptr() in weights
            self.tensor, self.bytes = tensor, 0 if of_weights else tensor.nbytes
            now += self.bytes
            peak = max(peak, now)

        def __del__(self) -> None:
            nonlocal now
            now -= self.bytes

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        step(batch, 0.25)
    return peak


def test_in_parts_a_step_keeps_the_memory_of_one_part() -> None:
    whole, parts = (
        peak_of_saved(start(config), batch_for(config, 0))
        for config in (config_with(model=VIT), config_with(model=VIT, micro_batch=1))
    )
    assert parts < 0.5 * whole


def test_rows_that_differ_from_the_share_still_divide_into_equal_parts() -> None:
    assert [passes_of(rows, 32) for rows in (128, 132, 164, 3)] == [4, 4, 4, 1]
    assert passes_of(132, 0) == 1
