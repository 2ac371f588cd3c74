"""Training is the same on one rank, two and four, sharded or replicated, however blocks are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sclip.config import Config, LossConfig
from sclip.model import build_model
from sclip.train.step import unwrapped
from support import ranks
from support.train_cases import VIT, Tensors, config_with, part_of, start, training_batch, whole_weights

FORMS = {
    "infonce": LossConfig(negatives="none"),
    "hinge": LossConfig(hinge_weight=2.0),
    "max_margin": LossConfig(contrastive="max_margin", contrastive_warmup=0.5),
    "sigmoid": LossConfig(contrastive="sigmoid"),
    "negatives as texts": LossConfig(negatives_as_texts=True),
}

DDP, FSDP = {"sharding": "ddp"}, {"sharding": "fsdp"}
SHARDINGS: dict[int, dict[str, dict[str, Any]]] = {
    1: {"ddp": DDP, "fsdp": FSDP, "hsdp": {"sharding": "hsdp"}},
    2: {
        "ddp": DDP,
        "fsdp": FSDP,
        "hsdp 2x1": {"sharding": "hsdp", "shard_ranks": 1},
        "hsdp 1x2": {"sharding": "hsdp", "shard_ranks": 2},
    },
    4: {"ddp": DDP, "fsdp": FSDP, "hsdp 2x2": {"sharding": "hsdp", "shard_ranks": 2}},
}
"""By world size; hsdp as groups x ranks of a group."""

BLOCKS: dict[str, dict[str, Any]] = {
    "checkpointed": {"activation_checkpointing": "block"},
    "checkpointed selectively": {"activation_checkpointing": "selective"},
    "compiled and checkpointed": {"compile": True, "activation_checkpointing": "selective"},
    "not resharded": {"reshard_after_forward": False},
    "in parts": {"micro_batch": 2, "compile": True, "activation_checkpointing": "block"},
}
"""Ways to compute that must not change what is learned."""

VALID = [
    [True] * 8,
    [True, True, True, True, True, False, True, False],
    [True, False, True, True, True, True, False, False],
    [False, False, False, False, True, True, False, True],
]
"""By step, the rows that are no padding: in the third the last of four ranks has none, then the first of two."""

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def batch_of(step: int, rank: int, world_size: int) -> Tensors:
    batch = training_batch(step, VIT, VALID[step], negatives=2)
    batch["image_digest"][6] = batch["image_digest"][1]  # one image on two ranks
    return part_of(batch, rank, world_size)


def config_of(form: str, world_size: int = 1, **train: Any) -> Config:
    return config_with(FORMS[form], VIT, **{"batch_size": 8, "num_workers": world_size} | train)


def trained(config: Config, rank: int = 0, world_size: int = 1) -> dict[str, Any]:
    """Train from rank 0's weights; return each step's metrics and the weights after the last, as one vector."""
    step = start(config, seed=rank)
    metrics = [step(batch_of(number, rank, world_size), number / len(VALID)) for number in range(len(VALID))]
    return {
        "metrics": {name: torch.stack([of_step[name] for of_step in metrics]) for name in metrics[0]},
        "weights": flat(whole_weights(step.model)),
        "sharded": sorted({str(p.placements) for p in step.model.parameters() if isinstance(p, DTensor)}),
        "replicated": isinstance(step.model, DistributedDataParallel),
    }


def flat(weights: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def clamped(config: Config, rank: int, world_size: int) -> list[float]:
    """Return the logit scale of two steps, from one far above its bound on."""
    step = start(config)
    with torch.no_grad():
        unwrapped(step.model).logit_scale.log.fill_(5.0)
    return [step(batch_of(0, rank, world_size), 0.0)["logit_scale"].item() for _ in range(2)]


def on_a_rank(rank: int, world_size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, sharding in SHARDINGS[world_size].items():
        for form in FORMS:
            config = config_of(form, world_size, **sharding)
            found[f"{name} {form}"] = trained(config, rank, world_size)
        half = config_of("hinge", world_size, precision="bf16", **sharding)
        found[f"{name} bf16"] = trained(half, rank, world_size)
        found[f"{name} clamped"] = clamped(config_of("hinge", world_size, **sharding), rank, world_size)
        if world_size == 2:
            for way, options in BLOCKS.items():
                config = config_of("hinge", world_size, **sharding, **options)
                found[f"{name} {way}"] = trained(config, rank, world_size)
            compiled = config_of(
                "hinge", world_size, precision="bf16", **sharding, **BLOCKS["compiled and checkpointed"]
            )
            found[f"{name} bf16 compiled"] = trained(compiled, rank, world_size)
    return found


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("sharding")
    return {size: ranks.run(on_a_rank, size, folder) for size in SHARDINGS}


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    """What one process without any group trains."""
    return {form: trained(config_of(form)) for form in FORMS}


def moved(weights: Tensor, form: str) -> Tensor:
    """Return how far training moved every weight from the start."""
    torch.manual_seed(0)
    return weights - flat(build_model(config_of(form).model).state_dict())


PLACES = [(size, sharding) for size, shardings in SHARDINGS.items() for sharding in shardings]
ON_TWO = [sharding for size, sharding in PLACES if size == 2]


@pytest.mark.parametrize(
    ("size", "sharding", "form", "case"),
    [
        *((size, sharding, form, form) for size, sharding in PLACES for form in FORMS),
        *((2, sharding, "hinge", way) for sharding in ON_TWO for way in BLOCKS),
    ],
)
def test_ranks_train_as_one_process_with_the_whole_batch_however_blocks_are_computed(
    alone: dict[str, Any], of_ranks: dict[int, Any], size: int, sharding: str, form: str, case: str
) -> None:
    expected = alone[form]
    assert expected["metrics"]["loss_contrastive"].min() > 0
    far = moved(expected["weights"], form)
    assert far.norm() > 0.1
    for of_rank in of_ranks[size]:
        found = of_rank[f"{sharding} {case}"]
        torch.testing.assert_close(found["metrics"], expected["metrics"], **CLOSE)
        assert (moved(found["weights"], form) - far).norm() < 0.01 * far.norm()


@pytest.mark.parametrize("sharding", ON_TWO)
def test_blocks_that_are_compiled_and_checkpointed_compute_in_bfloat16_as_others_do(
    of_ranks: dict[int, Any], sharding: str
) -> None:
    for of_rank in of_ranks[2]:
        found, expected = (of_rank[f"{sharding} {case}"]["metrics"] for case in ("bf16 compiled", "bf16"))
        torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-3, atol=0)
        torch.testing.assert_close(found["grad_norm"], expected["grad_norm"], rtol=0.02, atol=0)


@pytest.mark.parametrize(("size", "sharding"), PLACES)
def test_all_ranks_end_with_the_same_weights(of_ranks: dict[int, Any], size: int, sharding: str) -> None:
    first, *others = (of_rank[f"{sharding} hinge"]["weights"] for of_rank in of_ranks[size])
    assert all(torch.equal(weights, first) for weights in others)


@pytest.mark.parametrize(("size", "sharding"), PLACES)
def test_the_setting_decides_between_shards_and_replicas(
    of_ranks: dict[int, Any], size: int, sharding: str
) -> None:
    expected = {"ddp": [], "fsdp": ["(Shard(dim=0),)"]}.get(sharding, ["(Replicate(), Shard(dim=0))"])
    for case in ("hinge", "bf16"):
        found = of_ranks[size][0][f"{sharding} {case}"]
        assert found["sharded"] == expected
        assert found["replicated"] == (sharding == "ddp")


@pytest.mark.parametrize(("size", "sharding"), PLACES)
def test_bfloat16_trains_nearly_as_single_precision_and_keeps_its_weights_in_it(
    alone: dict[str, Any], of_ranks: dict[int, Any], size: int, sharding: str
) -> None:
    found, expected = of_ranks[size][0][f"{sharding} bf16"], alone["hinge"]
    assert not torch.equal(found["metrics"]["loss"], expected["metrics"]["loss"])
    torch.testing.assert_close(found["metrics"]["loss"], expected["metrics"]["loss"], rtol=0.05, atol=0)
    assert found["weights"].dtype == torch.float32
    assert not torch.equal(found["weights"], found["weights"].bfloat16().float())
    # The scale itself is not rounded to bfloat16, whose neighbours lie 0.4 % apart.
    torch.testing.assert_close(found["metrics"]["logit_scale"][0].item(), 1 / 0.07, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("size", "sharding"), PLACES)
def test_every_rank_keeps_the_logit_scale_at_its_bound(
    of_ranks: dict[int, Any], size: int, sharding: str
) -> None:
    for of_rank in of_ranks[size]:
        assert of_rank[f"{sharding} clamped"] == pytest.approx([148.413, 100.0], rel=1e-4)


# Forms


def test_the_sigmoids_bias_is_trained_and_told(of_ranks: dict[int, Any]) -> None:
    biases = of_ranks[4][0]["fsdp sigmoid"]["metrics"]["logit_bias"].tolist()
    assert biases[:2] == [-10.0, -10.0]  # the rate of the first step is 0
    assert biases[-1] != -10.0


def test_the_margin_term_leaves_the_logit_scale_where_it_is(of_ranks: dict[int, Any]) -> None:
    scales = of_ranks[2][0]["ddp max_margin"]["metrics"]["logit_scale"]
    assert (scales == scales[0]).all()
