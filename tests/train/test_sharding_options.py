"""Learning rates of parts, frozen parts, a word table of the encoder's own: on one rank as on two, and resumed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from sclip.config import Config, ConfigError, ModelConfig, TrainConfig
from sclip.config.loader import from_tree
from sclip.model import build_model
from sclip.train import checkpoint
from sclip.train.manifest import CheckpointError
from sclip.train.optimizer import make_optimizer
from sclip.train.sharding import apply
from support import ranks
from support.train_cases import MODEL, Tensors, config_with, losses, start, training_batch, whole_weights

KEE = {"own_embeddings": True, "form": "concatenation", "on_negatives": False}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "image frozen": ({}, {"lr_scale_image": 0.0}),
    "text frozen": ({}, {"lr_scale_text": 0.0, "lr_scale_kee": 10.0}),
    "encoder frozen": ({}, {"lr_scale_kee": 0.0}),
    "encoder alone": ({}, {"lr_scale_image": 0.0, "lr_scale_text": 0.0}),
    "own words": (KEE, {"lr_scale_kee": 5.0}),
    "own words alone": (KEE, {"lr_scale_image": 0.0, "lr_scale_text": 0.0}),
}
"""Settings of model.kee and of train."""

SHARDINGS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {},
    "hsdp": {"num_workers": 2, "shard_ranks": 1},
}

BEFORE, AFTER = (1, 2), (3,)
"""Steps before and after the checkpoint."""


def config_of(case: str, sharding: str = "fsdp", **more: Any) -> Config:
    kee, train = CASES[case]
    model = ModelConfig(name=MODEL.name, kee=dataclasses.replace(MODEL.kee, **kee))
    return dataclasses.replace(config_with(sharding=sharding, **train, **more), model=model)


def on_a_rank(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for case in CASES:
        for sharding, groups in SHARDINGS.items():
            step = start(config_of(case, sharding, **groups), seed=rank)
            values = losses(step, BEFORE, rank, world_size)
            if sharding == "fsdp":
                checkpoint.save(f"{folder}/{case}", step.model, step.optimizer, {})
                words = dict(step.model.named_parameters()).get("kee.token_embedding.weight")
                found[f"{case} sharded words"] = isinstance(words, DTensor)
            before = whole_weights(step.model)
            values += losses(step, AFTER, rank, world_size)
            found[f"{case} {sharding}"] = {
                "values": values,
                "weights": whole_weights(step.model),
                "saved": before,
            }
    step = start(config_of("own words alone", precision="bf16"), seed=rank)
    found["bf16"] = losses(step, BEFORE + AFTER, rank, world_size)
    return found


class Trained:
    """Every case on two ranks, with the checkpoints of FSDP2, and on one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.of_ranks = ranks.run(on_a_rank, 2, folder, str(folder))
        self.alone: dict[str, tuple[list[float], Tensors, Tensors]] = {}
        for case in CASES:
            step = start(config_of(case))
            before = whole_weights(step.model)
            values = losses(step, BEFORE + AFTER)
            self.alone[case] = values, before, whole_weights(step.model)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("options")
    yield Trained(folder)
    shutil.rmtree(folder)  # some hundred megabytes, which pytest would keep for three sessions


def part(name: str) -> str:
    """Return which part of the model a parameter belongs to."""
    if name.startswith("kee."):
        return "kee"
    if name.startswith("clip.visual."):
        return "image"
    return "text" if name.startswith("clip.") else "logit_scale"


def close(values: list[float]) -> Any:
    return pytest.approx(values, rel=5e-4)


# What a scale changes


@pytest.mark.parametrize("case", CASES)
def test_a_part_moves_unless_its_rate_is_scaled_by_0(trained: Trained, case: str) -> None:
    _, before, after = trained.alone[case]
    moved = {part(name) for name in before if not torch.equal(before[name], after[name])}
    frozen = {name.removeprefix("lr_scale_") for name, scale in CASES[case][1].items() if scale == 0}
    assert moved == {"image", "text", "kee", "logit_scale"} - frozen


