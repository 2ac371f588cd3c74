"""Text towers with more or fewer tokens than their architecture: positions, features, files and refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sclip
from sclip.config import ModelConfig
from sclip.inference.convert import convert, opened
from sclip.model import ModelError, StructureCLIP, Tokenizer, build_model, check_model
from sclip.model.build import assemble, check_fit
from sclip.model.export import export, export_clip, load_exported
from sclip.model.packing import pack
from sclip.model.processor_files import write_processor
from sclip.model.towers import KEPT, fitted_positions
from sclip.model.weights import read
from support.small_model import CAPTIONS, END, NAME, SMALL, pictures, small_model, text_ids

OWN, LONG = 24, 120
LONGER = dataclasses.replace(SMALL, context_length=LONG)
SENTENCES = [f"{n} red squares, {n} blue rings and a dog are seen there. " * 5 + "a cat" for n in range(1, 5)]


@pytest.fixture(scope="module")
def short() -> StructureCLIP:
    return small_model().eval()


@pytest.fixture(scope="module")
def file(short: StructureCLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of the short model."""
    return export(short, tmp_path_factory.mktemp("short"))


@pytest.fixture(scope="module")
def long(file: Path) -> StructureCLIP:
    return build_model(dataclasses.replace(LONGER, pretrained=str(file))).eval()


def text_features(model: StructureCLIP, captions: list[str]) -> Tensor:
    with torch.no_grad():
        return model.encode_text(text_ids(Tokenizer(model.config), captions))


def test_77_positions_become_the_248_of_long_clip() -> None:
    old = torch.randn(77, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    new = fitted_positions(old, 248)
    assert len(new) == 4 * 77 - 3 * KEPT
    assert torch.equal(new[:KEPT], old[:KEPT])
    for position in range(KEPT, 248):
        whole, quarter = divmod(position - KEPT, 4)
        first = min(KEPT + whole, 75)  # positions behind the last one continue the step from 75 to 76
        steps = quarter + 4 * (KEPT + whole - first)
        torch.testing.assert_close(new[position], old[first] + steps / 4 * (old[first + 1] - old[first]))
    half = fitted_positions(old.half(), 248)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half, fitted_positions(old.half().double(), 248).half(), rtol=0, atol=0)
    ramp = fitted_positions(torch.arange(77.0)[:, None], 100)[:, 0]
    torch.testing.assert_close(ramp[KEPT:], KEPT + torch.arange(80) * 57 / 80)
    assert torch.equal(fitted_positions(old, 30), old[:30])


def test_short_captions_keep_their_features_and_long_ones_are_read_to_their_end(
    short: StructureCLIP, long: StructureCLIP
) -> None:
    torch.testing.assert_close(text_features(long, CAPTIONS), text_features(short, CAPTIONS))
    variants = [sentence.removesuffix("cat") + "dog" for sentence in SENTENCES]
    ids = text_ids(Tokenizer(LONGER), SENTENCES)
    assert (ids.shape[1], (ids == END).sum().item()) == (LONG, 4)
    assert 70 < (ids > 0).sum(1).min() < LONG
    assert torch.equal(text_features(short, SENTENCES), text_features(short, variants))
    assert (text_features(long, SENTENCES) - text_features(long, variants)).norm(dim=1).min() > 1e-3


def test_a_packed_batch_of_long_captions_has_the_features_of_a_padded_one(long: StructureCLIP) -> None:
    texts = text_ids(Tokenizer(LONGER), [*SENTENCES, *CAPTIONS])
    packed = pack({"text": texts.numpy()})
    batch = {name: torch.from_numpy(column) for name, column in packed.items()} | {"image": pictures(8)}
    assert packed["packed_text"].shape == (4, LONG)
    with torch.no_grad():
        torch.testing.assert_close(long(batch)["text_features"], long.encode_text(texts))


def test_every_file_of_the_model_keeps_its_context_length(long: StructureCLIP, tmp_path: Path) -> None:
    features = text_features(long, SENTENCES)
    exported = export(long, tmp_path / "run" / "model")
    convert(opened(export_clip(long, tmp_path / "clip")), tmp_path / "converted")
    state = {name: t for name, t in long.clip.state_dict().items() if name != "logit_scale"}
    save_file(state | {"logit_scale": torch.zeros([])}, tmp_path / "weights.safetensors")
    assert opened(tmp_path / "clip").model.config.name == NAME
    for folder in (exported, tmp_path / "converted"):
        torch.testing.assert_close(text_features(load_exported(folder), SENTENCES), features)
    write_processor(long, tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == LONG
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'clip'}").eval()
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'clip'}")(SENTENCES)
    torch.testing.assert_close(theirs.encode_text(ids, normalize=True), features)
    plain = sclip.load(f"{NAME}:{tmp_path / 'weights.safetensors'}")
    for scorer in (sclip.load(tmp_path / "run"), plain):
        assert scorer.reads_whole(SENTENCES[0])
        assert not scorer.reads_whole(SENTENCES[0] * 2)
        graph = scorer.scene_graph(["There is a dog. " * 18 + "A cat chases a mouse."])[0]  # from word 91 on
        assert ("cat", "chase", "mouse") in graph.triples()


def test_weights_of_a_tag_are_stretched_like_those_of_a_file(
    long: StructureCLIP, short: StructureCLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = open_clip.create_model

    def downloaded(name: str, pretrained: str | None = None, **more: Any) -> Any:
        clip = create(name, **more)
        if pretrained:
            clip.load_state_dict(short.clip.state_dict() | {"logit_scale": torch.zeros([])})
        return clip

    monkeypatch.setattr(open_clip, "create_model", downloaded)
    monkeypatch.setattr("sclip.model.build._architecture", lambda config, _: config.name)
    model = assemble(dataclasses.replace(LONGER, pretrained="tag"), None)
    torch.testing.assert_close(text_features(model, SENTENCES), text_features(long, SENTENCES))


def test_changes_of_positions_are_reported_and_impossible_changes_are_refused(
    file: Path, long: StructureCLIP, tmp_path: Path
) -> None:
    longer = str(export(long, tmp_path / "long"))
    weights = read(file, "it")
    assert f"the {OWN} text positions are stretched to {LONG}" in check_fit(LONGER, weights)
    cut = dataclasses.replace(SMALL, context_length=8, pretrained=longer)
    assert "text positions after the first 8 are left out" in check_fit(cut, read(longer, "it"))
    captions = ["a dog", "a red cat"]
    torch.testing.assert_close(
        text_features(build_model(cut).eval(), captions), text_features(long, captions)
    )
    for config, message in {
        dataclasses.replace(SMALL, pretrained=longer): f"set model.context_length={LONG} to keep this length, or {OWN}",
        dataclasses.replace(LONGER, pretrained=str(export(build_model(cut), tmp_path / "eight"))):
            f"model.context_length={LONG}: .* has 8 positions, too few to stretch: .*; set 8$",
        ModelConfig(name="MobileCLIP-S1", context_length=248): "^model.context_length=248: MobileCLIP-S1 has no causal",
        ModelConfig(name="coca_ViT-B-32", context_length=248): "^model.context_length=248: .* for its class token",
    }.items():  # fmt: skip
        with pytest.raises(ModelError, match=message) as raised:
            (build_model if config.pretrained else check_model)(config)
        assert "\n" not in str(raised.value)
    check_model(ModelConfig(name="MobileCLIP-S1", context_length=77))
