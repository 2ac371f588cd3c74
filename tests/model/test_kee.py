"""The options of the knowledge-enhanced encoder: what each changes, and files of weights with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sclip.config import KEEConfig, ModelConfig
from sclip.model import ModelError, StructureCLIP, Tokenizer, build_model
from sclip.model.export import export
from sclip.model.kee import negatives_unseen
from sclip.model.tokenizer import PADDING
from support.small_model import (
    CAPTIONS,
    NAME,
    Triples,
    pictures,
    small_model,
    text_ids,
    triple_ids,
)

WORDS = "kee.token_embedding.weight"


def config_with(**kee: Any) -> ModelConfig:
    return ModelConfig(name=NAME, kee=KEEConfig(**({"layers": 1, "heads": 4} | kee)))


def model_with(**kee: Any) -> StructureCLIP:
    """Return a model in training mode. Tensors of one name are equal in all these models."""
    return small_model(config=config_with(**kee)).train()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(config_with())


@pytest.mark.parametrize("form", ["transe", "sum", "concatenation"])
@torch.no_grad()
def test_the_embedding_of_a_triple_has_the_configured_form(form: Any) -> None:
    model = model_with(form=form)
    assert model.kee is not None
    table = model.token_embedding.weight
    ids = torch.randint(0, 40000, (2, 6, 3, 4), dtype=torch.int32)
    ids[:, :, 0, 1:], ids[:, 1:, 1, 2:] = PADDING, PADDING
    phrases = [
        [table[[t for t in phrase if t != PADDING]].mean(0) for phrase in triple]
        for triple in ids.flatten(0, 1).tolist()
    ]
    head, relation, tail = (
        torch.stack([torch.stack(triple) for triple in phrases]).unflatten(0, (2, 6)).unbind(2)
    )
    seen: list[Tensor] = []
    model.kee.ln_pre.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model.kee(ids, table)
    if form == "concatenation":
        assert model.kee.join is not None
        expected = torch.cat([head, relation, tail], dim=-1) @ model.kee.join.weight.T
    else:
        expected = head + relation + (tail if form == "sum" else -tail)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


def test_with_on_negatives_off_negatives_have_clips_feature_in_training_and_the_sum_afterwards(
    tokenizer: Tokenizer,
) -> None:
    model = model_with(on_negatives=False)
    text, triples = text_ids(tokenizer), triple_ids(tokenizer)
    negative, exchanged = text_ids(tokenizer, CAPTIONS[::-1]), triples.flip(2)
    batch = {"image": pictures(4), "text": text, "triples": triples}
    batch |= {"negative_text": negative[:, None], "negative_triples": exchanged[:, None]}
    trained = model(batch)
    torch.testing.assert_close(trained["negative_features"][:, 0], model.encode_text(negative))
    torch.testing.assert_close(trained["text_features"], model.encode_text(text, triples))
    negatives = trained["negative_features"]
    (negatives * torch.randn(negatives.shape)).sum().backward()
    assert model.kee is not None
    assert not any(p.grad.any() for p in model.kee.parameters() if p.grad is not None)
    evaluated = model.eval()(batch)
    torch.testing.assert_close(evaluated["negative_features"][:, 0], model.encode_text(negative, exchanged))
    assert not torch.allclose(evaluated["negative_features"], trained["negative_features"], atol=1e-3)


def test_negatives_are_unseen_if_cutting_leaves_them_the_triples_of_the_caption() -> None:
    tokenizer = Tokenizer(config_with(triples=2, phrase_tokens=2))
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


def test_an_own_word_table_starts_as_a_copy_of_the_text_towers_and_trains_separately(
    tokenizer: Tokenizer,
) -> None:
    model = model_with(own_embeddings=True)
    assert model.kee is not None
    assert model.kee.token_embedding is not None
    own, shared = model.kee.token_embedding.weight, model.token_embedding.weight
    assert torch.equal(own, shared)
    assert own.data_ptr() != shared.data_ptr()
    triples = triple_ids(tokenizer, [[("dog", "on", "sofa")]])
    features = model.encode_text(text_ids(tokenizer, ["a bird"]), triples)
    (features * torch.randn(features.shape)).sum().backward()
    assert own.grad is not None
    assert shared.grad is not None
    trained, text_trained = (
        table.any(dim=1).nonzero().flatten().tolist() for table in (own.grad, shared.grad)
    )
    assert trained == sorted(triples[triples >= 0].tolist())
    assert not set(trained) & set(text_trained)


def test_a_file_with_other_encoder_tensors_is_refused_and_its_words_fill_an_own_table(
    tmp_path: Path,
) -> None:
    for stored, changes, name in (
        ({"own_embeddings": True}, {}, WORDS),
        ({}, {"form": "concatenation"}, "kee.join.weight"),
        ({}, {"layers": 2}, r"model\.kee=KEEConfig\(.*kee\.layers\.1\."),
    ):
        file = export(model_with(**stored), tmp_path) / "model.safetensors"
        with pytest.raises(ModelError, match=name):
            build_model(ModelConfig(name=NAME, pretrained=str(file), kee=config_with(**changes).kee))
    kee = config_with(own_embeddings=True).kee
    state = build_model(ModelConfig(name=NAME, pretrained=str(file), kee=kee)).state_dict()
    tensors = load_file(file)
    assert torch.equal(state[WORDS], tensors["clip.token_embedding.weight"])
    assert all(torch.equal(state[n], t) for n, t in tensors.items() if n.startswith("kee."))