def test_each_group_of_the_optimizer_has_the_rate_of_its_part() -> None:
    config = config_with(warmup=0.5, lr_scale_image=0.1, lr_scale_text=0.1, lr_scale_kee=4.0)
    step = start(config)
    names = {id(p): name for name, p in step.model.named_parameters()}
    metrics = step(training_batch(0), 0.25)
    assert metrics["learning_rate"].item() == pytest.approx(5e-4)
    found = {
        (part(names[id(p)]), p.ndim >= 2): (group["lr"], group["weight_decay"])
        for group in step.optimizer.param_groups
        for p in group["params"]
    }
    rates = {"image": 5e-5, "text": 5e-5, "kee": 2e-3, "logit_scale": 5e-4}
    for (place, matrix), (rate, decay) in found.items():
        assert rate == pytest.approx(rates[place])
        assert decay == (0.1 if matrix else 0.0)
    assert {place for place, _ in found} == rates.keys()


def test_what_is_frozen_has_no_gradient_and_no_place_in_the_optimizer() -> None:
    config = config_of("encoder alone")
    model = apply(build_model(config.model), config.train, torch.device("cpu"))
    optimizer = make_optimizer(model, config.train)
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trainable = {part(name) for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"kee", "logit_scale"}
    assert given == {id(p) for p in model.parameters() if p.requires_grad}


# One rank and two, before and after a checkpoint


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_as_one(trained: Trained, case: str, sharding: str) -> None:
    values, before, after = trained.alone[case]
    for of_rank in trained.of_ranks:
        found = of_rank[f"{case} {sharding}"]
        assert found["values"] == close(values)
        assert found["weights"].keys() == after.keys()
        apart = sum((found["weights"][name] - after[name]).square().sum() for name in after)
        moved = sum((before[name] - after[name]).square().sum() for name in after)
        assert apart < 0.02**2 * moved
        frozen = [name for name in after if torch.equal(before[name], after[name])]
        assert all(torch.equal(found["weights"][name], before[name]) for name in frozen)


def test_an_own_word_table_is_sharded(trained: Trained) -> None:
    found = {case: trained.of_ranks[0][f"{case} sharded words"] for case in CASES}
    assert found == {case: case.startswith("own words") for case in CASES}


def test_frozen_towers_compute_in_bfloat16_as_trained_ones_do(trained: Trained) -> None:
    values, _, _ = trained.alone["own words alone"]
    for of_rank in trained.of_ranks:
        assert of_rank["bf16"] == pytest.approx(values, rel=0.05)
        assert of_rank["bf16"] != close(values)


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_resumed_on_one_rank_as_it_went_on_on_two(trained: Trained, case: str) -> None:
    uninterrupted = trained.of_ranks[0][f"{case} fsdp"]["values"][2 * len(BEFORE) :]
    step = start(config_of(case), seed=7)
    checkpoint.load(trained.folder / case, step.model, step.optimizer)
    assert losses(step, AFTER) == close(uninterrupted)


@pytest.mark.parametrize("case", CASES)
def test_the_model_of_a_checkpoint_is_the_whole_one_frozen_parts_too(trained: Trained, case: str) -> None:
    torch.manual_seed(9)
    state = checkpoint.consolidate(trained.folder / case, config_of(case).model).state_dict()
    saved = trained.of_ranks[0][f"{case} fsdp"]["saved"]
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[name], saved[name]) for name in saved)


def test_a_checkpoint_in_which_other_parts_are_frozen_is_refused(trained: Trained) -> None:
    step = start(config_of("image frozen"))
    with pytest.raises(CheckpointError, match=r"optimizer\.state\.clip\.visual\."):
        checkpoint.load(trained.folder / "encoder frozen", step.model, step.optimizer)


# The config


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lr_scale_image", "lr_scale_text", "lr_scale_kee"])
def test_a_scale_is_0_or_a_positive_number(name: str, scale: float) -> None:
    with pytest.raises(ConfigError, match=rf"train\.{name}=.*: 0 \(frozen\) or more"):
        TrainConfig(**{name: scale})  # type: ignore[arg-type]


def test_a_run_in_which_nothing_is_trained_is_refused() -> None:
    towers = {"lr_scale_image": 0.0, "lr_scale_text": 0.0}
    for tree in (
        {"train": towers | {"lr_scale_kee": 0.0}},
        {"train": towers, "model": {"kee": {"enabled": False}}},
    ):
        with pytest.raises(
            ConfigError, match=r"train\.lr_scale_image=0\.0: towers and encoder are all frozen"
        ):
            from_tree(tree)
    assert from_tree({"train": towers}).train.lr_scale_kee == 1.0
