"""Training gives the same result on one, two and four ranks, for every sharding and every way to compute blocks."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sclip.config import Config, ConfigError, LoRAConfig, LossConfig, ModelConfig, TrainConfig
from sclip.model import structure_clip, structure_loss
from sclip.model.attention import LeanAttention
from sclip.train import sharding
from support import ranks
from support.train_cases import (
    VIT,
    Tensors,
    config_with,
    part_of,
    start,
    training_batch,
    whole_weights,
    with_units,
)

HINGE = LossConfig(hinge_weight=2.0)
OWN = {"own_embeddings": True, "form": "concatenation", "on_negatives": False}
LEARNED: dict[str, tuple[LossConfig, dict[str, Any], dict[str, float]]] = {
    "infonce": (LossConfig(negatives="none"), {}, {}),
    "hinge": (HINGE, {}, {}),
    "max_margin": (LossConfig(contrastive="max_margin", contrastive_warmup=0.5), {}, {}),
    "sigmoid": (LossConfig(contrastive="sigmoid"), {}, {}),
    "negatives as texts": (LossConfig(negatives_as_texts=True), {}, {}),
    "all": (LossConfig(hinge_weight=2.0, units=2.0, positives=2.0, distil=2.0), {}, {}),
    "distil": (LossConfig(hinge_weight=2.0, distil=2.0), {}, {}),
    "image frozen": (HINGE, {}, {"lr_scale_image": 0.0}),
    "text frozen": (HINGE, {}, {"lr_scale_text": 0.0, "lr_scale_kee": 10.0}),
    "encoder frozen": (HINGE, {}, {"lr_scale_kee": 0.0}),
    "own words": (HINGE, OWN, {"lr_scale_kee": 5.0}),
    "own words alone": (HINGE, OWN, {"lr_scale_image": 0.0, "lr_scale_text": 0.0}),
    "updates": (HINGE, {}, {}),
}
"""The loss, settings of model.kee, and settings of train that decide what is learned."""

DDP, FSDP, HSDP = {"sharding": "ddp"}, {"sharding": "fsdp"}, {"sharding": "hsdp", "shard_ranks": 2}
PARTS = {"micro_batch": 2, "activation_checkpointing": "block"}
COMPILED = {"compile": True, "activation_checkpointing": "selective"}
WAYS: dict[int, dict[str, tuple[str, dict[str, Any]]]] = {
    2: {
        "ddp compiled and checkpointed": ("hinge", DDP | COMPILED),
        "ddp in parts": ("hinge", DDP | PARTS),
        **{f"ddp {learned}": (learned, DDP) for learned in ("image frozen", "own words alone", "updates")},
        "ddp negatives as texts": ("negatives as texts", DDP),
        "fsdp not resharded": ("hinge", FSDP | {"reshard_after_forward": False}),
        "fsdp in parts": ("hinge", FSDP | PARTS),
        "fsdp compiled in parts": ("hinge", FSDP | PARTS | {"compile": True}),
        "auto, all": ("all", {}),
        "hsdp 2x1 in parts": ("hinge", {"sharding": "hsdp", "shard_ranks": 1} | PARTS),
        "fsdp all in parts": ("all", FSDP | {"micro_batch": 2}),
        **{f"fsdp {learned}": (learned, FSDP) for learned in ("infonce", "text frozen", "encoder frozen")},
        **{f"fsdp {learned}": (learned, FSDP) for learned in ("own words", "updates")},
    },
    4: {
        "ddp max_margin": ("max_margin", DDP),
        "fsdp sigmoid": ("sigmoid", FSDP),
        "fsdp all": ("all", FSDP),
        "hsdp 2x2 updates": ("updates", HSDP),
        "hsdp 2x2 in parts": ("hinge", HSDP | {"micro_batch": 1}),
        "large hsdp 2x2 in parts": ("hinge", HSDP | {"micro_batch": 1}),
    },
}
"""By world size and name: a key of LEARNED, and the settings of train that must give the same result.

