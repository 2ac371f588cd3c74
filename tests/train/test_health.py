"""Steps that are not finite make no update; they are counted and named, and too many stop every rank."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from sclip.config import HealthConfig
from sclip.train.health import HealthMonitor, TrainingDiverged, parameter_norms
from sclip.train.reports import HostCopy, StepMeter
from sclip.train.step import TrainStep, unwrapped
from support import ranks
from support.train_cases import (
    FORMS,
    ROWS,
    VIT,
    WHITE,
    Tensors,
    batch_for,
    config_with,
    part_of,
    start,
    training_batch,
    whole_weights,
    with_overflow,
)


def poisoned(batch: Tensors, row: int) -> Tensors:
    """Return the batch with one entirely white image, whose feature `with_overflow` makes nonfinite."""
    image = batch["image"].clone()
    image[row] = WHITE
    return batch | {"image": image}


def state(step: TrainStep) -> list[Tensor]:
    """Return copies of this rank's weights and of the optimizer's whole state."""
    tensors = [*step.model.state_dict().values()]
    tensors += [
        value for parameter_state in step.optimizer.state.values() for value in parameter_state.values()
    ]
    return [(t.to_local() if isinstance(t, DTensor) else t).detach().clone() for t in tensors]


def equal(actual: list[Tensor], expected: list[Tensor]) -> bool:
    return len(actual) == len(expected) and all(map(torch.equal, actual, expected))


def steps_around_a_bad_one(rank: int, world_size: int, **train: Any) -> dict[str, Any]:
    """Train poisoned and good steps in turn, and compare with good steps alone. The last rank has the poisoned row."""

    def share(number: int, bad: bool = False) -> Tensors:
        batch = training_batch(number, VIT)
        return part_of(poisoned(batch, ROWS - 2) if bad else batch, rank, world_size)

    config = config_with(model=VIT, learning_rate=1e-2, **train)
    step, without = with_overflow(start(config)), with_overflow(start(config))
    fresh = state(step)
    skipped = [step(share(7, bad=True), 0.5)["skipped"].item()]
    kept = [equal(state(step)[: len(fresh)], fresh)]
    step(share(0), 0.5)
    before = state(step)
    skipped.append(step(share(1, bad=True), 0.5)["skipped"].item())
    kept.append(equal(state(step), before))
    step(share(2), 0.5)
    for number in (0, 2):
        without(share(number), 0.5)
    return {
        "skipped": skipped,
        "kept": kept,
        "moved": not equal(state(step), before),
        "as without": equal(state(step), state(without)),
    }


WAYS: dict[str, dict[str, Any]] = {
    "ddp": {"sharding": "ddp"},
    "fsdp in parts, bf16": {"sharding": "fsdp", "micro_batch": 1, "precision": "bf16"},
}


def on_a_rank(rank: int, world_size: int) -> dict[str, Any]:
    results: dict[str, Any] = {
        case: steps_around_a_bad_one(rank, world_size, **settings) for case, settings in WAYS.items()
    }
    spread: list[dict[str, Any]] = [{"sharding": "fsdp"}, {"precision": "bf16"}]
    models = [start(config_with(model=VIT, **train)).model for train in spread]
    norms = [{name: norm.item() for name, norm in parameter_norms(model).items()} for model in models]
    return results | {"norms": norms, "weights": whole_weights(models[0])}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return ranks.run(on_a_rank, 2, tmp_path_factory.mktemp("health"))


@pytest.mark.parametrize("case", WAYS)
def test_a_step_that_is_not_finite_on_one_rank_changes_no_weight_on_any_rank(
    outcomes: list[Any], case: str
) -> None:
    expected = {"skipped": [1.0, 1.0], "kept": [True, True], "moved": True, "as without": True}
    assert [outcome[case] for outcome in outcomes] == [expected] * 2


def test_the_norms_of_the_parts_are_those_of_the_whole_weights(outcomes: list[Any]) -> None:
    for outcome in outcomes:
        squares = {"norm_image": 0.0, "norm_text": 0.0, "norm_kee": 0.0}
        for name, weight in outcome["weights"].items():
            clip_norm = "norm_image" if name.startswith("clip.visual.") else "norm_text"
            part = clip_norm if name.startswith("clip.") else f"norm_{name.partition('.')[0]}"
            if part in squares:
                squares[part] += float(weight.double().square().sum())
        expected = {part: math.sqrt(total) for part, total in squares.items()}
        for norms in outcome["norms"]:
            assert norms == pytest.approx(expected, rel=1e-4)


def test_a_gradient_that_is_not_finite_skips_the_step_even_if_the_loss_is_finite() -> None:
    step = start(config_with(model=VIT))
    weight = next(unwrapped(step.model).parameters())
    weight.register_hook(lambda gradient: gradient * math.inf)
    before = state(step)
    metrics = step(training_batch(0, VIT), 0.5)
    assert math.isfinite(metrics["loss"])
    assert metrics["skipped"] == 1
    assert equal(state(step)[: len(before)], before)


class Reads(TorchDispatchMode):
    """Records the operations for whose result, or shape of result, the host must wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        is_masked = name in ("index", "index_put_") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if is_masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2"):
            self.found.append(name)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    ("form", "micro_batch", "packed"), [*((form, 2, True) for form in FORMS), ("infonce", 0, False)]
)
def test_the_host_reads_no_result_of_a_step_before_a_report(
    form: str, micro_batch: int, packed: bool
) -> None:
    config = config_with(FORMS[form], VIT, micro_batch=micro_batch, pack_text=packed)
    step, meter, monitor = start(config), StepMeter(torch.device("cpu")), HealthMonitor(HealthConfig(), str)
    step(batch_for(config, 0), 0.5)
    batch = batch_for(config, 1)
    with Reads() as reads:
        metrics = step(batch, 0.5)
        meter.add(metrics, samples=ROWS)
        monitor.add(1, metrics, np.arange(ROWS))
    assert reads.found == []
    with Reads() as reads:
        HostCopy([meter.take().sums, monitor.take()[1]]).read()
        assert float(metrics["loss"]) > 0
    assert reads.found == ["_local_scalar_dense"]  # from float() above; tolist() causes no such operation


