"""Files of weights: exports load here and in open_clip. Other files are refused and their code never runs."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

from sclip.config import KEEConfig, ModelConfig
from sclip.model import ModelError, Tokenizer, check_model, check_trainable
from sclip.model.export import export, load_exported
from support.small_model import NAME, SMALL, assert_same_weights, small_model, text_ids
from support.small_vit import PLAIN, as_hub_folder, clip_of, config_of, refusal


def test_an_exported_file_loads_as_pretrained_weights_and_exports_do_not_record_their_source(
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


def test_an_exported_file_without_knowledge_encoder_or_bias_leaves_their_initial_values(
    tmp_path: Path,
) -> None:
    plain = small_model(1, ModelConfig(name=NAME, kee=KEEConfig(enabled=False)))
    file = str(export(plain, tmp_path) / "model.safetensors")
    loaded = small_model(2, dataclasses.replace(SMALL, pretrained=file, logit_bias=-4.0))
    assert_same_weights(loaded, plain)
    assert loaded.kee is not None
    assert loaded.kee.projection.weight.std() > 0
    assert loaded.logit_bias is not None
    assert loaded.logit_bias() == -4.0


@torch.no_grad()
def test_an_export_with_a_logit_bias_loads_again_and_open_clip_loads_its_clip_part(tmp_path: Path) -> None:
    model = small_model(1, dataclasses.replace(SMALL, logit_bias=-10.0)).eval()
    assert model.logit_bias is not None
    model.logit_bias.value.fill_(-8.5)
    assert_same_weights(load_exported(export(model, tmp_path)), model)
    tensors = load_file(tmp_path / "model.safetensors")
    state = {name.removeprefix("clip."): t for name, t in tensors.items() if name.startswith("clip.")}
    clip = open_clip.create_model(NAME, init_logit_bias=0.0).eval()
    clip.load_state_dict(state, strict=True)
    text = text_ids(Tokenizer(SMALL))
    assert torch.equal(clip.encode_text(text, normalize=True), model.encode_text(text))
    assert torch.equal(clip.logit_scale.exp(), model.logit_scale())
    assert clip.logit_bias == -8.5


def test_a_model_that_cannot_be_built_is_refused_with_alternatives_before_weights_are_read() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"name": NAME, "pretrained": "/no/a.pt"}, "model.pretrained='/no/a.pt': no such file"),
        ({"name": NAME, "pretrained": "openai"}, "tags: none"),
        ({"name": "ViT-B-32", "pretrained": "openay"}, "model.pretrained='openay': .* openai"),
        ({"name": "ViT-B-23"}, "'ViT-B-23': no such architecture; did you mean 'ViT-B-32'?"),
        (
            {"name": "roberta-ViT-B-32", "hub_folder": "/no"},
            "model.hub_folder='/no': has no folder roberta-base",
        ),
        ({"name": NAME, "kee": KEEConfig(heads=97)}, "model.kee.heads=97: .* width 96 of scenes-conv"),
    ]
    for config, message in refused:
        error = refusal(ModelConfig(**config))
        position = 0
        for part in message.split(".* "):
            position = error.index(part, position)
        with pytest.raises(ModelError) as raised:
            check_model(ModelConfig(**config))
        assert str(raised.value) == error


def test_a_tower_with_batch_statistics_needs_initial_weights_and_the_check_allocates_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = []
    create = open_clip.create_model

    def watched(*args: Any, **more: Any) -> Any:
        models.append(create(*args, **more))
        return models[-1]

    monkeypatch.setattr(open_clip, "create_model", watched)
    for name in ("RN50", "MobileCLIP2-S0"):
        check_model(ModelConfig(name=name))
        with pytest.raises(
            ModelError, match=rf"^model\.name='{name}': has BatchNorm \(visual\..*choose a ViT"
        ):
            check_trainable(ModelConfig(name=name))
        check_trainable(ModelConfig(name=name), has_start=True)
    check_trainable(ModelConfig(name="ViT-B-32", pretrained="openai", kee=KEEConfig(enabled=False)))
    assert {tensor.device.type for clip in models for tensor in clip.state_dict().values()} == {"meta"}


class _Call:
    """An object whose unpickling calls os.mkdir."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_with_the_name_of_the_code_and_never_run(
    tmp_path: Path, zipped: bool
) -> None:
    path, created = tmp_path / "evil.pt", tmp_path / "made"
    content = {**clip_of(PLAIN).state_dict(), "hook": _Call(created)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = refusal(config_of(path))
    assert f"loading it would run {os.mkdir.__module__}.mkdir" in message
    assert "state_dict()" in message
    assert not created.exists()


def test_a_torchscript_archive_is_refused_unopened_with_the_tag_that_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "ViT-B-32.pt")

    def opened(*_: Any, **__: Any) -> None:
        pytest.fail("it was opened")

    monkeypatch.setattr(torch, "load", opened)
    monkeypatch.setattr(torch.jit, "load", opened)
    message = refusal(config_of(tmp_path / "ViT-B-32.pt"))
    assert "TorchScript" in message
    assert "model.pretrained=openai" in message


def test_a_pickle_under_a_safetensors_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    for zipped in (True, False):
        torch.save(clip_of(PLAIN).state_dict(), path, _use_new_zipfile_serialization=zipped)
        assert "it is a pickle; rename it to .pt" in refusal(config_of(path))


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.pt", b"", "an empty file"),
        ("pickle.safetensors", b"\x80\x02}q\x00.", "not a readable safetensors file"),
        ("cut.safetensors", save({"a": torch.ones(9)})[:-5], "not a readable safetensors file"),
        ("text.pt", b"no weights " * 20, "not a readable torch file"),
        ("cut.pt", saved({"weight": torch.ones(100)})[:-200], "not a readable torch file"),
        ("list.pt", saved([torch.ones(1)]), "holds a list, not a state dict"),
        ("numbers.pt", saved({"lr": 0.5, "step": 3}), "entries are not tensors (lr, step)"),
        ("nothing.pt", saved({}), "holds no tensors"),
        ("array.npz", saved({}), "expected a folder, a .safetensors file or a .pt"),
        ("pickle.pt", pickle.dumps({"weight": np.ones(3)}), "not a readable torch file (Unsupported operand"),
    ],
)
def test_a_file_without_usable_weights_is_refused_in_one_line(
    name: str, content: bytes, expected: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(config_of(tmp_path / name))
    assert message.startswith(f"model.pretrained={str(tmp_path / name)!r}: ")
    assert expected in message


def test_a_hub_folder_with_a_broken_config_or_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    assert "a folder without model.safetensors" in refusal(config_of(tmp_path))
    path = as_hub_folder(clip_of(PLAIN), tmp_path)
    for config in ("", "[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {}, "preprocess_cfg": {"mean": "x"}}'):
        (path / "open_clip_config.json").write_text(config)
        assert "open_clip_config.json" in refusal(config_of(path))
    (path / "open_clip_model.safetensors").unlink()
    assert "no open_clip_model.safetensors or open_clip_pytorch_model.bin" in refusal(config_of(path))
