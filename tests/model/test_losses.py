"""The loss against its definition in plain double precision, and over one rank and several."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss
from torch.nn import functional as F

from sclip.config import LossConfig
from sclip.model import structure_loss
from support import ranks
from support.loss_cases import (
    CASES,
    DIM,
    FEATURES,
    Tensors,
    batch_of,
    features_of,
    gradients,
    only,
    with_gradients,
)


def by_definition(features: Tensors, batch: Tensors, config: LossConfig) -> dict[str, float]:
    """Return the terms of method.md, section 4, in plain Python floats."""
    image, text, negative = (features[name].detach().double().tolist() for name in FEATURES)
    scale = features["logit_scale"].item()
    digest, valid, has_negative = (batch[name].tolist() for name in ("image_digest", "valid", "has_negative"))
    counted = [row for row, holds in enumerate(valid) if holds]

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    def info_nce(queries: list[list[float]], candidates: list[list[float]]) -> float:
        terms = []
        for row in counted:
            against = [other for other in counted if other == row or digest[other] != digest[row]]
            logits = [scale * cosine(queries[row], candidates[other]) for other in against]
            own = scale * cosine(queries[row], candidates[row])
            terms.append(math.log(sum(math.exp(logit) for logit in logits)) - own)
        return sum(terms) / len(terms) if terms else 0.0

    gaps = [
        cosine(image[row], text[row]) - cosine(image[row], other)
        for row in counted
        for other, holds in zip(negative[row], has_negative[row], strict=True)
        if holds
    ]
    hinges = [max(0.0, config.hinge_margin - gap) for gap in gaps]
    contrastive = (info_nce(image, text) + info_nce(text, image)) / 2
    hinge = sum(hinges) / len(hinges) if hinges else 0.0
    return {
        "loss": contrastive + config.hinge_weight * hinge,
        "loss_contrastive": contrastive,
        "loss_hinge": hinge,
        "samples": len(counted),
        "share_with_negative": sum(any(has_negative[row]) for row in counted) / max(1, len(counted)),
        "share_with_triples": 0.0,
        "hinge_active": sum(h > 0 for h in hinges) / max(1, len(hinges)),
        "negative_gap": sum(gaps) / max(1, len(gaps)),
    }


def assert_metrics(metrics: Tensors, expected: dict[str, float]) -> None:
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        expected, rel=1e-4, abs=1e-5
    )


# One rank


def test_the_loss_is_that_of_the_definition() -> None:
    features = features_of(6)
    batch = batch_of(
        [1, 2, 1, 3, 4, 4], [True, True, True, True, False, True], [True, False, True, True, True, True]
    )
    config = LossConfig(hinge_weight=5.0, hinge_margin=0.1)
    loss, metrics = structure_loss(features, batch, config)
    expected = by_definition(features, batch, config)
    assert 0 < expected["hinge_active"] < 1
    assert_metrics(metrics, expected)
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-4)
    assert not any(metric.requires_grad for metric in metrics.values())


ROWS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=60)
@given(ROWS, st.integers(0, 2**31), st.floats(1, 100), st.floats(0, 2), st.floats(0, 10))
def test_the_loss_is_that_of_the_definition_for_any_rows(
    rows: list[tuple[int, bool, bool]], seed: int, scale: float, margin: float, weight: float
) -> None:
    features = features_of(len(rows), seed, scale)
    batch = batch_of([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    config = LossConfig(hinge_weight=weight, hinge_margin=margin)
    loss, metrics = structure_loss(features, batch, config)
    assert_metrics(metrics, by_definition(features, batch, config))
    assert all(gradient.isfinite().all() for gradient in gradients(loss, features).values())


def test_the_contrastive_term_is_that_of_open_clip_where_keys_are_distinct() -> None:
    features = features_of(7, scale=30.0)
    loss, metrics = structure_loss(features, batch_of(list(range(7))), LossConfig(hinge_weight=0.0))
    expected = ClipLoss()(features["image_features"], features["text_features"], features["logit_scale"])
    torch.testing.assert_close(metrics["loss_contrastive"], expected.detach())
    del features["negative_features"]
    ours, theirs = gradients(loss, features), gradients(expected, features)
    for name in features:
        torch.testing.assert_close(ours[name], theirs[name])


def test_rows_of_the_same_image_are_no_negatives_of_each_other() -> None:
    # Two captions of one image alone in the batch: nothing is left to tell apart.
    features = features_of(2)
    loss, metrics = structure_loss(features, batch_of([5, 5]), LossConfig(hinge_weight=0.0))
    assert metrics["loss_contrastive"] == 0
    assert not gradients(loss, features)["image_features"].any()
    apart, _ = structure_loss(features, batch_of([5, 6]), LossConfig(hinge_weight=0.0))
    assert apart > 0.01


def test_rows_that_are_not_valid_count_nowhere() -> None:
    valid = torch.tensor([True, False, True, True, False, True])
    batch = batch_of([1, 2, 3, 3, 1, 4], valid.tolist(), [True, True, False, True, True, True])
    batch["triples"] = torch.full((6, 2, 3, 2), -1)
    batch["negative_triples"] = torch.full((6, 2, 2, 3, 2), -1)
    batch["triples"][[0, 1, 3], 0] = 7
    features = features_of(6)
    without = with_gradients(only(valid, features))
    loss, metrics = structure_loss(features, batch, LossConfig())
    expected, expected_metrics = structure_loss(without, only(valid, batch), LossConfig())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics, expected_metrics)
    assert metrics["samples"] == 4
    assert metrics["share_with_triples"] == 0.5
    # Of the four negatives of valid rows, those of the two rows with a triple differ from it.
    assert metrics["share_negative_unseen_by_kee"] == 0.25
    found, wanted = gradients(loss, features), gradients(expected, without)
    for name in FEATURES:
        torch.testing.assert_close(found[name][valid], wanted[name])
        assert wanted[name].any()
        assert not found[name][~valid].any()
    torch.testing.assert_close(found["logit_scale"], wanted["logit_scale"])


def test_without_any_negative_the_hinge_is_0_and_the_contrastive_term_stays() -> None:
    features = features_of(4)
    loss, metrics = structure_loss(
        features, batch_of([1, 2, 3, 4], has_negative=[False] * 4), LossConfig(hinge_weight=5.0)
    )
    assert metrics["loss_hinge"] == metrics["share_with_negative"] == metrics["hinge_active"] == 0
    assert loss == metrics["loss"] == metrics["loss_contrastive"] > 0
    found = gradients(loss, features)
    assert not found["negative_features"].any()
    assert found["text_features"].any()
    assert found["text_features"].isfinite().all()


def test_a_negative_of_a_row_that_is_not_valid_gives_no_hinge() -> None:
    batch = batch_of([1, 2, 3], [True, True, False], [False, False, True])
    _, metrics = structure_loss(features_of(3), batch, LossConfig(hinge_margin=2.0))
    assert metrics["loss_hinge"] == metrics["share_with_negative"] == 0


def test_without_any_valid_row_the_loss_and_its_gradients_are_0() -> None:
    features = features_of(3)
    loss, metrics = structure_loss(features, batch_of([1, 2, 3], [False] * 3), LossConfig())
    assert loss == metrics["loss"] == metrics["samples"] == 0
    assert all(value.isfinite() for value in metrics.values())
    assert all((gradient == 0).all() for gradient in gradients(loss, features).values())


def test_without_negative_features_only_the_contrastive_term_is_there() -> None:
    features, batch = features_of(4), batch_of([1, 2, 3, 4])
    _, with_negatives = structure_loss(features, batch, LossConfig())
    del features["negative_features"], batch["has_negative"]
    loss, metrics = structure_loss(features, batch, LossConfig())
    assert metrics.keys() == {"loss", "loss_contrastive", "samples", "share_with_triples"}
    assert loss == metrics["loss"] == with_negatives["loss_contrastive"]


def test_features_in_half_precision_are_compared_in_single_precision() -> None:
    half = {name: tensor.bfloat16() for name, tensor in features_of(4, scale=100.0).items()}
    same = {name: tensor.float() for name, tensor in half.items()}
    batch = batch_of([1, 2, 3, 4])
    of_half, of_single = (structure_loss(f, batch, LossConfig())[1]["loss"] for f in (half, same))
    assert of_half.dtype == torch.float32
    torch.testing.assert_close(of_half, of_single)


# Several ranks

ROWS_OF_A_RANK = 4


def encoder() -> torch.nn.Module:
    """Return a model whose gradients are compared: a projection of each feature, and a learned scale."""
    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({name: torch.nn.Linear(DIM, DIM) for name in FEATURES})
    layers.register_parameter("log_scale", torch.nn.Parameter(torch.tensor(2.5)))
    return layers


def trained_on(batch: Tensors, rows: slice) -> Tensors:
    """Return the metrics of some rows of the global batch, and the gradients averaged over the ranks."""
    model, config = encoder(), LossConfig(hinge_weight=3.0)
    inputs = features_of(8, seed=1)
    features = {
        name: F.normalize(layer(inputs[name].detach()[rows]), dim=-1) for name, layer in model.items()
    }
    features["logit_scale"] = model.log_scale.exp()
    loss, metrics = structure_loss(features, {name: column[rows] for name, column in batch.items()}, config)
    loss.backward()
    averaged = {}
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        if dist.is_initialized():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
        averaged[f"gradient of {name}"] = gradient
    return metrics | averaged


def on_a_rank(rank: int, world_size: int) -> dict[str, Tensors]:
    rows = slice(rank * ROWS_OF_A_RANK, (rank + 1) * ROWS_OF_A_RANK)
    return {case: trained_on(batch, rows) for case, batch in CASES.items()}


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensors]]:
    return ranks.run(on_a_rank, 2, tmp_path_factory.mktemp("losses"))


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_with_halves_have_the_loss_and_gradients_of_one_with_the_whole(
    of_two_ranks: list[dict[str, Tensors]], case: str
) -> None:
    whole = trained_on(CASES[case], slice(0, 8))
    assert bool(whole["gradient of image_features.weight"].any()) == (case != "none valid")
    for of_rank in of_two_ranks:
        torch.testing.assert_close(of_rank[case], whole, rtol=1e-4, atol=1e-6)