def metrics(skipped: bool) -> Tensors:
    loss = torch.tensor(math.inf if skipped else 1.0)
    values = {"loss": loss, "grad_norm": torch.tensor(1.0), "skipped": torch.tensor(float(skipped))}
    return values | {"logit_scale": torch.tensor(14.3), "learning_rate": torch.tensor(1e-3)}


def looked(monitor: HealthMonitor, skipped: list[bool], before: int, first: int = 1) -> int:
    for number, bad in enumerate(skipped, start=first):
        monitor.add(number, metrics(bad), np.array([number]))
    steps, values = monitor.take()
    return monitor.count_skipped(steps, values.tolist(), before, lambda: "none yet")


def test_each_check_counts_skipped_steps_since_the_last_check_and_too_many_stop_the_run() -> None:
    monitor = HealthMonitor(HealthConfig(on_nonfinite="skip", max_skipped=3), str)
    assert looked(monitor, [False, True, False, True], before=0) == 2
    assert looked(monitor, [False], before=2, first=5) == 0
    assert looked(monitor, [True], before=2, first=6) == 1
    assert looked(monitor, [], before=3) == 0
    monitor = HealthMonitor(HealthConfig(on_nonfinite="skip", max_skipped=3), str)
    with pytest.raises(TrainingDiverged, match=r"^step 4: loss is inf at .* are from 4; .*max_skipped=3"):
        looked(monitor, [True, False, True, True, True], before=1)
    with pytest.raises(TrainingDiverged, match=r"^step 9"):
        looked(monitor, [True], before=5, first=9)  # a run resumed with a lower bound
