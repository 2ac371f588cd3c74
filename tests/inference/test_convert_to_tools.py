"""sclip convert --to transformers and --to onnx write folders that load in a fresh process and give our features."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import sclip
from sclip.config import Config, DataConfig, ModelConfig
from sclip.config.loader import to_tree
from sclip.evaluate.result import EVALUATION_FILE
from sclip.inference.convert import Source
from sclip.inference.convert import convert as write
from sclip.inference.scorer import Scorer
from sclip.model import ModelError, StructureCLIP
from sclip.model.clip_model import check_clip_model, write_clip_model
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import record_inputs
from support.commands import command
from support.registered import NAME, Registry, evaluation
from support.small_model import CAPTIONS, SMALL, pictures, small_model
from support.small_vit import KEE, PLAIN, QUICK, RESNET, clip_of

convert = command("convert")


def vit(name: str, **more: Any) -> StructureCLIP:
    """Return a model whose towers have weights large enough that GELU and QuickGELU differ."""
    model = small_model(0, ModelConfig(name=name, kee=KEE, **more)).eval()
    weights = {key: value for key, value in clip_of(name).state_dict().items() if "logit" not in key}
    model.clip.load_state_dict(weights)
    return model


def fresh_outputs(program: str, folder: Path, *inputs: Path) -> dict[str, Tensor]:
    run = subprocess.run(
        [sys.executable, "-c", program, folder, *inputs], capture_output=True, text=True, cwd=folder.parent
    )
    assert run.returncode == 0, run.stderr
    return {name: torch.from_numpy(value) for name, value in np.load(folder.parent / "outputs.npz").items()}


TRANSFORMERS = """
import sys
import numpy as np
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

folder, *files = sys.argv[1:]
model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
captions = CAPTIONS
inputs = processor(text=captions, images=[Image.open(f) for f in files], return_tensors="pt", padding=True)
with torch.no_grad():
    found = model.eval()(**inputs)
np.savez("outputs.npz", **{name: found[name].numpy() for name in ("image_embeds", "text_embeds", "logits_per_image")})
"""


@torch.no_grad()
@pytest.mark.parametrize("name", [PLAIN, QUICK])
def test_transformers_computes_the_features_of_a_run_and_the_card_describes_the_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = vit(name)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    config = Config(model=model.config, data=DataConfig(shards=("train/{00..09}.tar",)))
    record_inputs(run, to_tree(config), {})
    Scorer(model).save(run.path / "model")
    evaluation({"vg_relation/macro": 0.612}).write(run.path / EVALUATION_FILE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert convert(run.path, tmp_path / "hf", "--to", "transformers") == 0
    line = capsys.readouterr().out
    assert "left out: the knowledge encoder; largest difference of transformers " in line
    pixels, files = pictures(3, name), [tmp_path / f"{number}.png" for number in range(3)]
    for picture, file in zip(pixels, files, strict=True):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file)
    outputs = fresh_outputs(TRANSFORMERS.replace("CAPTIONS", repr(CAPTIONS)), tmp_path / "hf", *files)
    ids, _ = sclip.load(run.path).tokens(CAPTIONS)
    image, text = model.encode_image(pixels), model.encode_text(ids)
    torch.testing.assert_close(outputs["image_embeds"], image, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs["text_embeds"], text, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        outputs["logits_per_image"], model.logit_scale() * image @ text.T, rtol=0, atol=1e-3
    )
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "| vg_relation | macro | 0.612 | 0.592 to 0.632 | 0.500 | 4 |" in card
    assert "`data.shards`: `['train/{00..09}.tar']`" in card
    assert f"model.name: {name}\n" in card
    assert "This folder lacks it" in card


ONNX = """
import sys
import numpy as np
import onnxruntime

folder, inputs = sys.argv[1:]
held, outputs = dict(np.load(inputs)), {}
for file in ("image", "text", "model"):
    session = onnxruntime.InferenceSession(f"{folder}/{file}.onnx")
    for rows in (1, 3):
        values = session.run(None, {i.name: held[i.name][:rows] for i in session.get_inputs()})
        names = [output.name for output in session.get_outputs()]
        outputs |= {f"{file} {rows} {name}": value for name, value in zip(names, values, strict=True)}
