"""Groups of ranks that share one replica: which ranks they are, what they hold half-way, what is refused."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from sclip.config import Config, ConfigError, TrainConfig
from sclip.model.losses import structure_loss
from support import ranks
from support.train_cases import VIT, config_with, part_of, start, training_batch

SIZE = 4
SHARDINGS: dict[str, dict[str, Any]] = {"fsdp": {}, "hsdp": {"shard_ranks": 2}}


def config_of(sharding: str, **train: Any) -> Config:
    return config_with(model=VIT, sharding=sharding, **{"batch_size": 8, "num_workers": SIZE} | train)


def groups_of(local_world_size: str | None, rank: int, **train: Any) -> str:
    """Return what a rank makes of being told of this many ranks on its node: groups, or an error."""
    os.environ["LOCAL_RANK"] = str(rank % int(local_world_size or 1))
    os.environ.pop("LOCAL_WORLD_SIZE", None)
    if local_world_size:
        os.environ["LOCAL_WORLD_SIZE"] = local_world_size
    try:
        step = start(config_of("hsdp", **train))
    except ConfigError as error:
        return str(error)
    groups, of_a_group = next(step.model.parameters()).device_mesh.shape
    return f"{groups} x {of_a_group}"


def half_way(config: Config, rank: int, world_size: int) -> tuple[bool, float]:
    """Stop a step before and after backward.

    Return whether a block's parameters are gathered before, and after it which share of the gradient bfloat16 holds.
    """
    model, batch = start(config).model, part_of(training_batch(0, VIT, [True] * 8), rank, world_size)
    loss, _ = structure_loss(model(batch), batch, config.loss, 0.5)
    gathered = not isinstance(model.kee.layers[0].linear1.weight, DTensor)
    loss.backward()
    gradient = torch.cat([p.grad.full_tensor().flatten() for p in model.kee.layers.parameters()])
    gradient = gradient[gradient != 0]
    return gathered, (gradient == gradient.bfloat16()).double().mean().item()


def on_a_rank(rank: int, world_size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, groups in SHARDINGS.items():
        config = config_of(name, precision="bf16", **groups)
        found[f"{name} gathered"], found[f"{name} held by bf16"] = half_way(config, rank, world_size)
        config = config_of(name, reshard_after_forward=False, **groups)
        found[f"{name} gathered, not resharded"], _ = half_way(config, rank, world_size)
    return found | {
        "undivided": groups_of("2", rank, num_workers=3, shard_ranks=3, batch_size=9),
        "untold": groups_of(None, rank),
        "uneven": groups_of("1" if rank < 1 else "3", rank),
        "of one": groups_of("1", rank),
        "of two": groups_of("2", rank),
        "of all": groups_of("4", rank),
        "set": groups_of("4", rank, shard_ranks=2),
    }


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ranks.run(on_a_rank, SIZE, tmp_path_factory.mktemp("groups"))


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_gradients_of_bfloat16_are_averaged_in_single_precision(of_ranks: list[Any], sharding: str) -> None:
    """Averaged in bfloat16, all of them would be numbers that it holds."""
    for of_rank in of_ranks:
        assert 0 < of_rank[f"{sharding} held by bf16"] < 0.9


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_block_frees_what_it_gathered_after_forward_unless_told_otherwise(
    of_ranks: list[Any], sharding: str
) -> None:
    for of_rank in of_ranks:
        assert not of_rank[f"{sharding} gathered"]
        assert of_rank[f"{sharding} gathered, not resharded"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("undivided", "train.shard_ranks=3: must divide the number of ranks, "),
        ("untold", "train.shard_ranks=0: .*by rank: None, None"),
        ("uneven", "train.shard_ranks=0: .*by rank: 1, 3, 3, 3.*; set train.shard_ranks"),
    ],
)
def test_ranks_that_make_no_whole_groups_are_refused_on_all_of_them(
    of_ranks: list[Any], case: str, message: str
) -> None:
    (told,) = {of_rank[case] for of_rank in of_ranks}
    assert re.match(message, told)


def test_a_group_is_the_ranks_of_a_node_unless_told_otherwise(of_ranks: list[Any]) -> None:
    for of_rank in of_ranks:
        assert of_rank["of one"] == "4 x 1"
        assert of_rank["of two"] == "2 x 2"
        assert of_rank["of all"] == "1 x 4"
        assert of_rank["set"] == "2 x 2"


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"shard_ranks": 2, "sharding": "fsdp"}, "train.shard_ranks=2: only train.sharding=hsdp has groups"),
        ({"shard_ranks": 3, "sharding": "hsdp"}, "train.shard_ranks=3: 0 .*train.num_workers=4"),
        ({"shard_ranks": -1, "sharding": "hsdp"}, "train.shard_ranks=-1: 0 "),
        ({"batch_size": 3}, "train.batch_size=3: at least one for each of train.num_workers=4"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_anything_is_scheduled(
    train: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**{"batch_size": 8, "num_workers": 4} | train)
