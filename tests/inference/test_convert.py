"""sclip convert turns weights and checkpoints into an export or an open_clip folder, and prints one line about it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sclip.config import Config, KEEConfig, ModelConfig, TrainConfig
from sclip.config.loader import to_tree
from sclip.inference.scorer import Scorer
from sclip.model import StructureCLIP, Tokenizer, build_model
from sclip.model.export import export, load_exported
from sclip.train import checkpoint
from sclip.train.optimizer import make_optimizer
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import record_inputs
from support.commands import command
from support.small_model import NAME, SMALL, assert_same_weights, pictures, small_model
from support.small_vit import (
    PLAIN,
    QUICK,
    as_hub_folder,
    as_quick_hub_folder,
    as_released,
    as_state_dict,
    as_training_checkpoint,
    clip_of,
    features,
)

convert = command("convert")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a conversion that must fail; return its only line of error."""
    assert convert(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("convert: ")
    assert output.err.count("\n") == 1
    return output.err


def done(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a conversion that must succeed; return its only line of output."""
    assert convert(*arguments) == 0
    output = capsys.readouterr()
    assert output.out.count("\n") == 1
    return output.out


def test_a_state_dict_becomes_an_export_of_the_named_architecture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, options = clip_of(QUICK), ("--model", PLAIN, "--quick-gelu", "on")
    line = done(capsys, as_training_checkpoint(clip, tmp_path), tmp_path / "export", *options)
    model = load_exported(tmp_path / "export")
    assert torch.equal(features(model.clip), features(clip))
    assert model.kee is None
    tensors = len(load_file(tmp_path / "export" / "model.safetensors"))
    expected = f"{tmp_path / 'export'}: {tensors} tensors, {QUICK} (QuickGELU), without a knowledge encoder; left out: "
    assert line == f"{expected}epoch, name, optimizer\n"


@pytest.mark.parametrize("write", [as_released, as_quick_hub_folder])
def test_an_option_is_not_needed_if_the_source_states_it(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = clip_of(QUICK)
    source = write(clip, tmp_path)
    line = done(capsys, source, tmp_path / "export", *(() if "hub" in str(source) else ("--model", PLAIN)))
    assert f"{QUICK} (QuickGELU)" in line
    assert torch.equal(features(load_exported(tmp_path / "export").clip), features(clip))
    if write is as_released:
        other = tmp_path / "resized"
        other.mkdir()
        resized = as_state_dict(clip_of(PLAIN, force_image_size=64), other)
        other_line = done(capsys, resized, other / "export", "--model", PLAIN, "--quick-gelu", "off")
        assert other_line.endswith("; positions of 4 x 4 patches are resized to the model's 4\n")
    ending = "left out: the released code's encoder (4 tensors under 'transformer')\n"
    assert line.endswith(ending) == (write is as_released)


def test_an_export_is_converted_whole_with_its_parser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_model(1)
    Scorer(model).save(tmp_path / "model")
    line = done(capsys, tmp_path, tmp_path / "again")  # the folder of a finished run
    assert f"{NAME} (GELU), knowledge encoder of 1 layers\n" in line
    assert_same_weights(load_exported(tmp_path / "again"), model)
    for file in ("parser.json", "config.json"):
        assert (tmp_path / "again" / file).read_text() == (tmp_path / "model" / file).read_text()


# Checkpoints of a run


def trained(run: RunFolder, model: StructureCLIP, step: int) -> None:
    checkpoint.save(run.step_path(step), model, make_optimizer(model, TrainConfig()), {})


def test_a_checkpoint_becomes_an_export_that_a_scorer_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model = RunFolder(tmp_path / "run"), small_model(2)
    record_inputs(run, to_tree(Config(model=SMALL)), {})
    trained(run, small_model(1), 1)
    trained(run, model, 2)
    run.step_path(3).mkdir()  # left by a crash
    for source in (run.path, run.step_path(2)):
        exported = tmp_path / f"of {source.name}"
        assert f"{NAME} (GELU), knowledge encoder of 1 layers" in done(capsys, source, exported)
        assert_same_weights(load_exported(exported), model)
        assert Scorer.load(exported).image_size == 48
    started = RunFolder(tmp_path / "started")  # started from weights that record their activation
    config = ModelConfig(name=PLAIN, kee=KEEConfig(layers=1, heads=2))
    record_inputs(started, to_tree(Config(model=config)), {})
    quick = build_model(ModelConfig(name=QUICK, kee=config.kee))
    (export(quick, tmp_path / "first") / "model.safetensors").rename(started.init)
    trained(started, quick, 1)
    assert f"{QUICK} (QuickGELU)" in done(capsys, started.path, tmp_path / "quick")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run")
    record_inputs(run, to_tree(Config(model=SMALL)), {})
    trained(run, small_model(1), 1)
    (file,) = run.step_path(1).glob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "SHA-256 differs" in refused(capsys, run.path, tmp_path / "export")
    file.write_bytes(content[:-1])
    assert "the manifest says" in refused(capsys, run.step_path(1), tmp_path / "export")
    file.write_bytes(content)
    (run.path / "config.json").unlink()
    assert "config.json" in refused(capsys, run.path, tmp_path / "export")
    assert not (tmp_path / "export").exists()


# For open_clip

FRESH = """
import sys
import open_clip, torch

inputs, outputs, *folders = sys.argv[1:]
held, found = torch.load(inputs, weights_only=True), []
for folder in folders:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        ids = tokenizer(["a red square left of a blue circle"])
        found.append({
            "image": model.encode_image(held, normalize=True),
            "text": model.encode_text(ids, normalize=True),
            "logit_scale": model.logit_scale.exp(),
            "logit_bias": torch.tensor(0.0) if model.logit_bias is None else model.logit_bias,
            "normalise": torch.tensor([*preprocess.transforms[-1].mean, *preprocess.transforms[-1].std]),
        })
torch.save(found, outputs)
"""


@torch.no_grad()
def test_open_clip_in_a_fresh_process_computes_the_features_of_the_clip_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mean = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.2)}
    source = as_hub_folder(clip_of(QUICK, force_preprocess_cfg=mean), tmp_path, QUICK)
    kee, images, models = KEEConfig(layers=1, heads=2), pictures(4, PLAIN), dict[Path, StructureCLIP]()
    for bias in (0.0, -10.0):
        model = build_model(ModelConfig(name=PLAIN, pretrained=str(source), kee=kee, logit_bias=bias)).eval()
        exported, clip = export(model, tmp_path / f"export{bias}"), tmp_path / f"clip{bias}"
        line = done(capsys, exported, clip, "--clip")
        assert f"{QUICK} (QuickGELU); left out: the knowledge encoder\n" in line
        files = {"open_clip_model.safetensors", "open_clip_config.json"}
        assert {file.name for file in clip.iterdir()} == files
        done(capsys, clip, tmp_path / f"again{bias}")
        assert_same_weights(load_exported(tmp_path / f"again{bias}"), load_exported(exported), "clip.")
        models[clip] = model
    torch.save((images.float() - model.image_mean) * model.image_inverse_std, tmp_path / "inputs.pt")
    command = [
        sys.executable,
        "-c",
        FRESH,
        *(tmp_path / name for name in ("inputs.pt", "outputs.pt")),
        *models,
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    ids = torch.from_numpy(
        Tokenizer(ModelConfig(name=PLAIN, kee=kee)).text(["a red square left of a blue circle"])
    )
    for model, outputs in zip(
        models.values(), torch.load(tmp_path / "outputs.pt", weights_only=True), strict=True
    ):
        torch.testing.assert_close(outputs["image"], model.encode_image(images))
        torch.testing.assert_close(outputs["text"], model.encode_text(ids))
        assert torch.equal(outputs["logit_scale"], model.logit_scale())
        assert outputs["logit_bias"] == model.config.logit_bias
        torch.testing.assert_close(outputs["normalise"], torch.tensor([*mean["mean"], *mean["std"]]))


# What is refused


def test_an_unknown_architecture_or_activation_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = as_state_dict(clip_of(PLAIN), tmp_path)
    assert "name it with --model" in refused(capsys, source, tmp_path / "export")
    unknown = refused(capsys, source, tmp_path / "export", "--model", "small-vti")
    assert unknown.startswith("convert: --model small-vti: no such architecture; did you mean")
    silent = refused(capsys, source, tmp_path / "export", "--model", PLAIN)
    assert "set --quick-gelu on" in silent
    hub_folder = as_hub_folder(clip_of(PLAIN), tmp_path)
    contradicted = refused(capsys, hub_folder, tmp_path / "export", "--quick-gelu", "on")
    assert contradicted.startswith("convert: --quick-gelu on: ")
    other = refused(capsys, hub_folder, tmp_path / "export", "--model", QUICK)
    assert other.startswith(f"convert: --model {QUICK}: ")
    assert other.endswith(f"set --model {PLAIN}\n")
    for line in (silent, contradicted, other):
        assert "model." not in line
    assert not (tmp_path / "export").exists()


def test_unreadable_sources_and_occupied_folders_are_refused_and_nothing_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = export(small_model(), tmp_path / "model")
    before = (model / "model.safetensors").read_bytes()
    for folder in (model, model / "config.json"):
        assert "not empty" in refused(capsys, model, folder)
    assert (model / "model.safetensors").read_bytes() == before
    (model / "config.json").write_text("{")
    assert "config.json" in refused(capsys, model, tmp_path / "export")
    (model / "config.json").write_text(json.dumps({"name": "nobody's", "kee": {}}))
    assert "no such architecture" in refused(capsys, model, tmp_path / "export")
    (model / "config.json").unlink()
    assert "lacks config.json, which describes" in refused(
        capsys, model, tmp_path / "export", "--model", NAME
    )
    missing = tmp_path / "clip.safetensors"
    assert str(missing) in refused(capsys, missing, tmp_path / "export", "--model", PLAIN)
