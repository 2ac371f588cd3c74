"""Every form of the contrastive term: by its definition, as other code computes it, over one rank and several."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import SigLipLoss
from torch import Tensor
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

FORMS = {
    "infonce": LossConfig(hinge_weight=2.0),
    "negatives as texts": LossConfig(negatives_as_texts=True, hinge_weight=0.0),
    "negatives as texts, and the hinge": LossConfig(negatives_as_texts=True, hinge_weight=2.0),
    "max_margin": LossConfig(contrastive="max_margin", contrastive_warmup=0.0),
    "max_margin at the start": LossConfig(contrastive="max_margin", contrastive_warmup=1.0),
    "sigmoid": LossConfig(contrastive="sigmoid", hinge_weight=2.0),
}
PROGRESS = 0.5


def inputs(rows: int, seed: int = 0, scale: float = 10.0, bias: float = -5.0) -> Tensors:
    return with_gradients(features_of(rows, seed, scale) | {"logit_bias": torch.tensor(bias)})


def by_definition(features: Tensors, batch: Tensors, config: LossConfig) -> Tensor:
    """Return the loss as method.md and the papers write it, pair by pair, in the precision of the features."""
    image, text, negative = (features[name] for name in FEATURES)
    scale, bias = features["logit_scale"], features["logit_bias"]
    digest, valid, has_negative = (batch[name].tolist() for name in ("image_digest", "valid", "has_negative"))
    counted = [row for row, holds in enumerate(valid) if holds]
    kept = [
        [n for n, has in zip(*row, strict=True) if has] for row in zip(negative, has_negative, strict=True)
    ]
    zero = 0.0 * sum(tensor.sum() for tensor in features.values())

    def others(row: int) -> list[int]:
        return [other for other in counted if digest[other] != digest[row]]

    def term(row: int) -> Tensor:
        own, apart = image[row] @ text[row], others(row)
        of_texts, of_images = [image[row] @ text[j] for j in apart], [text[row] @ image[j] for j in apart]
        if config.contrastive == "sigmoid":
            pairs = [scale * own + bias] + [-(scale * cosine + bias) for cosine in of_texts]
            return sum(torch.log1p(torch.exp(-pair)) for pair in pairs)
        if config.contrastive == "max_margin":
            if not apart:
                return zero
            against = max(of_images)
            if config.contrastive_warmup > PROGRESS:
                against = sum([own, *of_images]) / (1 + len(of_images))
            return torch.relu(config.contrastive_margin - own + max(of_texts)) + torch.relu(
                config.contrastive_margin - own + against
            )
        if config.negatives_as_texts:
            of_texts = of_texts + [image[row] @ other for j in [row, *apart] for other in kept[j]]
        return (
            sum(
                torch.stack([scale * cosine for cosine in [own, *candidates]]).logsumexp(0) - scale * own
                for candidates in (of_texts, of_images)
            )
            / 2
        )

    hinges = [
        torch.relu(config.hinge_margin - image[row] @ text[row] + image[row] @ other)
        for row in counted
        for other in kept[row]
    ]
    contrastive = sum(map(term, counted), zero) / max(1, len(counted))
    return contrastive + config.hinge_weight * sum(hinges, zero) / max(1, len(hinges))


def loss_of(features: Tensors, batch: Tensors, config: LossConfig) -> tuple[Tensor, Tensors]:
    return structure_loss(features, batch, config, PROGRESS)


# One rank

ROWS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=6)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(ROWS, st.integers(0, 2**31), st.floats(1, 100), st.floats(-20, 0))
def test_loss_and_gradients_are_those_of_the_definition_in_double_precision(
    form: str, rows: list[tuple[int, bool, bool]], seed: int, scale: float, bias: float
) -> None:
    features = inputs(len(rows), seed, scale, bias)
    batch = batch_of(*(list(column) for column in zip(*rows, strict=True)))
    precise = with_gradients({name: tensor.double() for name, tensor in features.items()})
    loss, metrics = loss_of(features, batch, FORMS[form])
    expected = by_definition(precise, batch, FORMS[form])
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(metrics["loss"], loss.detach())
    found, wanted = gradients(loss, features), gradients(expected, precise)
    for name in features:
        torch.testing.assert_close(found[name].double(), wanted[name], rtol=1e-3, atol=1e-3)


def test_the_sigmoid_term_is_that_of_open_clip_where_keys_are_distinct() -> None:
    features = inputs(7)
    loss, _ = loss_of(features, batch_of(list(range(7))), LossConfig(contrastive="sigmoid", hinge_weight=0.0))
    del features["negative_features"]
    expected = SigLipLoss()(**features)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, features), gradients(expected, features))


def test_negatives_as_texts_are_negclips_cross_entropy_where_keys_are_distinct() -> None:
    features, batch = inputs(7), batch_of(list(range(7)))
    batch["has_negative"] = torch.ones(7, 2, dtype=torch.bool)
    loss, _ = loss_of(features, batch, FORMS["negatives as texts"])
    del features["logit_bias"]
    image, text, negative = (features[name] for name in FEATURES)
    of_image = features["logit_scale"] * image @ torch.cat([text, negative.flatten(0, 1)]).T
    of_text = features["logit_scale"] * text @ image.T
    labels = torch.arange(7)
    expected = (F.cross_entropy(of_image, labels) + F.cross_entropy(of_text, labels)) / 2
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, features), gradients(expected, features))


@pytest.mark.parametrize(("progress", "is_hard"), [(0.0, False), (0.099, False), (0.1, True), (1.0, True)])
def test_the_margin_term_is_that_of_the_released_code_in_its_warmup_and_after(
    progress: float, is_hard: bool
) -> None:
    features = inputs(7)
    config = LossConfig(contrastive="max_margin", contrastive_warmup=0.1, hinge_weight=0.0)
    loss, metrics = structure_loss(features, batch_of(list(range(7))), config, progress)
    cosines = features["image_features"] @ features["text_features"].T
    own, apart = cosines.diag(), cosines - 10 * torch.eye(7)
    of_image = torch.relu(apart.max(1)[0] + 0.2 - own)
    against = apart.T.max(1)[0] if is_hard else cosines.T.mean(1)
    of_text = torch.relu(against + 0.2 - own)
    expected = (of_image + of_text).mean()
    torch.testing.assert_close(loss, expected)
    names = ("image_features", "text_features")
    features = {name: features[name] for name in names}
    torch.testing.assert_close(gradients(loss, features), gradients(expected, features))
    assert metrics["contrastive_active"] == ((of_image + of_text) > 0).float().mean()
    assert 0 < metrics["contrastive_active"] < 1


@pytest.mark.parametrize("form", FORMS)
def test_of_rows_of_one_image_only_the_own_pairs_count(form: str) -> None:
    # Three captions of one image alone in the batch: no row is held against another one.
    together, batch = inputs(3), batch_of([5, 5, 5])
    batch["has_negative"] = torch.tensor([[True, False]] * 3)
    apart = [loss_of(only(torch.tensor([row]), together), only(torch.tensor([row]), batch), FORMS[form])[0]
             for row in range(3)]  # fmt: skip
    loss, _ = loss_of(together, batch, FORMS[form])
    torch.testing.assert_close(loss, sum(apart) / 3)
    of_three_images, _ = loss_of(together, batch | {"image_digest": torch.tensor([5, 6, 7])}, FORMS[form])
    assert of_three_images > loss


@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_neither_loss_nor_gradients_and_gets_none(form: str) -> None:
    valid = torch.tensor([True, False, True, True, False, True])
    batch = batch_of([1, 2, 3, 3, 1, 4], valid.tolist(), [True, True, False, True, True, True])
    features = inputs(6)
    without = with_gradients(only(valid, features))
    loss, metrics = loss_of(features, batch, FORMS[form])
    expected, expected_metrics = loss_of(without, only(valid, batch), FORMS[form])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics, expected_metrics)
    found, wanted = gradients(loss, features), gradients(expected, without)
    for name in FEATURES:
        torch.testing.assert_close(found[name][valid], wanted[name])
        assert not found[name][~valid].any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 4])
def test_without_a_valid_row_loss_and_gradients_are_0(form: str, rows: int) -> None:
    features = inputs(rows, scale=100.0)
    loss, metrics = loss_of(features, batch_of(list(range(rows)), [False] * rows), FORMS[form])
    assert loss == metrics["loss"] == 0
    assert all((gradient == 0).all() for gradient in gradients(loss, features).values())
    assert all(value.isfinite() for value in metrics.values())


def test_negatives_as_texts_of_a_batch_without_any_are_plain_infonce() -> None:
    features, batch = inputs(4), batch_of([1, 2, 3, 4], has_negative=[False] * 4)
    with_columns = loss_of(features, batch, FORMS["negatives as texts"])[0]
    plain = LossConfig(negatives="none", hinge_weight=0.0)
    del features["negative_features"], batch["has_negative"]
    bare = loss_of(features, batch, FORMS["negatives as texts"])[0]
    torch.testing.assert_close(with_columns, loss_of(features, batch, plain)[0])
    torch.testing.assert_close(bare, with_columns)


def test_equal_captions_share_the_gradient_of_the_hardest() -> None:
    features = inputs(3)
    with torch.no_grad():
        features["text_features"][2] = features["text_features"][1]
    config = LossConfig(contrastive="max_margin", contrastive_margin=2.0, hinge_weight=0.0)
    weighed = with_gradients(features)
    loss, _ = loss_of(weighed, batch_of([1, 2, 3]), config)
    exchanged = with_gradients(only(torch.tensor([0, 2, 1]), features))
    other, _ = loss_of(exchanged, batch_of([1, 3, 2]), config)
    found = gradients(loss, weighed)["text_features"]
    torch.testing.assert_close(found, gradients(other, exchanged)["text_features"][[0, 2, 1]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_gradients_are_finite_where_logits_are_extreme(form: str, scale: float) -> None:
    features = inputs(4, scale=scale, bias=-100.0)
    with torch.no_grad():  # a pair as far apart as can be, and one that coincides
        features["text_features"][0] = -features["image_features"][0]
        features["text_features"][1] = features["image_features"][1]
    loss, _ = loss_of(features, batch_of([1, 2, 3, 1]), FORMS[form])
    assert all(gradient.isfinite().all() for gradient in gradients(loss, features).values())


# Several ranks


def encoder() -> torch.nn.Module:
    """Return a model whose gradients are compared: a projection of each feature, a scale and a bias."""
    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({name: torch.nn.Linear(DIM, DIM) for name in FEATURES})
    layers.register_parameter("log_scale", torch.nn.Parameter(torch.tensor(2.5)))
    layers.register_parameter("bias", torch.nn.Parameter(torch.tensor(-5.0)))
    return layers


def encoded(model: torch.nn.Module, rows: slice) -> Tensors:
    given = features_of(8, seed=1)
    features = {name: F.normalize(model[name](given[name].detach()[rows]), dim=1) for name in FEATURES}
    return features | {"logit_scale": model.log_scale.exp(), "logit_bias": model.bias * 1.0}


def averaged(model: torch.nn.Module) -> Tensors:
    """Return the gradients averaged over the ranks, as DDP has them."""
    found = {}
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        if dist.is_initialized():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
        found[f"gradient of {name}"] = gradient
    return found


def trained_on(batch: Tensors, rows: slice, config: LossConfig) -> Tensors:
    """Return the metrics of some rows of the global batch, and the gradients."""
    model = encoder()
    part = {name: column[rows] for name, column in batch.items()}
    loss, metrics = loss_of(encoded(model, rows), part, config)
    loss.backward()
    return metrics | averaged(model)


def with_open_clip(rows: slice, rank: int, world_size: int) -> Tensors:
    model = encoder()
    features = encoded(model, rows)
    del features["negative_features"]
    SigLipLoss(rank=rank, world_size=world_size)(**features).backward()
    return averaged(model)


def kept_for_backward(rank: int) -> int:
    """Return the elements of the largest tensor that a sigmoid step of 32 rows a rank keeps to go backward."""
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    features, batch = inputs(32, seed=rank), batch_of(list(range(32 * rank, 32 * (rank + 1))))
    del features["negative_features"]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(features, batch, LossConfig(contrastive="sigmoid", hinge_weight=0.0))
    return max(kept)


def on_a_rank(rank: int, world_size: int) -> dict[str, Any]:
    count = 8 // world_size
    rows = slice(rank * count, (rank + 1) * count)
    return {
        "ours": {
            form: {case: trained_on(batch, rows, config) for case, batch in CASES.items()}
            for form, config in FORMS.items()
        },
        "open_clip": with_open_clip(rows, rank, world_size),
        "kept": kept_for_backward(rank),
    }


@pytest.fixture(scope="module", params=[2, 4], ids=["two ranks", "four ranks"])
def of_ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    return ranks.run(on_a_rank, request.param, tmp_path_factory.mktemp("contrastive"))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_ranks_with_parts_have_the_loss_and_gradients_of_one_with_the_whole(
    of_ranks: list[dict[str, Any]], form: str, case: str
) -> None:
    whole = trained_on(CASES[case], slice(0, 8), FORMS[form])
    assert bool(whole["gradient of image_features.weight"].any()) == (case != "none valid")
    for of_rank in of_ranks:
        torch.testing.assert_close(of_rank["ours"][form][case], whole, rtol=1e-4, atol=1e-5)


def test_ranks_have_the_gradients_of_open_clips_ring(of_ranks: list[dict[str, Any]]) -> None:
    whole = trained_on(CASES["all valid"], slice(0, 8), LossConfig(contrastive="sigmoid", hinge_weight=0.0))
    for of_rank in of_ranks:
        expected = of_rank["open_clip"]
        assert expected["gradient of text_features.weight"].any()
        for name, gradient in expected.items():
            torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-5)


def test_the_sigmoid_keeps_features_to_go_backward_and_no_block_of_logits(
    of_ranks: list[dict[str, Any]],
) -> None:
    assert [of_rank["kept"] for of_rank in of_ranks] == [32 * DIM] * len(of_ranks)
