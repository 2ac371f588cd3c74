"""The fusion of CLIP's and the encoder's text feature, and the features of a whole batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sclip.config import KEEConfig, ModelConfig
from sclip.model import StructureCLIP, Tokenizer
from support.small_model import NAME, SMALL, TRIPLES, Triples, pictures, small_model, text_ids, triple_ids


@pytest.fixture(scope="module")
def model() -> StructureCLIP:
    return small_model()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(SMALL)


@torch.no_grad()
def test_a_caption_without_triples_has_exactly_the_feature_of_clip(tokenizer: Tokenizer) -> None:
    triples = [TRIPLES[0], [], TRIPLES[2], [("", "", "")]]
    fused_by_mode = []
    for training in (True, False):
        model = small_model().train(training)
        clip = model.encode_text(text_ids(tokenizer))
        fused = model.encode_text(text_ids(tokenizer), triple_ids(tokenizer, triples))
        assert torch.equal(fused[[1, 3]], clip[[1, 3]])
        assert not torch.isclose(fused[[0, 2]], clip[[0, 2]]).all(dim=1).any()
        assert torch.equal(model.encode_text(text_ids(tokenizer), triple_ids(tokenizer, [[]] * 4)), clip)
        fused_by_mode.append(fused)
    torch.testing.assert_close(*fused_by_mode)


def test_captions_without_triples_give_finite_gradients(tokenizer: Tokenizer) -> None:
    for triples in ([[], TRIPLES[1], [], []], [[]] * 4):
        model = small_model().train()
        features = model.encode_text(text_ids(tokenizer), triple_ids(tokenizer, triples))
        (features * torch.randn(features.shape)).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        assert any(gradient.any() for name, gradient in gradients.items() if name.startswith("clip."))
        kee_gradients = [gradient.any() for name, gradient in gradients.items() if name.startswith("kee.")]
        assert kee_gradients
        assert any(kee_gradients) == any(triples)


@torch.no_grad()
def test_masked_triples_and_the_order_of_triples_change_no_feature(
    model: StructureCLIP, tokenizer: Tokenizer
) -> None:
    triples = triple_ids(tokenizer)
    expected = model.encode_text(text_ids(tokenizer), triples)
    fewest = triples[:, :3]
    assert (triples[:, 3:] == -1).all()
    more = F.pad(triples, (0, 0, 0, 0, 0, 5), value=-1)
    first = F.pad(fewest.flip(1), (0, 0, 0, 0, 2, 0), value=-1)
    between = F.pad(fewest.repeat_interleave(2, dim=1), (0, 0, 0, 0, 1, 0), value=-1)
    between[:, ::2] = -1
    longer_phrases = F.pad(triples, (0, 4), value=-1)
    for masked in (fewest, more, first, between, longer_phrases):
        torch.testing.assert_close(model.encode_text(text_ids(tokenizer), masked), expected)


@torch.no_grad()
def test_the_fusion_is_the_unit_sum_of_unit_features(tokenizer: Tokenizer) -> None:
    text, triples = text_ids(tokenizer), triple_ids(tokenizer)
    for weight in (0.0, 0.2, 1.0):
        model = small_model(config=ModelConfig(name=NAME, kee=KEEConfig(layers=1, heads=4, weight=weight)))
        assert model.kee is not None
        knowledge, _ = model.kee(triples, model.token_embedding.weight)
        caption = model.clip.encode_text(text).double()
        summed = caption / caption.norm(dim=1, keepdim=True)
        summed += weight * knowledge.double() / knowledge.double().norm(dim=1, keepdim=True)
        expected = (summed / summed.norm(dim=1, keepdim=True)).float()
        torch.testing.assert_close(model.encode_text(text, triples), expected)
    plain = small_model(config=ModelConfig(name=NAME, kee=KEEConfig(enabled=False)))
    assert torch.equal(plain.encode_text(text, triples), plain.encode_text(text))


@torch.no_grad()
def test_uint8_images_are_normalised_for_the_tower_and_have_features_of_unit_length(
    model: StructureCLIP,
) -> None:
    images, preprocess = pictures(2), model.clip.visual.preprocess_cfg
    mean, std = (torch.tensor(preprocess[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    expected = F.normalize(model.clip.visual((images / 255 - mean) / std), dim=-1)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    torch.testing.assert_close(model.encode_image(images), expected, rtol=1e-4, atol=1e-5)
    for dtype in (torch.float32, torch.int8):
        with pytest.raises(TypeError, match=f"image is {dtype}: pass uint8"):
            model.encode_image(images.to(dtype))


@torch.no_grad()
def test_negatives_and_captions_have_the_same_features_in_one_batch_as_alone(
    model: StructureCLIP, tokenizer: Tokenizer
) -> None:
    negatives = ["a brown sofa lies on a dog", "a horse rides an astronaut", "", "a table on a wooden cup"]
    exchanged: list[Triples] = [[("sofa", "lie on", "dog")], [("horse", "ride", "astronaut")], [], TRIPLES[3]]
    text, triples = text_ids(tokenizer), triple_ids(tokenizer)
    negative_text, negative_triples = text_ids(tokenizer, negatives), triple_ids(tokenizer, exchanged)
    second_triples = triple_ids(tokenizer, [[], *exchanged[1:]])
    batch = {"image": pictures(4), "text": text, "triples": triples}
    features = model(
        batch
        | {
            "negative_text": negative_text.view(4, 1, -1).repeat(1, 2, 1),
            "negative_triples": torch.stack([negative_triples, second_triples], dim=1),
        }
    )
    torch.testing.assert_close(features["image_features"], model.encode_image(pictures(4)))
    torch.testing.assert_close(features["text_features"], model.encode_text(text, triples))
    first, second = features["negative_features"].unbind(1)
    torch.testing.assert_close(first, model.encode_text(negative_text, negative_triples))
    torch.testing.assert_close(second, model.encode_text(negative_text, second_triples))
    assert features["logit_scale"].item() == pytest.approx(1 / 0.07)
    without = model(batch)
    assert without.keys() == {"image_features", "text_features", "logit_scale"}
    torch.testing.assert_close(without["text_features"], features["text_features"])