The tests of the loss cover its other forms on several ranks.
"""

BF16 = {"precision": "bf16"}
HALF: dict[str, tuple[str, dict[str, Any]]] = {
    "ddp hinge": ("hinge", DDP | BF16),
    "ddp distil": ("distil", DDP | BF16),
    "fsdp hinge": ("hinge", FSDP | BF16),
    "fsdp own words alone": ("own words alone", FSDP | BF16),
    "fsdp updates": ("updates", FSDP | BF16),
    "fsdp in parts": ("hinge", FSDP | BF16 | {"micro_batch": 2}),
    "fsdp compiled": ("hinge", FSDP | BF16 | COMPILED),
    "auto distil": ("distil", BF16),
    "auto updates": ("updates", BF16),
    "auto in parts": ("hinge", BF16 | PARTS),
}
"""Cases that two ranks also train in bfloat16."""

SHARDS = {"ddp": [], "fsdp": ["(Shard(dim=0),)"], "hsdp": ["(Replicate(), Shard(dim=0))"]}
"""Placements of the parameters by sharding."""

CALLS = ("FSDP::root_pre_forward", "FSDP::all_gather", "FSDP::post_backward_reduce", "c10d::allreduce_")
"""Names in a profile of forward passes, gathers and reductions of FSDP2, and of all-reduces by any caller."""

VALID = [
    [True] * 8,
    [True, True, True, True, True, False, True, False],
    [False, False, False, False, True, True, False, True],
]
"""By step, which rows are not padding. In the third step one of two ranks, or two of four, have only padding."""


def batch_of(step: int, rank: int, world_size: int, loss: LossConfig) -> Tensors:
    batch = training_batch(step, VIT, VALID[step], negatives=2, positives=loss.positives > 0)
    batch = with_units(batch) if loss.units else batch
    batch["image_digest"][6] = batch["image_digest"][1]  # one image on two ranks
    return part_of(batch, rank, world_size)


def config_of(learned: str, world_size: int = 1, **train: Any) -> Config:
    loss, kee, scales = LEARNED[learned]
    lora = LoRAConfig(rank=2 if learned == "updates" else 0)
    model = ModelConfig(name=VIT.name, kee=dataclasses.replace(VIT.kee, **kee), lora=lora)
    return config_with(loss, model, **{"batch_size": 8, "num_workers": world_size} | scales | train)


def trained(config: Config, rank: int = 0, world_size: int = 1) -> dict[str, Any]:
    """Train from rank 0's weights; return the metrics of each step and the final weights as one vector.

    On four ranks, train one more step and count its CALLS.
    """
    step = start(config, seed=rank)
    assert sum(isinstance(module, LeanAttention) for module in step.model.modules()) == 2 * 3
    before = whole_weights(step.model)
    metrics = [
        step(batch_of(number, rank, world_size, config.loss), number / len(VALID))
        for number in range(len(VALID))
    ]
    result = {
        "metrics": {name: torch.stack([figures[name] for figures in metrics]) for name in metrics[0]},
        "weights": flat(after := whole_weights(step.model)),
        "moved": sorted(
            {str(structure_clip.part_of(n)) for n, w in after.items() if not torch.equal(w, before[n])}
        ),
        "sharded": sorted({str(p.placements) for p in step.model.parameters() if isinstance(p, DTensor)}),
        "replicated": isinstance(step.model, DistributedDataParallel),
    }
    if world_size == 4:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            step(batch_of(0, rank, world_size, config.loss), 1.0)
        counts = collections.Counter(event.name.partition(" ")[0] for event in profile.events())
        result["calls"] = [counts[name] for name in CALLS]
    return result


def flat(weights: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def groups_of(local_world_size: str | None, rank: int, **train: Any) -> str:
    """Return the groups, or the error, of a rank whose node is said to have `local_world_size` ranks."""
    os.environ["LOCAL_RANK"] = str(rank % int(local_world_size or 1))
    os.environ.pop("LOCAL_WORLD_SIZE", None)
    if local_world_size:
        os.environ["LOCAL_WORLD_SIZE"] = local_world_size
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sharding, "WHOLE", 0)
            step = start(config_of("hinge", 4, **{"sharding": "hsdp"} | train))
    except ConfigError as error:
        return str(error)
    groups, group_size = next(step.model.parameters()).device_mesh.shape
    return f"{groups} x {group_size}"


def half_way(config: Config, rank: int) -> tuple[bool, float]:
    """Run forward and backward of a step on one of four ranks.

    Return whether a block's parameters stay gathered after forward, and the share of gradients exact in bfloat16.
    """
    model, batch = start(config).model, batch_of(0, rank, 4, config.loss)
    loss, _ = structure_loss(model(batch), batch, config.loss, 0.5)
    gathered = not isinstance(model.kee.layers[0].linear1.weight, DTensor)
    loss.backward()
    gradient = torch.cat([p.grad.full_tensor().flatten() for p in model.kee.layers.parameters()])
    gradient = gradient[gradient != 0]
    return gathered, (gradient == gradient.bfloat16()).double().mean().item()


def on_a_rank(rank: int, world_size: int) -> dict[str, Any]:
    half = {f"{way} bf16": value for way, value in HALF.items()} if world_size == 2 else {}
    results: dict[str, Any] = {}
    for way, (learned, train) in (WAYS[world_size] | half).items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sharding, "WHOLE", 0 if way.startswith("large") else sharding.WHOLE)
            results[way] = trained(config_of(learned, world_size, **train), rank, world_size)
    if world_size == 2:
        return results
    resharded = config_of("hinge", 4, sharding="hsdp", shard_ranks=2, **BF16)
    whole = config_of("hinge", 4, reshard_after_forward=False, **FSDP, **BF16)
    groups = {
        "undivided": groups_of("2", rank, num_workers=3, shard_ranks=3, batch_size=9),
        "untold": groups_of(None, rank),
        "uneven": groups_of("1" if rank < 1 else "3", rank),
        "of two": groups_of("2", rank),
        "set": groups_of("4", rank, shard_ranks=2),
        "auto": groups_of("2", rank, sharding="auto"),
    }
    return results | groups | {"resharded": half_way(resharded, rank), "whole": half_way(whole, rank)}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("sharding")
    return {size: ranks.run(on_a_rank, size, folder) for size in WAYS}


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    """Results of one process without a process group, by what it learns."""
    return {learned: trained(config_of(learned)) for learned in LEARNED}


def moved(weights: Tensor, learned: str) -> Tensor:
    """Return how far training moved each weight from its start."""
    return weights - flat(whole_weights(start(config_of(learned)).model))


@pytest.mark.parametrize(("size", "way"), [(size, way) for size, ways in WAYS.items() for way in ways])
def test_ranks_train_as_one_process_with_the_whole_batch_however_blocks_are_computed(
    alone: dict[str, Any], outcomes: dict[int, Any], size: int, way: str
) -> None:
    learned, train = WAYS[size][way]
    expected = alone[learned]
    assert expected["metrics"]["loss_contrastive"].min() > 0
    far = moved(expected["weights"], learned)
    assert far.norm() > 0.05  # in three steps; the first has a learning rate of 0
    frozen = {name.removeprefix("lr_scale_") for name, scale in LEARNED[learned][2].items() if scale == 0}
    assert set(expected["moved"]) >= {"image", "text", "kee"} - frozen
    assert not frozen & set(expected["moved"])
    for outcome in outcomes[size]:
        result = outcome[way]
        torch.testing.assert_close(result["metrics"], expected["metrics"], rtol=1e-4, atol=1e-4)
        assert (moved(result["weights"], learned) - far).norm() < 0.01 * far.norm()
        assert torch.equal(result["weights"], outcomes[size][0][way]["weights"])
        assert result["moved"] == expected["moved"]
        kind = train.get("sharding", "ddp")
        assert result["sharded"] == SHARDS[kind]
        assert result["replicated"] == (kind == "ddp")


@pytest.mark.parametrize("way", HALF)
def test_bfloat16_trains_nearly_like_single_precision_and_keeps_single_precision_weights(
    alone: dict[str, Any], outcomes: dict[int, Any], way: str
) -> None:
    learned, train = HALF[way]
    expected = alone[learned]["metrics"]["loss"]
    kind = train.get("sharding", "ddp" if learned == "updates" else "hsdp")
    for outcome in outcomes[2]:
        result = outcome[f"{way} bf16"]
        assert not torch.equal(result["metrics"]["loss"], expected)
        torch.testing.assert_close(result["metrics"]["loss"], expected, rtol=0.05, atol=0)
        assert (result["sharded"], result["replicated"]) == (SHARDS[kind], kind == "ddp")
        assert torch.equal(result["weights"], outcomes[2][0][f"{way} bf16"]["weights"])
        assert result["weights"].dtype == torch.float32
        assert not torch.equal(result["weights"], result["weights"].bfloat16().float())
        # The scale itself is not rounded to bfloat16, where neighboring values are 0.4 % apart.
        assert result["metrics"]["logit_scale"][0].item() == pytest.approx(1 / 0.07, rel=1e-5)
        if way == "fsdp compiled":
            plain = outcome["fsdp hinge bf16"]["metrics"]
            torch.testing.assert_close(result["metrics"]["loss"], plain["loss"], rtol=1e-3, atol=0)
            torch.testing.assert_close(result["metrics"]["grad_norm"], plain["grad_norm"], rtol=0.02, atol=0)


def test_the_sigmoid_trains_its_bias_and_the_margin_term_leaves_the_scale(outcomes: dict[int, Any]) -> None:
    biases = outcomes[4][0]["fsdp sigmoid"]["metrics"]["logit_bias"].tolist()
    assert biases[:2] == [-10.0, -10.0]  # the rate of the first step is 0
    assert biases[-1] != -10.0
    scales = outcomes[4][0]["ddp max_margin"]["metrics"]["logit_scale"]
    assert (scales == scales[0]).all()


def test_a_block_frees_gathered_parameters_by_default_and_averages_in_single_precision(
    outcomes: dict[int, Any],
) -> None:
    """If bfloat16 were used for averaging, all gradients would be exact bfloat16 values."""
    for outcome in outcomes[4]:
        for way in ("resharded", "whole"):
            gathered, share = outcome[way]
            assert gathered == (way == "whole")
            assert 0 < share < 0.9


def test_auto_replicates_what_a_worker_can_hold_and_shards_the_rest_within_nodes() -> None:
    small, large = sharding.WHOLE, sharding.WHOLE + 1
    fp32, bf16 = TrainConfig(), TrainConfig(precision="bf16")
    ddp, ones, nodes, fsdp = ("ddp", 0), ("hsdp", 1), ("hsdp", 0), ("fsdp", 0)
    for parameters, world_size, ranks_of_node, in_fp32, in_bf16 in (
        (small, 16, 8, ddp, ones), (large, 8, 8, fsdp, fsdp), (large, 16, 8, nodes, nodes),
        (large, 16, 1, ddp, ones), (large, 12, 8, fsdp, fsdp), (large, 15, 0, fsdp, fsdp),
        (large, 1, 8, ddp, ones),
    ):  # fmt: skip
        assert sharding.resolve(fp32, parameters, world_size, ranks_of_node) == in_fp32
        assert sharding.resolve(bf16, parameters, world_size, ranks_of_node) == in_bf16
    assert sharding.resolve(bf16, small, 16, 8, autocast=True) == ddp
    assert sharding.resolve(TrainConfig(sharding="fsdp"), small, 16, 8) == fsdp


def test_a_step_has_one_root_and_parts_gather_and_exchange_gradients_once(outcomes: dict[int, Any]) -> None:
    """The eight groups: two blocks of each tower, the rest of the image tower, the encoder, the scalars and the root.

    Two parts take two passes without and two with gradients. The scalars are the logit scale and bias.
    """
    for outcome in outcomes[4]:
        assert outcome["fsdp sigmoid"]["calls"][:3] == [1, 2 * 8 - 1, 8]
        *calls, all_reduces = outcome["hsdp 2x2 in parts"]["calls"]
        assert calls == [2 + 2, 8, 8]
        roots, gathers, reductions, in_large = outcome["large hsdp 2x2 in parts"]["calls"]
        assert (roots, reductions, in_large) == (2 + 2, 2 * 8, all_reduces)
        assert gathers > 2 * (2 * 8 - 1)


def test_a_group_is_the_ranks_of_a_node_by_default_and_impossible_groups_are_refused_on_all_ranks(
    outcomes: dict[int, Any],
) -> None:
    for case, message in {
        "undivided": "train.shard_ranks=3: must divide the number of ranks, ",
        "untold": "train.shard_ranks=0: .*by rank: None, None",
        "uneven": "train.shard_ranks=0: .*by rank: 1, 3, 3, 3.*; set train.shard_ranks",
        "of two": "2 x 2",
        "set": "2 x 2",
        "auto": "2 x 2",
    }.items():
        (result,) = {outcome[case] for outcome in outcomes[4]}
        assert re.match(message, result)
