"""A model opens by run, checkpoint, export, weights or architecture. Other names are refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sclip
from sclip.config import Config, KEEConfig, ModelConfig
from sclip.config.loader import to_tree
from sclip.inference.convert import convert, opened
from sclip.inference.open_model import open_model
from sclip.inference.scorer import Scorer
from sclip.model import ModelError, check_trainable
from sclip.model.export import export
from sclip.registry import RegistryError
from sclip.train import checkpoint
from sclip.train.optimizer import make_optimizer
from support.paths import ROOT
from support.pictures import picture
from support.small_model import CAPTIONS, NAME, SMALL, small_model
from support.small_vit import QUICK, RESNET, as_state_dict, clip_of


def encoded(scorer: Scorer) -> torch.Tensor:
    return scorer.encode_text(CAPTIONS)


def a_run(storage: Path, *, finished: bool) -> torch.Tensor:
    """Write a run with a checkpoint and, if finished, a model. Return features of the model, else of the checkpoint."""
    folder = storage / "runs" / "my-run"
    folder.mkdir(parents=True)
    config = Config(model=SMALL)
    (folder / "config.json").write_text(json.dumps(to_tree(config)))
    model = small_model(3)
    checkpoint.save(folder / "step-00000001", model, make_optimizer(model, config.train), {"step": 1})
    if finished:
        Scorer(small_model(4)).save(folder / "model")
        return encoded(Scorer(small_model(4)))
    return encoded(Scorer(model))


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_is_found_by_name_or_folder_and_opens_its_model_or_newest_checkpoint(
    tmp_path: Path, finished: bool
) -> None:
    expected = a_run(tmp_path, finished=finished)
    for name in ("my-run", tmp_path / "runs" / "my-run"):
        assert torch.equal(encoded(open_model(name, storage=tmp_path)), expected)
    step_features = encoded(open_model(tmp_path / "runs" / "my-run" / "step-00000001"))
    assert torch.equal(step_features, encoded(Scorer(small_model(3))))


def test_an_export_keeps_its_parser_and_an_export_without_one_gets_the_default(tmp_path: Path) -> None:
    Scorer(small_model()).save(tmp_path / "saved")
    export(small_model(), tmp_path / "bare")
    expected = encoded(sclip.load(tmp_path / "saved"))
    assert torch.equal(expected, encoded(sclip.load(str(tmp_path / "bare"))))
    assert torch.equal(expected, encoded(sclip.load(tmp_path / "saved" / "model.safetensors")))


def test_an_architecture_without_a_tag_has_deterministic_random_weights() -> None:
    before = torch.random.get_rng_state()
    first, again = open_model(f"{NAME}:"), open_model(f"{NAME}:")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(encoded(first), encoded(again))
    assert first.facts() == again.facts()
    assert first.facts()["weights"] != Scorer(small_model()).facts()["weights"]


def test_a_tower_with_batch_statistics_is_loaded_exported_and_loaded_again(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"set model\.pretrained or run\.init_from"):
        check_trainable(ModelConfig(name=RESNET, kee=KEEConfig(enabled=False)))
    first = sclip.load(f"{RESNET}:")
    images = [picture("red"), picture("blue"), picture("red")]
    alone, together = first.encode_image(images[:1]), first.encode_image(images)
    torch.testing.assert_close(alone[0], together[2])  # the statistics are not the batch's
    exported = first.save(tmp_path / "export")
    assert torch.equal(sclip.load(exported).encode_image(images), together)
    file = as_state_dict(clip_of(RESNET), tmp_path)
    assert f"{RESNET} (GELU)" in convert(opened(file, RESNET), tmp_path / "converted")
    assert sclip.load(tmp_path / "converted").facts() == sclip.load(f"{RESNET}:{file}").facts()


def test_a_file_of_weights_is_read_if_its_architecture_is_named(tmp_path: Path) -> None:
    file = as_state_dict(clip_of(QUICK), tmp_path)
    with pytest.raises(ModelError, match="records no architecture; name it ARCHITECTURE:"):
        open_model(file)
    assert open_model(f"{QUICK}:{file}").facts()["architecture"] == QUICK


def test_each_kind_of_wrong_name_is_refused_with_its_own_message(tmp_path: Path) -> None:
    forms = "a run .*step-.*an export .*ViT-B-32:openai .*models:/NAME@ALIAS"
    for name in ("my-rum", "no/such/folder"):
        with pytest.raises(ModelError, match=f"^'{name}': no such model; name {forms}"):
            open_model(name, storage=tmp_path)
    with pytest.raises(ModelError, match="no such architecture; did you mean 'ViT-B-32'"):
        open_model("ViT-B32:")
    with pytest.raises(ModelError, match="nor a tag of ViT-B-32"):
        open_model("ViT-B-32:opnai")
    with pytest.raises(ModelError, match="no such GPU" if not torch.cuda.is_available() else "no such"):
        open_model("nothing", "cuda")
    for device in ("gpu", "mps", ""):
        with pytest.raises(ModelError, match=f"device '{device}': must be cpu, cuda or cuda:1"):
            open_model("nothing", device)
    with pytest.raises(ModelError, match="'': names no model"):
        open_model("")
    for name in ("models:/", "models:/name", "models:/a/b/c"):
        with pytest.raises(ModelError, match=f"'{name}': write models:/NAME@ALIAS or models:/NAME/VERSION"):
            sclip.load(name, storage=tmp_path)
    started = tmp_path / "runs" / "started"
    started.mkdir(parents=True)
    (started / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="the run has no checkpoint yet"):
        open_model("started", storage=tmp_path)
    with pytest.raises(RegistryError, match="cannot be downloaded"):
        sclip.load("models:/nothing@champion", storage=tmp_path)


def test_the_package_itself_imports_nothing_heavy() -> None:
    program = "import sys, sclip; print(any(name in sys.modules for name in ('torch', 'spacy', 'mlflow')))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
