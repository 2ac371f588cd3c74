"""The moving average of the weights: by its formula, over shards as over a whole, in checkpoints and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from sclip.train import checkpoint
from sclip.train.optimizer import EMA
from sclip.train.step import unwrapped
from support import ranks
from support.train_cases import MODEL, Tensors, config_with, part_of, start, training_batch


def whole(ema: EMA) -> Tensors:
    return {
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).clone()
        for name, weight in ema.weights.items()
    }


def averaged(sharding: str, rank: int, world_size: int, folder: str) -> Tensors:
    """Train four steps, the last two from a checkpoint that is loaded into fresh objects; return the averages."""
    config = config_with(sharding=sharding, lr_scale_image=0.0)
    step = start(config)
    ema = EMA(unwrapped(step.model), 0.5)
    for number in range(4):
        if number == 2:
            checkpoint.save(f"{folder}/{sharding}-{world_size}", step.model, step.optimizer, {}, ema)
            step = start(config, seed=7)
            ema = EMA(unwrapped(step.model), 0.5)
            checkpoint.load(f"{folder}/{sharding}-{world_size}", step.model, step.optimizer, ema)
        step(part_of(training_batch(number), rank, world_size), 0.3)
        ema.update(number + 1)
    return whole(ema)


def on_a_rank(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    return {sharding: averaged(sharding, rank, world_size, folder) for sharding in ("fsdp", "ddp")}


def test_an_average_moves_by_its_share_and_faster_at_the_start() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    ema = EMA(model, 0.9)
    expected = 0.0
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.fill_(float(step))
        ema.update(step)
        kept = min(0.9, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * step
        assert ema.weights["weight"].item() == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(190, abs=1)


def test_frozen_weights_have_no_average() -> None:
    step = start(config_with(lr_scale_image=0.0))
    names = set(EMA(unwrapped(step.model), 0.9).weights)
    assert names == {name for name, p in step.model.named_parameters() if p.requires_grad}
    assert not any(name.startswith("clip.visual.") for name in names)


def test_the_average_is_the_same_over_shards_and_replicas_and_goes_on_after_a_checkpoint(
    tmp_path: Path,
) -> None:
    (tmp_path / "alone").mkdir()
    expected = averaged("fsdp", 0, 1, str(tmp_path / "alone"))
    raw = start(config_with(lr_scale_image=0.0))
    assert any(
        (expected[name] - p).norm() > 1e-4 for name, p in raw.model.named_parameters() if name in expected
    )
    for of_rank in ranks.run(on_a_rank, 2, tmp_path, str(tmp_path)):
        for sharding in ("fsdp", "ddp"):
            assert of_rank[sharding].keys() == expected.keys()
            for name, weight in expected.items():
                assert (of_rank[sharding][name] - weight).norm() <= 1e-3 * weight.norm().clamp(min=1), name


def test_the_consolidated_model_has_the_averages_where_there_are_any(tmp_path: Path) -> None:
    step = start(config_with(lr_scale_image=0.0))
    ema = EMA(unwrapped(step.model), 0.5)
    step(training_batch(0), 0.3)
    ema.update(1)
    checkpoint.save(tmp_path / "averaged", step.model, step.optimizer, {}, ema)
    checkpoint.save(tmp_path / "raw", step.model, step.optimizer, {})
    found, raw = (checkpoint.consolidate(tmp_path / name, MODEL).state_dict() for name in ("averaged", "raw"))
    weights = step.model.state_dict()
    assert all(torch.equal(raw[name], weights[name]) for name in weights)
    for name, weight in weights.items():
        assert torch.equal(found[name], ema.weights.get(name, weight))
    assert any(not torch.equal(found[name], raw[name]) for name in weights)


def test_a_step_that_made_no_update_leaves_the_average_bit_for_bit() -> None:
    step = start(config_with())
    ema = EMA(unwrapped(step.model), 0.5)
    step(training_batch(0), 0.3)
    before = whole(ema)
    ema.update(1, torch.tensor(1.0))
    assert all(torch.equal(weight, before[name]) for name, weight in whole(ema).items())
    ema.update(1, torch.tensor(0.0))
    assert any(not torch.equal(weight, before[name]) for name, weight in whole(ema).items())
