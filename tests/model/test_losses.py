"""The loss in every form equals its definition, on one rank and on several."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sclip.config import LossConfig
from sclip.model import contrastive, structure_loss
from support import ranks
from support.loss_cases import CASES, DIM, FEATURES, Tensors, batch_of, features_of, gradients, with_gradients

FORMS = {
    "infonce": LossConfig(hinge_weight=2.0),
    "negatives as texts": LossConfig(negatives_as_texts=True, hinge_weight=2.0),
    "max_margin": LossConfig(contrastive="max_margin", contrastive_warmup=0.5),
    "max_margin at the start": LossConfig(contrastive="max_margin", contrastive_warmup=1.0),
    "sigmoid": LossConfig(contrastive="sigmoid", hinge_weight=2.0),
    "positives": LossConfig(positives=0.5, positive_margin=0.1),
    "distil": LossConfig(distil=2.0),
    "sigmoid and distil": LossConfig(contrastive="sigmoid", distil=0.5),
    "units": LossConfig(hinge_weight=2.0, units=3.0),
}
TILES = (contrastive.TILE, 6)
"""Logits that a rank computes at once: all of them, or those of three of the eight rows."""
PROGRESS = 0.5
"""The share of training after which the warm-up of "max_margin" ends."""


def inputs(rows: int, seed: int = 0, scale: float = 10.0, bias: float = -5.0) -> Tensors:
    return with_gradients(features_of(rows, seed, scale) | {"logit_bias": torch.tensor(bias)})


def loss_of(
    features: Tensors, batch: Tensors, config: LossConfig, teacher: Tensors | None
) -> tuple[Tensor, Tensors]:
    """Return loss and metrics. With `config.units`, two of three rows have a unit and its foil."""
    if config.units:
        features = features | {"unit_features": features["negative_features"].flip(1)}
        batch = batch | {"has_unit": batch["image_digest"] % 3 > 0}
    return structure_loss(features, batch, config, PROGRESS, teacher)


def teacher_of(config: LossConfig, rows: int) -> Tensors | None:
    """Return the features of a frozen model of another temperature if the loss distils, else None."""
    return (
        {n: t.detach() for n, t in features_of(rows, seed=5, scale=30.0).items()} if config.distil else None
    )


def loss_by_definition(
    features: Tensors, batch: Tensors, config: LossConfig, teacher: Tensors | None
) -> tuple[Tensor, dict[str, Any]]:
    """Return the loss and its metrics, pair by pair, as the papers define them.

    The precision is that of the features.
    """
    image, text, negative, positive = (features[name] for name in FEATURES)
    scale, bias = features["logit_scale"], features["logit_bias"]
    digest, valid, has_negative = (batch[name].tolist() for name in ("image_digest", "valid", "has_negative"))
    counted = [row for row, holds in enumerate(valid) if holds]
    kept = [
        [n for n, has in zip(*row, strict=True) if has] for row in zip(negative, has_negative, strict=True)
    ]
    zero = 0.0 * sum(tensor.sum() for tensor in features.values())

    def other_rows(row: int) -> list[int]:
        return [other for other in counted if digest[other] != digest[row]]

    def term(row: int) -> Tensor:
        own, apart = image[row] @ text[row], other_rows(row)
        to_texts, to_images = [image[row] @ text[j] for j in apart], [text[row] @ image[j] for j in apart]
        if config.contrastive == "sigmoid":
            pairs = [scale * own + bias] + [-(scale * cosine + bias) for cosine in to_texts]
            return sum(torch.log1p(torch.exp(-pair)) for pair in pairs)
        if config.contrastive == "max_margin":
            if not apart:
                return zero
            against = max(to_images)
            if config.contrastive_warmup > PROGRESS:
                against = sum([own, *to_images]) / (1 + len(to_images))
            return torch.relu(config.contrastive_margin - own + max(to_texts)) + torch.relu(
                config.contrastive_margin - own + against
            )
        if config.negatives_as_texts:
            to_texts = to_texts + [image[row] @ other for j in [row, *apart] for other in kept[j]]
        return (
            sum(
                torch.stack([scale * cosine for cosine in [own, *candidates]]).logsumexp(0) - scale * own
                for candidates in (to_texts, to_images)
            )
            / 2
        )

    def divergence(row: int) -> Tensor:
        def shares(tensors: Tensors, own: str, candidate: str) -> Tensor:
            cosines = [tensors[own][row] @ tensors[candidate][j] for j in [row, *other_rows(row)]]
            return (tensors["logit_scale"] * torch.stack(cosines)).softmax(0)

        return sum(
            (shares(teacher, *way) * (shares(teacher, *way) / shares(features, *way)).log()).sum() / 2
            for way in (FEATURES[:2], FEATURES[1::-1])
        )

    def mean(values: list[Any]) -> Any:
        return sum(values, zero) / max(1, len(values))

    terms = [term(row) for row in counted]
    gaps = [image[row] @ text[row] - image[row] @ other for row in counted for other in kept[row]]
    hinges = [torch.relu(config.hinge_margin - gap) for gap in gaps]
    loss = mean(terms) + config.hinge_weight * mean(hinges)
    logged = {
        "loss": loss, "loss_contrastive": mean(terms), "loss_hinge": mean(hinges), "samples": len(counted),
        "share_with_negative": mean([bool(kept[row]) for row in counted]), "share_with_triples": 0.0,
        "hinge_active": mean([hinge > 0 for hinge in hinges]), "negative_gap": mean(gaps),
    }  # fmt: skip
    worded = [row for row in counted if batch["has_positive"][row]]
    lags = [image[row] @ (text[row] - positive[row, 0]) for row in worded]
    leads = [image[row] @ (positive[row, 0] - other) for row in worded for other in kept[row]]
    logged["loss_positives"] = mean([torch.relu(lag - config.positive_margin) for lag in lags])
    logged["loss_positives"] += mean([torch.relu(config.hinge_margin - lead) for lead in leads])
    logged["loss"] = loss = loss + config.positives * logged["loss_positives"]
    logged["share_with_positive"] = mean([row in worded for row in counted])
    logged["positive_gap"], logged["positive_won"] = mean(lags), mean([lead > 0 for lead in leads])
    if teacher is not None:
        logged["loss_distil"] = mean([divergence(row) for row in counted])
        logged["loss"] = loss = loss + config.distil * logged["loss_distil"]
    if config.units:
        kept_units = [row for row in counted if digest[row] % 3]
        apart = [image[row] @ (negative[row][1] - negative[row][0]) for row in kept_units]
        logged |= {
            "loss_units": mean([torch.relu(config.hinge_margin - gap) for gap in apart]),
            "share_with_unit": len(kept_units) / max(1, len(counted)),
            "unit_won": mean([gap > 0 for gap in apart]), "unit_gap": mean(apart),
        }  # fmt: skip
        logged["loss"] = loss = loss + config.units * logged["loss_units"]
    if config.contrastive == "max_margin":
        logged["contrastive_active"] = mean([value > 0 for value in terms])
    return loss, logged


ROWS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=6)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15)
@given(ROWS, st.integers(0, 2**31), st.floats(1, 100), st.floats(-20, 0), st.floats(0, 2))
def test_loss_gradients_and_metrics_equal_the_definition_in_double_precision(
    form: str, rows: list[tuple[int, bool, bool]], seed: int, scale: float, bias: float, margin: float
) -> None:
    config = dataclasses.replace(FORMS[form], hinge_margin=margin, contrastive_margin=margin)
    features = inputs(len(rows), seed, scale, bias)
    batch = batch_of(*(list(column) for column in zip(*rows, strict=True)))
    precise = with_gradients({name: tensor.double() for name, tensor in features.items()})
    teacher = teacher_of(config, len(rows))
    loss, metrics = loss_of(features, batch, config, teacher)
    precise_teacher = teacher and {name: tensor.double() for name, tensor in teacher.items()}
    expected, logged = loss_by_definition(precise, batch, config, precise_teacher)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-4)
    assert not any(metric.requires_grad for metric in metrics.values())
    measured = {name: metric.item() for name, metric in metrics.items()}
    assert measured == pytest.approx(
        {n: torch.as_tensor(v).item() for n, v in logged.items()}, rel=1e-4, abs=1e-4
    )
    actual, target = gradients(loss, features), gradients(expected, precise)
    for name in features:
        torch.testing.assert_close(actual[name].double(), target[name], rtol=1e-3, atol=1e-3)


def test_without_negative_features_only_the_contrastive_term_is_computed() -> None:
    features, batch = features_of(4), batch_of([1, 2, 3, 4])
    _, with_negatives = structure_loss(features, batch, LossConfig())
    del features["negative_features"], features["positive_features"], batch["has_negative"]
    for as_texts in (False, True):
        loss, metrics = structure_loss(features, batch, LossConfig(negatives_as_texts=as_texts))
        assert metrics.keys() == {"loss", "loss_contrastive", "samples", "share_with_triples"}
        assert loss == metrics["loss"] == with_negatives["loss_contrastive"]


def test_metrics_count_triples_of_valid_rows_and_negatives_that_the_encoder_does_not_see() -> None:
    batch = batch_of(
        list(range(6)), [True, False, True, True, False, True], [True, True, False, True, True, True]
    )
    batch["triples"] = torch.full((6, 2, 3, 2), -1)
    batch["negative_triples"] = torch.full((6, 2, 2, 3, 2), -1)
    batch["triples"][[0, 1, 3], 0] = 7
    _, metrics = structure_loss(features_of(6), batch, LossConfig())
    assert metrics["share_with_triples"] == 0.5
    # Valid rows have four negatives. Only that of the row without a triple looks the same to the encoder.
    assert metrics["share_negative_unseen_by_kee"] == 0.25


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_finite_where_logits_are_extreme(form: str) -> None:
    features = inputs(4, scale=100.0, bias=-100.0)
    with torch.no_grad():  # one opposite pair and one identical pair
        features["text_features"][0] = -features["image_features"][0]
        features["text_features"][1] = features["image_features"][1]
    teacher = teacher_of(FORMS[form], 4)
    loss, _ = loss_of(features, batch_of([1, 2, 3, 1]), FORMS[form], teacher)
    assert all(gradient.isfinite().all() for gradient in gradients(loss, features).values())


def encoder() -> torch.nn.Module:
    """Return a model whose gradients are compared: a projection of each feature, a scale and a bias."""
    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({name: torch.nn.Linear(DIM, DIM) for name in FEATURES})
    layers.register_parameter("log_scale", torch.nn.Parameter(torch.tensor(2.5)))
    layers.register_parameter("bias", torch.nn.Parameter(torch.tensor(-5.0)))
    return layers


def encoded(model: torch.nn.Module, rows: slice) -> Tensors:
    base_features = features_of(8, seed=1)
    features = {
        name: F.normalize(model[name](base_features[name].detach()[rows]), dim=1) for name in FEATURES
    }
    return features | {"logit_scale": model.log_scale.exp(), "logit_bias": model.bias * 1.0}


def averaged(model: torch.nn.Module) -> Tensors:
    """Return the gradients averaged over the ranks, as DDP averages them."""
    averages = {}
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        if dist.is_initialized():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
        averages[f"gradient of {name}"] = gradient
    return averages


def trained_on(batch: Tensors, rows: slice, config: LossConfig) -> Tensors:
    """Return the metrics of some rows of the global batch, and the gradients."""
    model = encoder()
    part = {name: column[rows] for name, column in batch.items()}
    teacher = teacher_of(config, 8)
    teacher_rows = teacher and {
        name: tensor[rows] if tensor.ndim else tensor for name, tensor in teacher.items()
    }
    loss, metrics = loss_of(encoded(model, rows), part, config, teacher_rows)
    loss.backward()
    return metrics | averaged(model)


def on_a_rank(rank: int, world_size: int) -> dict[str, Any]:
    count = 8 // world_size
    rows = slice(rank * count, (rank + 1) * count)
    results = {}
    for tile in TILES:
        contrastive.TILE = tile
        results[tile] = {
            form: {case: trained_on(batch, rows, config) for case, batch in CASES.items()}
            for form, config in FORMS.items()
        }
    return results


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, Any]]:
    """Results of four ranks with two rows each. With two ranks, a wrong order of exchange would not show."""
    return ranks.run(on_a_rank, 4, tmp_path_factory.mktemp("contrastive"))


@pytest.mark.parametrize("form", FORMS)
def test_ranks_with_parts_of_a_batch_have_the_loss_and_gradients_of_one_rank_with_all_of_it(
    outcomes: list[dict[int, Any]], form: str
) -> None:
    for case, batch in CASES.items():
        whole = trained_on(batch, slice(0, 8), FORMS[form])
        assert bool(whole["gradient of image_features.weight"].any()) == (case != "none valid")
        for outcome, tile in itertools.product(outcomes, TILES):
            torch.testing.assert_close(outcome[tile][form][case], whole, rtol=1e-4, atol=1e-5)
