"""Training steps: the same on one rank and on two, under DDP and FSDP2; optimizer groups, rate and bounds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import ranks
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sclip.config import Config, KEEConfig, LossConfig, ModelConfig, TrainConfig
from sclip.model import Tokenizer, build_model, image_size
from sclip.train.sharding import apply, learning_rate, make_optimizer
from sclip.train.step import TrainingDiverged, TrainStep, unwrapped

MODEL = ModelConfig(name="scenes-convnext", kee=KEEConfig(layers=1, heads=4))
STEPS, ROWS = 4, 6

Tensors = dict[str, Tensor]

CASES = [
    ("a dog lies on a sofa", "a sofa lies on a dog", ("dog", "lie on", "sofa")),
    ("an astronaut rides a horse", "a horse rides an astronaut", ("astronaut", "ride", "horse")),
    ("a cup under a table", "a table under a cup", ("cup", "under", "table")),
    ("a man with a hat", "a hat with a man", ("man", "with", "hat")),
    ("a quiet evening", "", None),
    ("a bird above a tree", "a tree above a bird", ("bird", "above", "tree")),
]


def training_batch(step: int) -> Tensors:
    """Return the global batch of a step: random pictures, one row without negative, one of padding."""
    tokenizer = Tokenizer(MODEL.name, MODEL.kee)
    generator = torch.Generator().manual_seed(step)
    cases = [CASES[(row + step) % len(CASES)] for row in range(ROWS)]
    triples = [[triple] if triple else [] for _, _, triple in cases]
    side = image_size(MODEL.name)
    return {
        "image": torch.randint(0, 256, (ROWS, 3, side, side), dtype=torch.uint8, generator=generator),
        "text": torch.from_numpy(tokenizer.text([case[0] for case in cases])),
        "negative_text": torch.from_numpy(tokenizer.text([case[1] for case in cases]))[:, None],
        "triples": torch.from_numpy(tokenizer.triples(triples)),
        "negative_triples": torch.from_numpy(
            tokenizer.triples([[(tail, relation, head) for head, relation, tail in some] for some in triples])
        )[:, None],
        "has_negative": torch.tensor([[bool(case[1])] for case in cases]),
        "key": torch.arange(ROWS) + 100 * step,
        "valid": torch.arange(ROWS) != ROWS - 1,
    }


def part_of(batch: Tensors, rank: int, world_size: int) -> Tensors:
    rows = ROWS // world_size
    return {name: column[rank * rows : (rank + 1) * rows] for name, column in batch.items()}


def config_with(loss: LossConfig | None = None, **train: Any) -> Config:
    train = {"batch_size": ROWS, "learning_rate": 1e-3, "warmup": 0.25} | train
    loss = loss or LossConfig(hinge_weight=2.0)
    model = dataclasses.replace(MODEL, logit_bias=-10.0 if loss.contrastive == "sigmoid" else 0.0)
    return Config(model=model, loss=loss, train=TrainConfig(**train))


def start(config: Config, seed: int = 0) -> TrainStep:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = apply(build_model(config.model), config.train, torch.device("cpu"))
    return TrainStep(model, make_optimizer(model, config.train), config)


def whole_weights(model: nn.Module) -> Tensors:
    """Return copies of the full weights; called by all ranks together."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
        for name, tensor in unwrapped(model).state_dict().items()
    }


def trained(config: Config, rank: int = 0, world_size: int = 1) -> dict[str, Any]:
    """Train some steps from rank 0's weights; return each step's metrics and the weights after the last."""
    step = start(config, seed=rank)
    metrics = [
        step(part_of(training_batch(number), rank, world_size), number / STEPS) for number in range(STEPS)
    ]
    return {
        "metrics": {name: torch.stack([of_step[name] for of_step in metrics]) for name in metrics[0]},
        "weights": whole_weights(step.model),
        "sharded": any(isinstance(p, DTensor) for p in step.model.parameters()),
        "replicated": isinstance(step.model, DistributedDataParallel),
    }


FORMS = {
    "max_margin": LossConfig(contrastive="max_margin", contrastive_warmup=0.5),
    "sigmoid": LossConfig(contrastive="sigmoid"),
    "negatives as texts": LossConfig(negatives_as_texts=True),
}


