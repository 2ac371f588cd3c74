"""Weights in the layouts of other programs load unchanged and run with the activation of their training."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sclip.config import KEEConfig, ModelConfig
from sclip.model import ModelError, build_model
from sclip.model.build import check_fit, resolved
from sclip.model.export import export, load_exported
from sclip.model.weights import read
from support.small_vit import (
    KEE,
    PLAIN,
    QUICK,
    SILENT,
    TELLING,
    as_hub_folder,
    as_openai,
    as_released,
    as_safetensors,
    as_state_dict,
    clip_of,
    config_of,
    features,
    refusal,
)

Write = Callable[[nn.Module, Path], Path]


@pytest.mark.parametrize("write", SILENT)
@pytest.mark.parametrize(("name", "option"), [(PLAIN, "off"), (QUICK, "on")])
def test_a_state_dict_is_read_and_runs_with_the_activation_that_is_set(
    write: Write, name: str, option: str, tmp_path: Path
) -> None:
    clip = clip_of(name)
    model = build_model(config_of(write(clip, tmp_path), quick_gelu=option)).eval()
    assert torch.equal(features(model.clip), features(clip))
    assert model.logit_scale.log.item() == 3.5
    assert model.config.name == name


@pytest.mark.parametrize("write", TELLING)
def test_a_layout_that_records_quickgelu_runs_with_it(write: Write, tmp_path: Path) -> None:
    clip = clip_of(QUICK)
    model = build_model(config_of(write(clip, tmp_path))).eval()
    assert torch.equal(features(model.clip), features(clip))
    assert model.config.name == QUICK


def test_a_hub_folder_determines_activation_and_image_normalisation(tmp_path: Path) -> None:
    clip = clip_of(PLAIN, force_preprocess_cfg={"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.2)})
    path = as_hub_folder(clip, tmp_path)
    model = build_model(config_of(path)).eval()
    assert read(path, "it").architecture == model.config.name == PLAIN
    assert torch.equal(features(model.clip), features(clip))
    torch.testing.assert_close(model.image_mean.flatten(), 255 * torch.tensor([0.5, 0.4, 0.3]))
    torch.testing.assert_close(1 / model.image_inverse_std.flatten(), 255 * torch.tensor([0.5, 0.25, 0.2]))
    message = refusal(config_of(path, name=QUICK))
    assert "trained without QuickGELU" in message
    assert message.endswith(f"set model.name={PLAIN}")
    other = config_of(path, name="scenes-conv", kee=KEEConfig(heads=4))
    assert f"(it is of {PLAIN}) does not fit" in refusal(other)


def test_a_scalar_pickled_by_numpy_1_does_not_prevent_loading(tmp_path: Path) -> None:
    """The released code's files were written with NumPy 1, whose scalars have another module path."""
    path, old = as_released(clip_of(QUICK), tmp_path), tmp_path / "old.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(entry, data)
    assert torch.equal(features(build_model(config_of(old)).eval().clip), features(clip_of(QUICK)))


def test_the_text_tower_loads_from_the_tensor_names_of_another_open_clip_class(tmp_path: Path) -> None:
    clip = open_clip.create_model("scenes-conv")
    state = {name.removeprefix("text."): tensor for name, tensor in clip.state_dict().items()}
    custom = open_clip.create_model("scenes-conv", force_custom_text=True).state_dict()
    assert custom.keys() - state.keys()
    save_file(state, tmp_path / "old.safetensors")
    model = build_model(config_of(tmp_path / "old.safetensors", name="scenes-conv", kee=KEEConfig(heads=3)))
    assert torch.equal(model.token_embedding.weight, state["token_embedding.weight"])


PEELED = {
    "ddp of compiled": lambda state: {f"module._orig_mod.{name}": t for name, t in state.items()},
    "compiled ddp": lambda state: {f"_orig_mod.module.{name}": t for name, t in state.items()},
    "compiled blocks": lambda state: {
        re.sub(r"(resblocks\.\d+\.)", r"\1_orig_mod.", name): t for name, t in state.items()
    },
    "compiled tower in ddp": lambda state: {
        f"module.{name}".replace("visual.", "visual._orig_mod."): t for name, t in state.items()
    },
}


@pytest.mark.parametrize(
    ("wrapped", "entry"), [*((wrapped, "") for wrapped in PEELED), ("ddp of compiled", "model/state_dict")]
)
def test_prefixes_of_model_wrappers_are_removed_at_any_depth_of_a_checkpoint(
    wrapped: str, entry: str, tmp_path: Path
) -> None:
    clip = clip_of(QUICK)
    checkpoint = state = PEELED[wrapped](clip.state_dict())
    for key in filter(None, reversed(entry.split("/"))):
        checkpoint = {key: checkpoint, "epoch": 3}
    torch.save(checkpoint, tmp_path / "held.pt")
    save_file(state, tmp_path / "held.safetensors")
    for file in ("held.pt", *(["held.safetensors"] if not entry else [])):
        model = build_model(config_of(tmp_path / file, quick_gelu="on")).eval()
        assert torch.equal(features(model.clip), features(clip))
    assert read(tmp_path / "held.pt", "it").left_out == ("epoch",) * len(entry.split("/") if entry else [])


