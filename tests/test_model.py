"""Tokens, the fusion of CLIP's and the encoder's text feature, and what can and cannot be loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from sclip.config import KEEConfig, ModelConfig
from sclip.model import (
    ModelError,
    StructureCLIP,
    Tokenizer,
    architecture,
    build_model,
    check_model,
    export,
    image_size,
    load_exported,
)

NAME = "scenes-convnext"
SMALL = ModelConfig(name=NAME, kee=KEEConfig(layers=1, heads=4))

Triples = Sequence[tuple[str, str, str]]

CAPTIONS = [
    "a brown dog lies on a sofa",
    "an astronaut rides a horse",
    "a red square left of a blue circle",
    "a cup of tea on a wooden table",
]
TRIPLES: list[Triples] = [
    [("dog", "lie on", "sofa"), ("brown", "is", "dog")],
    [("astronaut", "ride", "horse")],
    [("red", "is", "square"), ("blue", "is", "circle"), ("square", "left of", "circle")],
    [("cup of tea", "on", "table"), ("wooden", "is", "table")],
]


@pytest.fixture(scope="module")
def model() -> StructureCLIP:
    return small_model()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(NAME, SMALL.kee)


def small_model(seed: int = 0, config: ModelConfig = SMALL) -> StructureCLIP:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return build_model(config)


def text_ids(tokenizer: Tokenizer, captions: Sequence[str] = CAPTIONS) -> Tensor:
    return torch.from_numpy(tokenizer.text(captions))


def triple_ids(tokenizer: Tokenizer, triples: Sequence[Triples] = TRIPLES) -> Tensor:
    return torch.from_numpy(tokenizer.triples(triples))


def pictures(rows: int, model_name: str = NAME) -> Tensor:
    side = image_size(model_name)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=generator)


def assert_same_weights(model: StructureCLIP, expected: StructureCLIP, prefix: str = "") -> None:
    state = {name: tensor for name, tensor in expected.state_dict().items() if name.startswith(prefix)}
    assert state
    for name, tensor in state.items():
        assert torch.equal(model.state_dict()[name], tensor), name


# The text feature


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_a_caption_without_triples_has_the_feature_of_clip_exactly(
    tokenizer: Tokenizer, training: bool
) -> None:
    model = small_model().train(training)
    some = [TRIPLES[0], [], TRIPLES[2], [("", "", "")]]
    clip = model.encode_text(text_ids(tokenizer))
    fused = model.encode_text(text_ids(tokenizer), triple_ids(tokenizer, some))
    assert torch.equal(fused[[1, 3]], clip[[1, 3]])
    assert not torch.isclose(fused[[0, 2]], clip[[0, 2]]).all(dim=1).any()
    nothing = model.encode_text(text_ids(tokenizer), triple_ids(tokenizer, [[]] * 4))
    assert torch.equal(nothing, clip)


@pytest.mark.parametrize("triples", [[[], TRIPLES[1], [], []], [[]] * 4])
def test_captions_without_triples_give_finite_gradients(
    tokenizer: Tokenizer, triples: Sequence[Triples]
) -> None:
    model = small_model().train()
    features = model.encode_text(text_ids(tokenizer), triple_ids(tokenizer, triples))
    (features * torch.randn(features.shape)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert any(name.startswith("kee.") for name in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert any(gradient.any() for name, gradient in gradients.items() if name.startswith("clip."))
    of_kee = [gradient.any() for name, gradient in gradients.items() if name.startswith("kee.")]
    assert any(of_kee) == any(triples)


def test_training_and_evaluation_mode_give_the_same_features(tokenizer: Tokenizer) -> None:
    model = small_model()
    text, triples = text_ids(tokenizer), triple_ids(tokenizer, [*TRIPLES[:3], []])
    trained = model.train().encode_text(text, triples)
    with torch.no_grad():
        evaluated = model.eval().encode_text(text, triples)
    torch.testing.assert_close(trained, evaluated)


@torch.no_grad()
def test_the_order_of_the_triples_changes_nothing(model: StructureCLIP, tokenizer: Tokenizer) -> None:
    reverse = [list(reversed(of_caption)) for of_caption in TRIPLES]
    torch.testing.assert_close(
        model.encode_text(text_ids(tokenizer), triple_ids(tokenizer, reverse)),
        model.encode_text(text_ids(tokenizer), triple_ids(tokenizer)),
    )


@torch.no_grad()
def test_masked_triples_change_nothing_wherever_and_however_many(
    model: StructureCLIP, tokenizer: Tokenizer
) -> None:
    triples = triple_ids(tokenizer)
    expected = model.encode_text(text_ids(tokenizer), triples)
    fewest = triples[:, :3]
    assert (triples[:, 3:] == -1).all()
    more = F.pad(triples, (0, 0, 0, 0, 0, 5), value=-1)
    first = F.pad(fewest, (0, 0, 0, 0, 2, 0), value=-1)
    between = F.pad(fewest.repeat_interleave(2, dim=1), (0, 0, 0, 0, 1, 0), value=-1)
    between[:, ::2] = -1
    longer_phrases = F.pad(triples, (0, 4), value=-1)
    for masked in (fewest, more, first, between, longer_phrases):
        torch.testing.assert_close(model.encode_text(text_ids(tokenizer), masked), expected)


@torch.no_grad()
def test_exchanging_head_and_tail_changes_the_feature(model: StructureCLIP, tokenizer: Tokenizer) -> None:
    exchanged = [[(tail, relation, head) for head, relation, tail in of_caption] for of_caption in TRIPLES]
    one = model.encode_text(text_ids(tokenizer), triple_ids(tokenizer))
    other = model.encode_text(text_ids(tokenizer), triple_ids(tokenizer, exchanged))
    assert ((one - other).norm(dim=1) > 0.02).all()


@pytest.mark.parametrize("weight", [0.05, 0.2, 0.8])
@torch.no_grad()
def test_text_features_stay_within_the_angle_that_lambda_allows(tokenizer: Tokenizer, weight: float) -> None:
    model = small_model(config=ModelConfig(name=NAME, kee=KEEConfig(layers=1, heads=4, weight=weight)))
    text, triples = text_ids(tokenizer), triple_ids(tokenizer)
    cosines = (model.encode_text(text) * model.encode_text(text, triples)).sum(dim=1)
    assert cosines.min() >= math.sqrt(1 - weight**2) - 1e-6
    assert cosines.max() < 1 - weight**2 / 100


@torch.no_grad()
def test_the_fusion_is_the_unit_sum_of_unit_features(model: StructureCLIP, tokenizer: Tokenizer) -> None:
    text, triples = text_ids(tokenizer), triple_ids(tokenizer)
    assert model.kee is not None
    knowledge, _ = model.kee(model.token_embedding(triples.clamp(min=0)), triples != -1)
    caption = model.clip.encode_text(text).double()
    summed = caption / caption.norm(dim=1, keepdim=True)
    summed += 0.2 * knowledge.double() / knowledge.double().norm(dim=1, keepdim=True)
    expected = (summed / summed.norm(dim=1, keepdim=True)).float()
    torch.testing.assert_close(model.encode_text(text, triples), expected)


@torch.no_grad()
def test_a_phrase_is_the_mean_of_its_words(model: StructureCLIP, tokenizer: Tokenizer) -> None:
    # A word said twice is a longer phrase with the same mean.
    once = triple_ids(tokenizer, [[("dog", "on", "sofa")]])
    twice = triple_ids(tokenizer, [[("dog dog", "on", "sofa sofa sofa")]])
    assert (once != twice).any()
    text = text_ids(tokenizer, CAPTIONS[:1])
    torch.testing.assert_close(model.encode_text(text, once), model.encode_text(text, twice))


@torch.no_grad()
def test_without_the_knowledge_encoder_triples_change_nothing(tokenizer: Tokenizer) -> None:
    plain = small_model(config=ModelConfig(name=NAME, kee=KEEConfig(enabled=False)))
    text, triples = text_ids(tokenizer), triple_ids(tokenizer)
    assert torch.equal(plain.encode_text(text, triples), plain.encode_text(text))
    assert not any(name.startswith("kee.") for name in plain.state_dict())


# The whole batch


@torch.no_grad()
def test_uint8_images_become_features_of_unit_length(model: StructureCLIP) -> None:
    features = model.encode_image(pictures(3))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    assert not torch.allclose(features[0], features[1], atol=1e-3)


@torch.no_grad()
def test_images_are_normalised_as_the_preprocessing_of_the_tower_says(model: StructureCLIP) -> None:
    images, preprocess = pictures(2), model.clip.visual.preprocess_cfg
    mean, std = (torch.tensor(preprocess[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    expected = F.normalize(model.clip.visual((images / 255 - mean) / std), dim=-1)
    torch.testing.assert_close(model.encode_image(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.int8])
def test_images_of_another_type_are_refused(model: StructureCLIP, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"image is {dtype}: pass uint8"):
        model.encode_image(pictures(1).to(dtype))


@torch.no_grad()
def test_negatives_and_captions_as_one_batch_have_the_features_they_have_alone(
    model: StructureCLIP, tokenizer: Tokenizer
) -> None:
    negatives = [
        "a brown sofa lies on a dog",
        "a horse rides an astronaut",
        "",
        "a table on a wooden cup of tea",
    ]
    exchanged: list[Triples] = [[("sofa", "lie on", "dog")], [("horse", "ride", "astronaut")], [], TRIPLES[3]]
    text, triples = text_ids(tokenizer), triple_ids(tokenizer)
    negative_text, negative_triples = text_ids(tokenizer, negatives), triple_ids(tokenizer, exchanged)
    batch = {"image": pictures(4), "text": text, "triples": triples}
    features = model(batch | {"negative_text": negative_text, "negative_triples": negative_triples})
    torch.testing.assert_close(features["image_features"], model.encode_image(pictures(4)))
    torch.testing.assert_close(features["text_features"], model.encode_text(text, triples))
    torch.testing.assert_close(
        features["negative_features"], model.encode_text(negative_text, negative_triples)
    )
    assert features["logit_scale"].item() == pytest.approx(1 / 0.07)
    without = model(batch)
    assert without.keys() == {"image_features", "text_features", "logit_scale"}
    torch.testing.assert_close(without["text_features"], features["text_features"])


# The tokenizer


def test_captions_are_padded_to_the_context_length_and_cut_with_their_end_kept(tokenizer: Tokenizer) -> None:
    length = tokenizer.context_length
    ids = tokenizer.text(["a dog", "", "dog " * 200])
    assert ids.shape == (3, length)
    assert ids.dtype == np.int32
    start, end = int(ids[1, 0]), int(ids[1, 1])
    assert [int((row != 0).sum()) for row in ids] == [4, 2, length]
    assert (ids[:, 0] == start).all()
    assert ids[0, 3] == ids[2, -1] == end
    assert len(set(ids[2, 1:-1].tolist())) == 1
    assert tokenizer.text([]).shape == (0, length)


def test_the_context_length_is_that_of_the_text_tower(model: StructureCLIP, tokenizer: Tokenizer) -> None:
    assert tokenizer.context_length == model.clip.context_length


def test_triples_are_padded_with_minus_one_and_cut_at_k_and_t() -> None:
    tokenizer = Tokenizer(NAME, KEEConfig(triples=2, phrase_tokens=3))
    phrases = ["dog", "on", "a very big old sofa"]
    triple = (phrases[0], phrases[1], phrases[2])
    ids = tokenizer.triples([[triple] * 5, [], [triple]])
    assert ids.shape == (3, 2, 3, 3)
    assert ids.dtype == np.int32
    words = [tokenizer.text([phrase])[0] for phrase in phrases]
    of_triple = [[words[0][1], -1, -1], [words[1][1], -1, -1], words[2][1:4].tolist()]
    assert ids[0].tolist() == [of_triple, of_triple]
    assert (ids[1] == -1).all()
    assert ids[2, 0].tolist() == of_triple
    assert (ids[2, 1] == -1).all()
    assert tokenizer.triples([]).shape == (0, 2, 3, 3)


# Files of weights


def test_an_export_is_loaded_back_as_it_was(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = small_model(1).eval()
    directory = export(model, tmp_path / "new" / "folder")
    assert {file.name for file in directory.iterdir()} == {"model.safetensors", "config.json"}
    loaded = load_exported(directory)
    assert loaded.config == model.config
    assert not loaded.training
    assert_same_weights(loaded, model)
    with torch.no_grad():
        text, triples = text_ids(tokenizer), triple_ids(tokenizer)
        assert torch.equal(loaded.encode_text(text, triples), model.encode_text(text, triples))
        assert torch.equal(loaded.encode_image(pictures(2)), model.encode_image(pictures(2)))


def test_an_export_does_not_say_where_its_weights_once_came_from(tmp_path: Path) -> None:
    first = export(small_model(), tmp_path / "first") / "model.safetensors"
    continued = build_model(ModelConfig(name=NAME, pretrained=str(first), kee=SMALL.kee))
    directory = export(continued, tmp_path / "second")
    first.unlink()
    assert json.loads((directory / "config.json").read_text())["pretrained"] == ""
    assert_same_weights(load_exported(directory), continued)


def test_a_file_of_ours_is_loaded_as_pretrained_weights(tmp_path: Path) -> None:
    model = small_model(1)
    with torch.no_grad():
        model.logit_scale.log.fill_(3.5)
    file = export(model, tmp_path) / "model.safetensors"
    assert_same_weights(small_model(2, ModelConfig(name=NAME, pretrained=str(file), kee=SMALL.kee)), model)


def test_a_file_of_ours_without_knowledge_encoder_leaves_it_at_its_random_start(tmp_path: Path) -> None:
    plain = small_model(1, ModelConfig(name=NAME, kee=KEEConfig(enabled=False)))
    file = export(plain, tmp_path) / "model.safetensors"
    loaded = small_model(2, ModelConfig(name=NAME, pretrained=str(file), kee=SMALL.kee))
    assert_same_weights(loaded, plain)
    assert loaded.kee is not None
    assert loaded.kee.projection.weight.std() > 0


def test_the_state_of_a_plain_open_clip_model_is_loaded_as_pretrained_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    clip = open_clip.create_model(NAME)
    with torch.no_grad():
        clip.logit_scale.fill_(3.5)
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    config = ModelConfig(name=NAME, pretrained=str(tmp_path / "clip.safetensors"), kee=SMALL.kee)
    model = small_model(2, config)
    state = model.clip.state_dict()
    assert state.keys() | {"logit_scale"} == clip.state_dict().keys()
    assert all(torch.equal(clip.state_dict()[name], tensor) for name, tensor in state.items())
    assert model.logit_scale.log.item() == 3.5


@torch.no_grad()
def test_open_clip_loads_the_clip_part_of_an_export(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = small_model(1).eval()
    tensors = load_file(export(model, tmp_path) / "model.safetensors")
    state = {name.removeprefix("clip."): t for name, t in tensors.items() if name.startswith("clip.")}
    clip = open_clip.create_model(NAME).eval()
    clip.load_state_dict(state, strict=True)
    text = text_ids(tokenizer)
    assert torch.equal(clip.encode_text(text, normalize=True), model.encode_text(text))
    assert torch.equal(clip.logit_scale.exp(), model.logit_scale())


def test_building_without_weights_asks_for_no_file() -> None:
    config = ModelConfig(name=NAME, pretrained="nowhere.safetensors", kee=SMALL.kee)
    assert build_model(config, load_weights=False).kee is not None


# What cannot be loaded or built


def refusal(config: ModelConfig) -> str:
    with pytest.raises(ModelError) as raised:
        build_model(config)
    return str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "nothing.safetensors")
    assert refusal(ModelConfig(name=NAME, pretrained=path)) == f"model.pretrained={path!r}: no such file"
    with pytest.raises(ModelError, match="no such file"):
        check_model(ModelConfig(name=NAME, pretrained=path))


@pytest.mark.parametrize("content", [b"", b"no weights " * 20, b"\x80\x02}q\x00.", None])
def test_a_file_that_is_no_safetensors_or_cut_off_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.safetensors"
    if content is None:
        save_file({"weight": torch.ones(100)}, path)
        content = path.read_bytes()[:-50]
    path.write_bytes(content)
    message = refusal(ModelConfig(name=NAME, pretrained=str(path), kee=SMALL.kee))
    assert message.startswith(f"model.pretrained={str(path)!r}: not a readable safetensors file")


@pytest.mark.parametrize("prefix", ["", "clip."])
def test_a_file_of_another_architecture_is_named_beside_the_one_asked_for(
    tmp_path: Path, prefix: str
) -> None:
    vision = CLIPVisionCfg(layers=1, width=64, patch_size=32, image_size=64)
    other = open_clip.CLIP(24, vision, CLIPTextCfg(context_length=9, vocab_size=99, width=64, layers=1))
    path = tmp_path / "other.safetensors"
    save_file({prefix + name: tensor for name, tensor in other.state_dict().items()}, path)
    message = refusal(ModelConfig(name=NAME, pretrained=str(path), kee=SMALL.kee))
    assert str(path) in message
    assert "does not fit" in message
    assert f"model.name={NAME!r}" in message


@pytest.mark.parametrize("prefix", ["", "clip."])
def test_tensors_of_another_shape_or_name_are_named(tmp_path: Path, prefix: str) -> None:
    state = open_clip.create_model(NAME).state_dict()
    path = tmp_path / "other.safetensors"
    for name, tensor in (("text_projection", torch.ones(2, 3)), ("visual.no_such.weight", torch.ones(2))):
        save_file({prefix + key: value for key, value in (state | {name: tensor}).items()}, path)
        message = refusal(ModelConfig(name=NAME, pretrained=str(path), kee=SMALL.kee))
        assert f"model.name={NAME!r}" in message
        assert name in message


def test_a_file_with_another_knowledge_encoder_is_refused_with_the_setting(tmp_path: Path) -> None:
    file = export(small_model(), tmp_path) / "model.safetensors"
    config = ModelConfig(name=NAME, pretrained=str(file), kee=KEEConfig(layers=2, heads=4))
    message = refusal(config)
    assert "kee.layers.1." in message
    assert "model.kee=KEEConfig(" in message


def test_an_unknown_tag_is_answered_with_the_tags_there_are() -> None:
    assert "tags: none" in refusal(ModelConfig(name=NAME, pretrained="openai", kee=SMALL.kee))
    message = refusal(ModelConfig(name="ViT-B-32", pretrained="openay"))
    assert "model.pretrained='openay'" in message
    assert "openai" in message


@pytest.mark.parametrize(("name", "nearest"), [("ViT-B-23", "ViT-B-32"), ("scenes-convnet", NAME)])
def test_an_unknown_architecture_is_answered_with_the_nearest_name(name: str, nearest: str) -> None:
    expected = f"model.name={name!r}: no such architecture; did you mean {nearest!r}?"
    assert refusal(ModelConfig(name=name)) == expected
    with pytest.raises(ModelError, match="no such architecture"):
        Tokenizer(name, KEEConfig())


def test_a_name_like_no_architecture_is_answered_with_where_to_look() -> None:
    assert "open_clip.list_models()" in refusal(ModelConfig(name="qqq"))


def test_heads_that_do_not_divide_the_width_are_refused_with_the_width(model: StructureCLIP) -> None:
    width = model.token_embedding.embedding_dim
    message = refusal(ModelConfig(name=NAME, kee=KEEConfig(heads=width + 1)))
    assert message.startswith(f"model.kee.heads={width + 1}: ")
    assert str(width) in message.partition(": ")[2]
    without = ModelConfig(name=NAME, kee=KEEConfig(enabled=False, heads=width + 1))
    assert build_model(without).kee is None


def test_a_tower_with_batch_statistics_is_refused() -> None:
    message = refusal(ModelConfig(name="RN50"))
    assert "BatchNorm" in message
    assert "choose a ViT or ConvNeXt" in message


def test_a_text_tower_without_clips_vocabulary_is_refused() -> None:
    assert "BPE vocabulary" in refusal(ModelConfig(name="ViT-B-16-SigLIP"))


def test_weights_trained_with_quickgelu_get_an_architecture_with_it() -> None:
    assert architecture(ModelConfig(name="ViT-B-32", pretrained="openai")) == "ViT-B-32-quickgelu"
    assert architecture(ModelConfig(name="ViT-B/32")) == "ViT-B-32"


def test_a_folder_that_is_no_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: not the config of an exported model"):
        load_exported(tmp_path)
    directory = export(small_model(), tmp_path / "model")
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors.*no such file"):
        load_exported(directory)
    for config in ("", "[]", '{"name": "ViT-B-32"}', '{"name": "ViT-B-32", "kee": {"depth": 1}}'):
        (directory / "config.json").write_text(config)
        with pytest.raises(ModelError, match="not the config of an exported model"):
            load_exported(directory)
