"""Files of weights: what is exported loads back, here and in open_clip; what cannot be built is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from sclip.config import KEEConfig, ModelConfig
from sclip.model import ModelError, Tokenizer, architecture, build_model, check_model, check_trainable
from sclip.model.export import export, load_exported
from support.small_model import NAME, SMALL, assert_same_weights, small_model, text_ids
from support.small_vit import refusal


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


def test_a_file_of_ours_without_knowledge_encoder_or_bias_leaves_them_at_their_start(tmp_path: Path) -> None:
    plain = small_model(1, ModelConfig(name=NAME, kee=KEEConfig(enabled=False)))
    file = str(export(plain, tmp_path) / "model.safetensors")
    loaded = small_model(2, dataclasses.replace(SMALL, pretrained=file, logit_bias=-4.0))
    assert_same_weights(loaded, plain)
    assert loaded.kee is not None
    assert loaded.kee.projection.weight.std() > 0
    assert loaded.logit_bias is not None
    assert loaded.logit_bias() == -4.0


@torch.no_grad()
def test_an_export_with_a_logit_bias_is_read_again_and_open_clip_loads_its_clip_part(tmp_path: Path) -> None:
    model = small_model(1, dataclasses.replace(SMALL, logit_bias=-10.0)).eval()
    assert model.logit_bias is not None
    model.logit_bias.value.fill_(-8.5)
    assert_same_weights(load_exported(export(model, tmp_path)), model)
    tensors = load_file(tmp_path / "model.safetensors")
    state = {name.removeprefix("clip."): t for name, t in tensors.items() if name.startswith("clip.")}
    clip = open_clip.create_model(NAME, init_logit_bias=0.0).eval()
    clip.load_state_dict(state, strict=True)
    text = text_ids(Tokenizer(NAME, SMALL.kee))
    assert torch.equal(clip.encode_text(text, normalize=True), model.encode_text(text))
    assert torch.equal(clip.logit_scale.exp(), model.logit_scale())
    assert clip.logit_bias == -8.5


def test_building_without_weights_asks_for_no_file() -> None:
    config = ModelConfig(name=NAME, pretrained="nowhere.safetensors", kee=SMALL.kee)
    assert build_model(config, load_weights=False).kee is not None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": NAME, "pretrained": "/no/a.pt"}, "model.pretrained='/no/a.pt': no such file"),
        ({"name": NAME, "pretrained": "openai"}, "tags: none"),
        ({"name": "ViT-B-32", "pretrained": "openay"}, "model.pretrained='openay': .* openai"),
        ({"name": "ViT-B-23"}, "'ViT-B-23': no such architecture; did you mean 'ViT-B-32'?"),
        ({"name": "scenes-convnet"}, f"no such architecture; did you mean '{NAME}'?"),
        ({"name": "qqq"}, "open_clip.list_models()"),
        ({"name": "ViT-B-16-SigLIP"}, "BPE vocabulary"),
        ({"name": NAME, "kee": KEEConfig(heads=97)}, "model.kee.heads=97: .* width 96 of scenes-conv"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_there_is_before_weights_are_read(
    config: dict[str, Any], message: str
) -> None:
    told = refusal(ModelConfig(**config))
    at = 0
    for part in message.split(".* "):
        at = told.index(part, at)
    with pytest.raises(ModelError) as raised:
        check_model(ModelConfig(**config))
    assert str(raised.value) == told


@pytest.mark.parametrize("name", ["RN50", "MobileCLIP2-S0"])
def test_a_tower_with_batch_statistics_is_refused_for_training_and_not_else(name: str) -> None:
    check_model(ModelConfig(name=name))
    with pytest.raises(ModelError, match=rf"^model\.name='{name}': has BatchNorm \(visual\..*choose a ViT"):
        check_trainable(ModelConfig(name=name))


@pytest.mark.parametrize("name", ["ViT-B-32", "convnext_tiny"])
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
    with pytest.raises(ModelError, match=r"'MobileCLIP2-S3': cannot be built here: Unknown model \(fastvit_"):
        check_trainable(ModelConfig(name="MobileCLIP2-S3"))


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