def test_a_state_dict_that_holds_a_tensor_twice_or_itself_is_refused(tmp_path: Path) -> None:
    state = clip_of(PLAIN).state_dict()
    torch.save(state | {"_orig_mod.logit_scale": state["logit_scale"]}, tmp_path / "both.pt")
    assert "holds tensors twice" in refusal(config_of(tmp_path / "both.pt"))
    content: dict[str, Any] = {"epoch": 3}
    content["model"] = content
    torch.save(content, tmp_path / "circle.pt")
    assert "entries are not tensors (epoch, model)" in refusal(config_of(tmp_path / "circle.pt"))


def test_an_unknown_contradictory_or_unavailable_activation_is_refused(tmp_path: Path) -> None:
    path = as_safetensors(clip_of(QUICK), tmp_path)
    message = refusal(config_of(path))
    assert message.startswith(f"model.pretrained={str(path)!r} does not say")
    assert "model.quick_gelu=on" in message
    assert build_model(config_of(path, name=QUICK)).config.name == QUICK
    path = as_openai(clip_of(QUICK), tmp_path)
    message = refusal(config_of(path, quick_gelu="off"))
    assert message.startswith("model.quick_gelu='off': ")
    assert "trained with QuickGELU" in message
    conv: dict[str, Any] = {"name": "scenes-conv", "kee": KEEConfig(heads=4)}
    assert "was trained with QuickGELU" in refusal(config_of(path, **conv))
    assert "exists only without QuickGELU" in refusal(ModelConfig(quick_gelu="on", **conv))
    assert build_model(ModelConfig(name=PLAIN, quick_gelu="on", kee=KEE)).config.name == QUICK


def test_an_export_keeps_the_activation_as_a_folder_and_as_a_single_file(tmp_path: Path) -> None:
    model = build_model(config_of(as_openai(clip_of(QUICK), tmp_path))).eval()
    folder = export(model, tmp_path / "export")
    (folder / "model.safetensors").rename(tmp_path / "alone.safetensors")
    again = build_model(config_of(tmp_path / "alone.safetensors")).eval()
    (tmp_path / "alone.safetensors").rename(folder / "model.safetensors")
    for loaded in (load_exported(folder), again, build_model(config_of(folder)).eval()):
        assert loaded.config.name == QUICK
        assert torch.equal(features(loaded.clip), features(model.clip))
    assert resolved(config_of(folder)).name == QUICK
    save_file(
        load_file(folder / "model.safetensors"), folder / "model.safetensors"
    )  # this file no longer records the activation
    assert load_exported(folder).config.name == build_model(config_of(folder)).config.name == QUICK


def test_positions_of_another_image_size_are_resized_as_open_clip_does(tmp_path: Path) -> None:
    large = open_clip.create_model(PLAIN, force_image_size=64)
    path = as_state_dict(large, tmp_path)
    theirs = open_clip.create_model(PLAIN, pretrained=str(path)).eval()
    model = build_model(config_of(path, quick_gelu="off")).eval()
    assert large.visual.positional_embedding.shape != theirs.visual.positional_embedding.shape
    assert torch.equal(features(model.clip), features(theirs))


def test_missing_unknown_and_misshaped_tensors_are_counted_and_named(tmp_path: Path) -> None:
    state = clip_of(PLAIN).state_dict()
    for name in ("ln_final.weight", "ln_final.bias", "visual.proj", "visual.ln_post.bias"):
        del state[name]
    torch.save(state | {"extra.a": torch.ones(1), "text_projection": torch.ones(2, 3)}, tmp_path / "odd.pt")
    config = config_of(tmp_path / "odd.pt", quick_gelu="off")
    message = refusal(config)
    assert "4 missing in it (clip.ln_final.bias; clip.ln_final.weight; clip.visual.ln_post.bias)" in message
    assert "1 unknown to the model (clip.extra.a)" in message
    assert "1 of another shape (clip.text_projection [2, 3], not [32, 32])" in message
    with pytest.raises(ModelError) as raised:
        check_fit(config, read(tmp_path / "odd.pt", f"model.pretrained={config.pretrained!r}"))
    assert str(raised.value) == message


def test_weights_that_fit_pass_the_check_before_they_are_loaded(tmp_path: Path) -> None:
    path = as_openai(clip_of(QUICK), tmp_path)
    assert check_fit(config_of(path), read(path, "it")) == ["the knowledge encoder starts anew"]
    with_bias = config_of(path, kee=KEEConfig(enabled=False), logit_bias=-4.0)
    assert check_fit(with_bias, read(path, "it")) == ["the logit bias starts anew"]
