"""Files of weights: what is exported loads back, here and in open_clip; what does not fit is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file, save_file

from sclip.config import KEEConfig, ModelConfig
from sclip.model import (
    ModelError,
    StructureCLIP,
    Tokenizer,
    architecture,
    build_model,
    check_model,
    check_trainable,
)
from sclip.model.export import export, load_exported
from support.small_model import (
    NAME,
    SMALL,
    assert_same_weights,
    small_model,
    text_ids,
)
from support.small_vit import refusal


@pytest.fixture(scope="module")
def model() -> StructureCLIP:
    return small_model()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(NAME, SMALL.kee)


# Files of weights


def test_a_file_of_ours_is_loaded_as_pretrained_weights_and_no_export_says_where_they_came_from(
    tmp_path: Path,
) -> None:
    model = small_model(1)
    with torch.no_grad():
        model.logit_scale.log.fill_(3.5)
    first = export(model, tmp_path / "first") / "model.safetensors"
    continued = small_model(2, ModelConfig(name=NAME, pretrained=str(first), kee=SMALL.kee))
    assert_same_weights(continued, model)
    directory = export(continued, tmp_path / "second")
    first.unlink()
    assert json.loads((directory / "config.json").read_text())["pretrained"] == ""
    assert_same_weights(load_exported(directory), continued)


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
def test_a_logit_bias_is_written_and_read_again_and_open_clip_finds_its_own(tmp_path: Path) -> None:
    with_bias = dataclasses.replace(SMALL, logit_bias=-10.0)
    model = small_model(1, with_bias)
    assert model.logit_bias is not None
    assert model.logit_bias() == -10.0
    model.logit_bias.value.fill_(-8.5)
    loaded = load_exported(export(model, tmp_path))
    assert_same_weights(loaded, model)
    tensors = load_file(tmp_path / "model.safetensors")
    state = {name.removeprefix("clip."): t for name, t in tensors.items() if name.startswith("clip.")}
    clip = open_clip.create_model(NAME, init_logit_bias=0.0)
    clip.load_state_dict(state, strict=True)
    assert clip.logit_bias == -8.5


def test_a_file_of_ours_without_logit_bias_leaves_it_at_its_start(tmp_path: Path) -> None:
    file = str(export(small_model(1), tmp_path) / "model.safetensors")
    loaded = small_model(2, dataclasses.replace(SMALL, pretrained=file, logit_bias=-4.0))
    assert loaded.logit_bias is not None
    assert loaded.logit_bias() == -4.0


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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "nothing.safetensors")
    assert refusal(ModelConfig(name=NAME, pretrained=path)) == f"model.pretrained={path!r}: no such file"
    with pytest.raises(ModelError, match="no such file"):
        check_model(ModelConfig(name=NAME, pretrained=path))


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


@pytest.mark.parametrize(
    "name", ["RN50", "RN50-quickgelu", "RN101", "MobileCLIP-B", "MobileCLIP2-B", "MobileCLIP2-S0"]
)
def test_a_tower_with_batch_statistics_is_refused_for_training_and_not_else(name: str) -> None:
    check_model(ModelConfig(name=name))
    with pytest.raises(
        ModelError, match=rf"model\.name='{name}': has BatchNorm \(visual\..*choose a ViT"
    ) as raised:
        check_trainable(ModelConfig(name=name))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [NAME, "ViT-B-32", "convnext_tiny", "EVA02-B-16", "ViTamin-S"])
def test_towers_without_batch_statistics_pass_and_no_weight_is_made_or_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        open_clip.factory, "load_checkpoint", lambda *_, **__: pytest.fail("weights are read")
    )
    made = []
    create = open_clip.create_model

    def watched(*args: Any, **more: Any) -> Any:
        made.append(create(*args, **more))
        return made[-1]

    monkeypatch.setattr(open_clip, "create_model", watched)
    tag = "openai" if name == "ViT-B-32" else ""
    check_trainable(ModelConfig(name=name, pretrained=tag, kee=KEEConfig(enabled=False)))
    assert {tensor.device.type for clip in made for tensor in clip.state_dict().values()} == {"meta"}


def test_a_tower_that_timm_does_not_have_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise RuntimeError("Unknown model (fastvit_mci9)\n")

    monkeypatch.setattr(open_clip, "create_model", unknown)
    with pytest.raises(ModelError) as raised:
        check_trainable(ModelConfig(name="MobileCLIP2-S3"))
    assert (
        str(raised.value) == "model.name='MobileCLIP2-S3': cannot be built here: Unknown model (fastvit_mci9)"
    )


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
    with pytest.raises(ModelError, match=r"a folder without model\.safetensors"):
        load_exported(directory)
    for config in ("", "[]", '{"name": "ViT-B-32"}', '{"name": "ViT-B-32", "kee": {"depth": 1}}'):
        (directory / "config.json").write_text(config)
        with pytest.raises(ModelError, match="not the config of an exported model"):
            load_exported(directory)