assert "torch" not in sys.modules
np.savez("outputs.npz", **outputs)
"""


@torch.no_grad()
def test_onnxruntime_computes_the_features_of_a_registered_version_with_knowledge_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_model(1, dataclasses.replace(SMALL, logit_bias=-2.0)).eval()
    scorer = Scorer(model)
    registry = Registry(tmp_path, scorer.save(tmp_path / "model"))
    registry.add({"vg_relation/macro": 0.612})
    uri = ("--tracking-uri", registry.uri)
    assert convert(f"models:/{NAME}@candidate", tmp_path / "onnx", "--to", "onnx", *uri) == 0
    assert "knowledge encoder of 1 layers; largest difference of onnxruntime " in capsys.readouterr().out
    captions = [CAPTIONS[0], "dogs", CAPTIONS[2]]  # the second caption has no triple
    ids, triples = scorer.tokens(captions)
    assert (triples.flatten(1) == -1).all(1).tolist() == [False, True, False]
    pixels = pictures(3)
    normalised = (pixels.float() - model.image_mean) * model.image_inverse_std
    inputs = {"pixel_values": normalised, "input_ids": ids, "triples": triples}
    np.savez(tmp_path / "inputs.npz", **{name: tensor.numpy() for name, tensor in inputs.items()})
    outputs = fresh_outputs(ONNX, tmp_path / "onnx", tmp_path / "inputs.npz")
    image, text = model.encode_image(pixels), scorer.encode_text(captions)
    logits = model.logit_scale() * image @ text.T - 2.0
    expected = {"image_embeds": image, "text_embeds": text, "logits_per_image": logits}
    for rows in (1, 3):
        for name, value in expected.items():
            output = outputs[f"model {rows} {name}"]
            target = value[:rows, :rows] if name == "logits_per_image" else value[:rows]
            torch.testing.assert_close(output, target, rtol=0, atol=1e-3 if "logits" in name else 1e-4)
        for file, value in (("image", image), ("text", model.encode_text(ids))):
            torch.testing.assert_close(
                outputs[f"{file} {rows} {file}_embeds"], value[:rows], rtol=0, atol=1e-4
            )
    card = (tmp_path / "onnx" / "README.md").read_text()
    assert "`triples` int64 [texts, 6, 3, 5]" in card
    assert "| vg_relation | macro | 0.612 |" in card


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (SMALL, "its image tower is a TimmModel"),
        (ModelConfig(name=RESNET, kee=KEE), "its image tower is a ModifiedResNet"),
        (ModelConfig(name=PLAIN, kee=KEE, logit_bias=-10.0), "it has SigLIP's logit bias"),
    ],
)
def test_a_model_that_transformers_cannot_hold_is_refused_in_one_line(
    config: ModelConfig, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scorer(small_model(0, config)).save(tmp_path / "model")
    assert convert(tmp_path / "model", tmp_path / "hf", "--to", "transformers") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{config.name}: transformers' CLIPModel cannot hold it: {why}" in error
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_computes_other_features_is_refused(tmp_path: Path) -> None:
    model = vit(QUICK)
    written = write_clip_model(model, tmp_path / "hf")
    config = json.loads((written / "config.json").read_text())
    config["text_config"]["hidden_act"] = "gelu"
    (written / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"features of transformers .* differ by"):
        check_clip_model(model, written)


def test_without_the_packages_transformers_is_written_uncompared_and_onnx_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("transformers", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    source = Source(vit(PLAIN))
    assert "not compared, as transformers is not installed" in write(source, tmp_path / "hf", "transformers")
    with pytest.raises(ModelError, match=r"onnxruntime not installed: pip install 'sclip\[export\]'"):
        write(source, tmp_path / "onnx", "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


class Bessel(nn.Module):
    """An image tower with a function that ONNX does not have."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.special.bessel_j1(image.flatten(1)[:, :32])


def test_a_model_that_the_opset_cannot_hold_is_refused_in_one_line(tmp_path: Path) -> None:
    model = vit(PLAIN)
    model.clip.visual = Bessel()
    with pytest.raises(ModelError, match=r"^small-vit: ONNX opset 20 cannot hold image\.onnx: .+$"):
        write(Source(model), tmp_path / "onnx", "onnx")
    assert not list(tmp_path.iterdir())
