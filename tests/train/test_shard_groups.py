"""Groups of ranks that share one replica: which ranks they are, what they hold half-way, what is refused."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from sclip.config import Config, ConfigError
from sclip.model.losses import structure_loss
from support import ranks
from support.train_cases import VIT, config_with, part_of, start, training_batch

SIZE = 4


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
    half = config_of("hsdp", precision="bf16", shard_ranks=2)
    whole = config_of("fsdp", precision="bf16", reshard_after_forward=False)
    return {
        "resharded": half_way(half, rank, world_size),
        "not resharded": half_way(whole, rank, world_size),
        "undivided": groups_of("2", rank, num_workers=3, shard_ranks=3, batch_size=9),
        "untold": groups_of(None, rank),
        "uneven": groups_of("1" if rank < 1 else "3", rank),
        "of two": groups_of("2", rank),
        "of all": groups_of("4", rank),
        "set": groups_of("4", rank, shard_ranks=2),
    }


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ranks.run(on_a_rank, SIZE, tmp_path_factory.mktemp("groups"))


def test_a_block_frees_what_it_gathered_unless_told_otherwise_and_averages_in_single_precision(
    of_ranks: list[Any],
) -> None:
    """Averaged in bfloat16, all gradients would be numbers that it holds."""
    for of_rank in of_ranks:
        for way in ("resharded", "not resharded"):
            gathered, held_by_bf16 = of_rank[way]
            assert gathered == (way == "not resharded")
            assert 0 < held_by_bf16 < 0.9


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("undivided", "train.shard_ranks=3: must divide the number of ranks, "),
        ("untold", "train.shard_ranks=0: .*by rank: None, None"),
        ("uneven", "train.shard_ranks=0: .*by rank: 1, 3, 3, 3.*; set train.shard_ranks"),
        ("of two", "2 x 2"),
        ("of all", "1 x 4"),
        ("set", "2 x 2"),
    ],
)
def test_a_group_is_the_ranks_of_a_node_unless_told_otherwise_and_refused_on_all_where_it_is_none(
    of_ranks: list[Any], case: str, message: str
) -> None:
    (told,) = {of_rank[case] for of_rank in of_ranks}
    assert re.match(message, told)