def on_a_rank(rank: int, world_size: int) -> dict[str, Any]:
    return {
        f"{sharding} {form}": trained(config_with(loss, sharding=sharding), rank, world_size)
        for sharding in ("ddp", "fsdp")
        for form, loss in FORMS.items()
    } | {
        "ddp": trained(config_with(sharding="ddp"), rank, world_size),
        "fsdp": trained(config_with(sharding="fsdp"), rank, world_size),
        "fsdp bf16": trained(config_with(sharding="fsdp", precision="bf16"), rank, world_size),
        "ddp bf16": trained(config_with(sharding="ddp", precision="bf16"), rank, world_size),
    }


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ranks.run(on_a_rank, 2, tmp_path_factory.mktemp("sharding"))


@pytest.fixture(scope="module")
def of_one_rank() -> dict[str, Any]:
    return trained(config_with())


def moved(weights: Tensors) -> Tensor:
    """Return how far training moved every weight from the start, as one vector."""
    torch.manual_seed(0)
    before = build_model(MODEL).state_dict()
    assert before.keys() == weights.keys()
    return torch.cat([(weights[name] - before[name]).flatten() for name in sorted(before)])


# One rank and two


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_ranks_have_the_losses_and_gradient_norms_of_one(
    of_one_rank: dict[str, Any], of_two_ranks: list[dict[str, Any]], sharding: str
) -> None:
    for of_rank in of_two_ranks:
        torch.testing.assert_close(of_rank[sharding]["metrics"], of_one_rank["metrics"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_ranks_end_at_the_weights_of_one(
    of_one_rank: dict[str, Any], of_two_ranks: list[dict[str, Any]], sharding: str
) -> None:
    expected = moved(of_one_rank["weights"])
    assert expected.norm() > 0.1
    for of_rank in of_two_ranks:
        assert (moved(of_rank[sharding]["weights"]) - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("form", FORMS)
def test_two_ranks_train_with_every_form_of_the_contrastive_term_as_one_does(
    of_two_ranks: list[dict[str, Any]], sharding: str, form: str
) -> None:
    expected = trained(config_with(FORMS[form]))
    assert expected["metrics"]["loss_contrastive"].min() > 0
    for of_rank in of_two_ranks:
        found = of_rank[f"{sharding} {form}"]
        torch.testing.assert_close(found["metrics"], expected["metrics"], rtol=1e-4, atol=1e-4)


def test_the_sigmoids_bias_is_trained_and_told(of_two_ranks: list[dict[str, Any]]) -> None:
    found = of_two_ranks[0]["fsdp sigmoid"]
    biases = found["metrics"]["logit_bias"].tolist()
    assert biases[:2] == [-10.0, -10.0]  # the rate of the first step is 0
    assert biases[-1] != -10.0
    assert found["weights"]["logit_bias.value"].item() != biases[-1]


def test_the_margin_term_leaves_the_logit_scale_where_it_is(of_two_ranks: list[dict[str, Any]]) -> None:
    scales = of_two_ranks[0]["ddp max_margin"]["metrics"]["logit_scale"]
    assert (scales == scales[0]).all()


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_all_ranks_hold_the_same_weights(of_two_ranks: list[dict[str, Any]], sharding: str) -> None:
    first, second = (of_rank[sharding]["weights"] for of_rank in of_two_ranks)
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_the_setting_decides_between_shards_and_replicas(of_two_ranks: list[dict[str, Any]]) -> None:
    found = {name: (case["sharded"], case["replicated"]) for name, case in of_two_ranks[0].items()}
    assert found["fsdp"] == found["fsdp bf16"] == (True, False)
    assert found["ddp"] == found["ddp bf16"] == (False, True)


@pytest.mark.parametrize("case", ["ddp bf16", "fsdp bf16"])
def test_bfloat16_trains_nearly_as_single_precision_and_keeps_its_weights_in_it(
    of_one_rank: dict[str, Any], of_two_ranks: list[dict[str, Any]], case: str
) -> None:
    found = of_two_ranks[0][case]
    assert not torch.equal(found["metrics"]["loss"], of_one_rank["metrics"]["loss"])
    torch.testing.assert_close(found["metrics"]["loss"], of_one_rank["metrics"]["loss"], rtol=0.05, atol=0)
    assert {tensor.dtype for tensor in found["weights"].values()} == {torch.float32}
    # The scale itself is not rounded to bfloat16, whose neighbours lie 0.4 % apart.
    torch.testing.assert_close(found["metrics"]["logit_scale"][0].item(), 1 / 0.07, rtol=1e-5, atol=0)


# The step


def test_training_lowers_the_loss_of_a_batch_that_is_seen_again() -> None:
    step = start(config_with(warmup=0.0))
    losses = [step(training_batch(0), 0.0)["loss"].item() for _ in range(4)]
    assert losses[-1] < losses[0] - 0.1


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
        step = TrainStep(model, torch.optim.SGD(model.parameters()), config)
        norm = step(training_batch(0), 0.25)["grad_norm"].item()
        return norm, moved(model.state_dict()).norm() / config.train.learning_rate

    norm, unbounded = after_step(0.0)
    assert norm > 0.2
    assert unbounded.item() == pytest.approx(norm, rel=1e-2)
    same_norm, bounded = after_step(0.1)
    assert same_norm == pytest.approx(norm)
    assert bounded.item() == pytest.approx(0.1, rel=1e-2)


# Divergence


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run_with_advice(name: str, value: float) -> None:
    step = start(config_with())
    metrics = step(training_batch(0), 0.1)
    step.check(metrics)
    with pytest.raises(TrainingDiverged, match=rf"{name} is {value} at logit scale 14\.3.*learning_rate"):
        step.check(metrics | {name: torch.tensor(value)})


def test_a_weight_that_is_not_finite_is_seen_in_the_next_step() -> None:
    step = start(config_with())
    with torch.no_grad():
        unwrapped(step.model).token_embedding.weight.fill_(math.nan)
    with pytest.raises(TrainingDiverged, match="loss is nan"):
        step.check(step(training_batch(0), 0.1))


# The rate and the decay


def test_the_rate_rises_from_0_to_its_peak_and_falls_to_0() -> None:
    config = TrainConfig(learning_rate=3e-4, warmup=0.1)
    assert learning_rate(0.0, config) == 0
    assert learning_rate(0.05, config) == pytest.approx(1.5e-4)
    assert learning_rate(0.1, config) == pytest.approx(3e-4)
    assert learning_rate(0.55, config) == pytest.approx(1.5e-4)
    assert learning_rate(1.0, config) == pytest.approx(0, abs=1e-12)
    rates = [learning_rate(share / 100, config) for share in range(101)]
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)


@pytest.mark.parametrize(("warmup", "first", "last"), [(0.0, 1.0, 0.0), (1.0, 0.0, 1.0)])
def test_a_run_may_have_no_warmup_or_nothing_else(warmup: float, first: float, last: float) -> None:
    config = TrainConfig(learning_rate=1.0, warmup=warmup)
    assert learning_rate(0.0, config) == pytest.approx(first)
    assert learning_rate(1.0, config) == pytest.approx(last)
    assert learning_rate(0.5, config) == pytest.approx(0.5)


def test_progress_beyond_the_end_keeps_the_rate_at_0() -> None:
    assert learning_rate(1.2, TrainConfig(warmup=0.1)) == pytest.approx(0, abs=1e-15)


def test_the_step_sets_the_rate_of_every_group() -> None:
    config = config_with(warmup=0.5)
    step = start(config)
    metrics = step(training_batch(0), 0.25)
    assert [group["lr"] for group in step.optimizer.param_groups] == [5e-4, 5e-4]
    assert metrics["learning_rate"].item() == pytest.approx(5e-4)


def test_a_step_leaves_no_gradient_for_the_next() -> None:
    step = start(config_with())
    first, again = (step(training_batch(0), 0.0)["grad_norm"] for _ in range(2))
    torch.testing.assert_close(again, first)
    assert first > 0


def test_at_rate_0_a_step_changes_no_weight() -> None:
    step = start(config_with())
    before = whole_weights(step.model)
    metrics = step(training_batch(0), 0.0)
    assert metrics["grad_norm"] > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole_weights(step.model).items())


def test_matrices_decay_and_vectors_gains_and_the_logit_scale_do_not() -> None:
    torch.manual_seed(0)
    model = build_model(MODEL)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, TrainConfig(weight_decay=0.3, beta2=0.9)).param_groups
    decayed, kept = ({names[id(p)] for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {group["betas"] for group in groups} == {(0.9, 0.9)}
    assert decayed | kept == set(names.values())
    assert not decayed & kept
    assert {"clip.token_embedding.weight", "kee.projection.weight", "clip.text_projection"} <= decayed
    assert {"logit_scale.log", "kee.ln_pre.weight", "clip.ln_final.weight"} <= kept
    assert {name for name in names.values() if name.endswith("bias")} <= kept


def test_frozen_weights_are_not_given_to_the_optimizer() -> None:
    model = build_model(MODEL)
    model.clip.visual.requires_grad_(False)
    given = {id(p) for group in make_optimizer(model, TrainConfig()).param_groups for p in group["params"]}
    assert given == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(given) < len(list(model.parameters()))
