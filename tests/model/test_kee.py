"""The options of the knowledge-enhanced encoder: what each changes, what none may change, and files of weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sclip.config import KEEConfig, ModelConfig
from sclip.model import ModelError, StructureCLIP, Tokenizer, build_model
from sclip.model.export import export, load_exported
from sclip.model.kee import negatives_unseen
from sclip.model.tokenizer import PADDING
from support.small_model import (
    CAPTIONS,
    NAME,
    TRIPLES,
    Triples,
    assert_same_weights,
    pictures,
    small_model,
    text_ids,
    triple_ids,
)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"form": "sum"},
    {"form": "concatenation"},
    {"on_negatives": False},
    {"own_embeddings": True},
    {"own_embeddings": True, "form": "concatenation", "on_negatives": False},
]
WORDS = "kee.token_embedding.weight"


def config_with(**kee: Any) -> ModelConfig:
    return ModelConfig(name=NAME, kee=KEEConfig(**({"layers": 1, "heads": 4} | kee)))


def model_with(**kee: Any) -> StructureCLIP:
    """Return a model in training mode whose weights are those of every other with the same names."""
    return small_model(config=config_with(**kee)).train()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(NAME, config_with().kee)


def exchanged(triples: list[Triples] = TRIPLES) -> list[Triples]:
    return [[(tail, relation, head) for head, relation, tail in of_caption] for of_caption in triples]


def batch_of(tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return captions and their negatives, which exchange head and tail of every triple; the last has none."""
    triples, negatives = [*TRIPLES[:3], []], [*exchanged()[:3], []]
    return {
        "image": pictures(4),
        "text": text_ids(tokenizer),
        "triples": triple_ids(tokenizer, triples),
        "negative_text": text_ids(tokenizer, CAPTIONS[::-1])[:, None],
        "negative_triples": triple_ids(tokenizer, negatives)[:, None],
    }


# What each option changes


