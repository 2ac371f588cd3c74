"""A run copies its initial weights into its folder and takes the model name that has their activation."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from sclip.config import Config, ConfigError, KEEConfig, ModelConfig, RunConfig
from sclip.model import ModelError, build_model
from sclip.model.export import export
from sclip.run import resolve
from sclip.train.run_folder import RunFolder
from support.small_model import NAME, SMALL, assert_same_weights, small_model
from support.small_vit import PLAIN, QUICK, as_hub_folder, as_state_dict, clip_of, features

KEE = KEEConfig(layers=1, heads=2)


def config_of(storage: Path, init_from: str = "", **model: Any) -> Config:
    run = RunConfig(name="run", storage=str(storage), init_from=init_from)
    return Config(run=run, model=ModelConfig(**{"name": PLAIN, "kee": KEE, **model}))


def started_from(config: Config, folder: RunFolder, output: io.StringIO | None = None) -> Config:
    return resolve.bring_initial_weights(config, folder, Console(file=output or io.StringIO()))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "run")


def refusal(config: Config, folder: RunFolder) -> str:
    with pytest.raises((ConfigError, ModelError)) as raised:
        started_from(config, folder)
    assert not folder.path.exists()
    return str(raised.value)


@pytest.mark.parametrize("key", ["init_from", "pretrained"])
def test_initial_weights_are_copied_into_the_run_and_their_source_is_not_needed_again(
    key: str, tmp_path: Path, folder: RunFolder
) -> None:
    (tmp_path / "source").mkdir()
    clip = clip_of(QUICK, force_preprocess_cfg={"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.2)})
    source = as_hub_folder(clip, tmp_path / "source", QUICK)
    output = io.StringIO()
    started = started_from(config_of(tmp_path, **{key: str(source)}), folder, output)
    assert re.fullmatch(
        rf"starting from \S+={str(source)!r}: .*the knowledge encoder starts anew.*\n", output.getvalue()
    )
    assert [file.name for file in folder.path.iterdir()] == ["init.safetensors"]
    shutil.rmtree(tmp_path / "source")
    assert started_from(config_of(tmp_path, "gone"), folder).model == started.model
    assert (started.model.name, started.model.pretrained) == (QUICK, str(folder.init))
    model = build_model(started.model).eval()
    assert torch.equal(features(model.clip), features(clip))
    assert model.image_mean.flatten().tolist() == pytest.approx([127.5, 102.0, 76.5])
    later = build_model(started.model, load_weights=False)  # as is done before a checkpoint is loaded
    assert later.config.name == QUICK


def test_the_activation_that_is_set_is_kept_with_the_weights(tmp_path: Path) -> None:
    for option, name in (("on", QUICK), ("off", PLAIN)):
        source, folder = as_state_dict(clip_of(name), tmp_path), RunFolder(tmp_path / "runs" / option)
        started_from(config_of(tmp_path, str(source), quick_gelu=option), folder)
        alone = build_model(ModelConfig(name=PLAIN, pretrained=str(folder.init), kee=KEE))
        assert alone.config.name == name


def test_a_run_starts_from_another_by_its_name_or_any_of_its_folders(tmp_path: Path) -> None:
    model = small_model(1)
    export(model, tmp_path / "runs" / "first" / "model")
    folders = ("runs/first", "runs/first/model", "runs/first/model/model.safetensors")
    for number, source in enumerate(["first", *(str(tmp_path / name) for name in folders)]):
        config = Config(config_of(tmp_path, source).run, model=SMALL)
        started = started_from(config, RunFolder(tmp_path / "runs" / f"run-{number}"))
        assert_same_weights(build_model(started.model), model)


def test_without_a_file_only_the_model_name_is_resolved(tmp_path: Path, folder: RunFolder) -> None:
    assert started_from(config_of(tmp_path), folder).model.name == PLAIN
    assert started_from(config_of(tmp_path, quick_gelu="on"), folder).model.name == QUICK
    tagged = started_from(config_of(tmp_path, name="ViT-B-32", pretrained="openai"), folder)
    assert (tagged.model.name, tagged.model.pretrained) == ("ViT-B-32-quickgelu", "openai")
    assert not folder.path.exists()


def test_unusable_initial_weights_are_refused_before_the_run_has_a_folder(
    tmp_path: Path, folder: RunFolder
) -> None:
    assert refusal(config_of(tmp_path, "nothing"), folder).startswith("run.init_from='nothing': not a file")
    source = str(as_state_dict(clip_of(PLAIN), tmp_path))
    assert "model.quick_gelu=on" in refusal(config_of(tmp_path, source), folder)
    other = config_of(tmp_path, str(as_hub_folder(clip_of(PLAIN), tmp_path)), name=NAME, kee=SMALL.kee)
    message = refusal(other, folder)
    assert message.startswith("run.init_from=")
    assert "does not fit model.name='scenes-conv'" in message
    (tmp_path / "empty").mkdir()
    assert "a folder without model.safetensors" in refusal(
        config_of(tmp_path, str(tmp_path / "empty")), folder
    )