@pytest.mark.parametrize(
    ("kee", "parameters", "captions", "negatives"),
    [
        ({"form": "sum"}, set(), True, True),
        ({"form": "concatenation"}, {"kee.join.weight"}, True, True),
        ({"on_negatives": False}, set(), False, True),
        ({"own_embeddings": True}, {WORDS}, False, False),
        ({"weight": 0.4}, set(), True, True),
        ({"layers": 2}, None, True, True),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
@torch.no_grad()
def test_each_option_changes_its_own_part_of_the_model_at_the_start(
    tokenizer: Tokenizer, kee: dict[str, Any], parameters: set[str] | None, captions: bool, negatives: bool
) -> None:
    default, changed = model_with(), model_with(**kee)
    more = changed.state_dict().keys() - default.state_dict().keys()
    assert more == parameters if parameters is not None else all(n.startswith("kee.layers.1.") for n in more)
    assert default.state_dict().keys() <= changed.state_dict().keys()
    changed.load_state_dict(default.state_dict(), strict=False)
    batch = batch_of(tokenizer)
    before, after = default(batch), changed(batch)
    assert torch.equal(after["image_features"], before["image_features"])
    for name, differs in (("text_features", captions), ("negative_features", negatives)):
        moved = ((after[name] - before[name]).norm(dim=-1).flatten() > 1e-3).tolist()
        assert moved == [differs, differs, differs, False]


# The embedding of a triple


@pytest.mark.parametrize("form", ["transe", "sum", "concatenation"])
@torch.no_grad()
def test_the_embedding_of_a_triple_has_the_form_that_is_set(form: Any) -> None:
    model = model_with(form=form)
    assert model.kee is not None
    table = model.token_embedding.weight
    ids = torch.randint(0, 40000, (2, 6, 3, 4), dtype=torch.int32)
    ids[:, :, 0, 1:], ids[:, 1:, 1, 2:] = PADDING, PADDING
    phrases = [
        [table[[t for t in phrase if t != PADDING]].mean(0) for phrase in some]
        for some in ids.flatten(0, 1).tolist()
    ]
    head, relation, tail = torch.stack([torch.stack(some) for some in phrases]).unflatten(0, (2, 6)).unbind(2)
    seen: list[Tensor] = []
    model.kee.ln_pre.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model.kee(ids, table)
    if form == "concatenation":
        assert model.kee.join is not None
        weight = model.kee.join.weight
        expected = torch.cat([head, relation, tail], dim=-1) @ weight.T
    else:
        expected = head + relation + (tail if form == "sum" else -tail)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("form", "sees"), [("transe", True), ("concatenation", True), ("sum", False)])
@torch.no_grad()
def test_only_the_plain_sum_is_blind_to_an_exchange_of_head_and_tail(
    tokenizer: Tokenizer, form: str, sees: bool
) -> None:
    model, text = model_with(form=form), text_ids(tokenizer)
    one = model.encode_text(text, triple_ids(tokenizer))
    other = model.encode_text(text, triple_ids(tokenizer, exchanged()))
    assert ((one - other).norm(dim=1) > 0.02).tolist() == [sees] * 4
    assert sees or torch.allclose(one, other, atol=1e-6)


# The negative


def test_without_the_encoder_on_negatives_they_have_clips_feature_in_training_and_the_sum_after(
    tokenizer: Tokenizer,
) -> None:
    model, batch = model_with(on_negatives=False), batch_of(tokenizer)
    negative, triples = batch["negative_text"][:, 0], batch["negative_triples"][:, 0]
    trained = model(batch)
    torch.testing.assert_close(trained["negative_features"][:, 0], model.encode_text(negative))
    torch.testing.assert_close(trained["text_features"], model.encode_text(batch["text"], batch["triples"]))
    negatives = trained["negative_features"]
    (negatives * torch.randn(negatives.shape)).sum().backward()
    assert model.kee is not None
    assert not any(p.grad.any() for p in model.kee.parameters() if p.grad is not None)
    evaluated = model.eval()(batch)
    torch.testing.assert_close(evaluated["negative_features"][:, 0], model.encode_text(negative, triples))
    assert not torch.allclose(evaluated["negative_features"], trained["negative_features"], atol=1e-3)


def test_negatives_are_unseen_where_the_cut_leaves_the_triples_of_the_caption() -> None:
    tokenizer = Tokenizer(NAME, KEEConfig(triples=2, phrase_tokens=2))
    triples = [("dog", "on", "sofa"), ("cat", "under", "table"), ("cup", "on", "shelf")]
    first = [("sofa", "on", "dog"), *triples[1:]]
    third = [*triples[:2], ("shelf", "on", "cup")]
    long, longer = ("big old dog", "on", "sofa"), ("big old cat", "on", "sofa")
    cases: list[tuple[Triples, Triples, bool, bool]] = [
        (triples, first, True, False),
        (triples, third, True, True),
        ([long], [longer], True, True),
        ([], [], True, True),
        (triples, [], True, False),
        (triples, third, False, False),
        (triples, [triples[1], triples[0]], True, True),
        ([triples[0]] * 2, triples[:2], True, False),
        (triples[:1], [triples[0]] * 2, True, False),
    ]
    batch = {
        "triples": torch.from_numpy(tokenizer.triples([case[0] for case in cases])),
        "negative_triples": torch.from_numpy(tokenizer.triples([case[1] for case in cases]))[:, None],
        "has_negative": torch.tensor([[case[2]] for case in cases]),
    }
    assert negatives_unseen(batch).tolist() == [[case[3]] for case in cases]


# The start


@pytest.mark.parametrize("kee", OPTIONS, ids=str)
@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
@torch.no_grad()
def test_at_the_start_text_features_are_within_the_angle_of_lambda_and_clips_without_triples(
    tokenizer: Tokenizer, kee: dict[str, Any], weight: float
) -> None:
    model, text = model_with(weight=weight, **kee), text_ids(tokenizer)
    clip = model.encode_text(text)
    fused = model.encode_text(text, triple_ids(tokenizer, [*TRIPLES[:3], []]))
    assert torch.equal(fused[3], clip[3])
    cosines = (fused * clip).sum(dim=1)
    assert (cosines >= math.sqrt(1 - weight**2) - 1e-6).all()
    assert ((1 - cosines[:3]) > weight / 1000 - 1e-6).all()


class Answer(nn.Module):
    """In the encoder's place: gives the same knowledge features to whatever triples."""

    def __init__(self, knowledge: Tensor) -> None:
        super().__init__()
        self.knowledge = knowledge

    def forward(self, triples: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        return self.knowledge, torch.ones(len(triples), dtype=torch.bool)


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
@torch.no_grad()
def test_no_knowledge_feature_whatever_turns_clips_feature_by_more_than_lambda_allows(
    tokenizer: Tokenizer, weight: float
) -> None:
    """With x the cosine of c and k, cos(unit(c + lambda k), c) = (1 + lambda x) / sqrt(1 + 2 lambda x + lambda^2).

    Its derivative is 0 at x = -lambda alone, where it is sqrt(1 - lambda^2); at x = -1 and x = 1 it is 1. With
    lambda = 1 it falls to that bound, 0, as x goes to -1; at -1 itself the sum is 0 and has no direction.
    """
    model, text = model_with(weight=weight), text_ids(tokenizer, CAPTIONS[:1]).expand(41, -1)
    clip = model.encode_text(text)
    other = F.normalize(torch.randn(clip.shape), dim=1)
    across = F.normalize(other - (other * clip).sum(dim=1, keepdim=True) * clip, dim=1)
    x = torch.cat([torch.linspace(-0.9999, 1, 40), torch.tensor([-min(weight, 0.9999)])])[:, None]
    model.kee = Answer(3 * (x * clip + (1 - x**2).clamp(min=0).sqrt() * across))  # type: ignore[assignment]
    fused = model.encode_text(text, triple_ids(tokenizer, TRIPLES[:1] * 41))
    cosines, bound = (fused * clip).sum(dim=1), math.sqrt(1 - weight**2)
    assert (cosines >= bound - 1e-6).all()
    assert cosines[-1].item() == pytest.approx(bound, abs=0.01)


# Word tables and files


def test_an_own_word_table_starts_as_the_text_towers_and_is_trained_apart(tokenizer: Tokenizer) -> None:
    model = model_with(own_embeddings=True)
    assert model.kee is not None
    assert model.kee.token_embedding is not None
    own, shared = model.kee.token_embedding.weight, model.token_embedding.weight
    assert torch.equal(own, shared)
    assert own.data_ptr() != shared.data_ptr()
    features = model.encode_text(
        text_ids(tokenizer, ["a bird"]), triple_ids(tokenizer, [[("dog", "on", "sofa")]])
    )
    (features * torch.randn(features.shape)).sum().backward()
    assert own.grad is not None
    assert shared.grad is not None
    trained, of_triple = (
        own.grad.any(dim=1).nonzero().flatten(),
        triple_ids(tokenizer, [[("dog", "on", "sofa")]]),
    )
    assert trained.tolist() == sorted(of_triple[of_triple >= 0].tolist())
    assert not set(trained.tolist()) & set(shared.grad.any(dim=1).nonzero().flatten().tolist())


@pytest.mark.parametrize("kee", OPTIONS, ids=str)
@torch.no_grad()
def test_an_export_with_any_option_is_loaded_back_as_it_was(
    tmp_path: Path, tokenizer: Tokenizer, kee: dict[str, Any]
) -> None:
    model = model_with(**kee).eval()
    if model.kee is not None and model.kee.token_embedding is not None:
        model.kee.token_embedding.weight.mul_(1.5)
    directory = export(model, tmp_path / "new" / "folder")
    assert {file.name for file in directory.iterdir()} == {"model.safetensors", "config.json"}
    loaded = load_exported(directory)
    assert loaded.config == model.config
    assert not loaded.training
    assert_same_weights(loaded, model)
    text, triples = text_ids(tokenizer), triple_ids(tokenizer)
    assert torch.equal(loaded.encode_text(text, triples), model.encode_text(text, triples))
    assert torch.equal(loaded.encode_image(pictures(2)), model.encode_image(pictures(2)))


@pytest.mark.parametrize("enabled", [True, False])
def test_an_own_word_table_starts_from_that_of_a_file_without_one(tmp_path: Path, enabled: bool) -> None:
    file = export(small_model(1, config_with(enabled=enabled)), tmp_path) / "model.safetensors"
    torch.manual_seed(2)
    model = build_model(
        ModelConfig(name=NAME, pretrained=str(file), kee=config_with(own_embeddings=True).kee)
    )
    stored = load_file(file)
    assert torch.equal(model.state_dict()[WORDS], stored["clip.token_embedding.weight"])
    assert all(torch.equal(model.state_dict()[n], t) for n, t in stored.items() if n.startswith("kee."))


@pytest.mark.parametrize(
    ("stored", "asked", "name"),
    [
        ({"own_embeddings": True}, {}, WORDS),
        ({"form": "concatenation"}, {}, "kee.join.weight"),
        ({}, {"form": "concatenation"}, "kee.join.weight"),
        ({}, {"layers": 2}, r"model\.kee=KEEConfig\(.*kee\.layers\.1\."),
    ],
)
def test_a_file_with_other_tensors_of_the_encoder_is_refused_by_their_names(
    tmp_path: Path, stored: dict[str, Any], asked: dict[str, Any], name: str
) -> None:
    file = export(model_with(**stored), tmp_path) / "model.safetensors"
    with pytest.raises(ModelError, match=name):
        build_model(ModelConfig(name=NAME, pretrained=str(file), kee=config_with(**asked).kee))
