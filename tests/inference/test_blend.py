"""Blends of two models: the ends bit for bit, the weights between, and what cannot be blended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sclip
from sclip.config import KEEConfig, ModelConfig
from sclip.inference.blend import blended, check
from sclip.inference.scorer import Scorer
from sclip.model import ModelError, build_model
from support.small_model import CAPTIONS, SMALL, assert_same_weights, small_model
from support.small_vit import PLAIN, QUICK, RESNET

WITHOUT = replace(SMALL, kee=KEEConfig(enabled=False))


def scorer(seed: int, config: ModelConfig = SMALL) -> Scorer:
    return Scorer(small_model(seed, config))


def test_the_ends_are_the_two_models_and_the_weights_between_are_their_weighted_mean(tmp_path: Path) -> None:
    start, trained = scorer(0), scorer(1)
    assert blended(start, trained, 0.0) is start
    assert blended(start, trained, 1.0) is trained
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    middle = blended(start, trained, 0.3)
    for name, tensor in middle.model.state_dict().items():
        mean = 0.7 * start.model.state_dict()[name].double() + 0.3 * before[name].double()
        torch.testing.assert_close(tensor, mean.float(), msg=name)
        assert torch.equal(
            trained.model.state_dict()[name], before[name]
        )  # the trained model stays as it was
    loaded = sclip.load(middle.save(tmp_path / "model"))
    assert torch.equal(loaded.encode_text(CAPTIONS), middle.encode_text(CAPTIONS))
    assert_same_weights(blended(start, scorer(0), 0.3).model, start.model)


def test_a_knowledge_encoder_missing_in_the_start_is_kept_with_its_weight_scaled_by_a() -> None:
    start, trained = scorer(0, WITHOUT), scorer(1)
    assert [note.split(",")[0] for note in check(start, trained)] == ["knowledge encoder"]
    num_batches = "clip.visual.bn1.num_batches_tracked"  # integer tensors are taken from the trained model
    resnet = ModelConfig(name=RESNET, kee=KEEConfig(enabled=False))
    one, other = Scorer(build_model(resnet)), Scorer(build_model(resnet))
    other.model.state_dict()[num_batches].fill_(7)
    assert blended(one, other, 0.5).model.state_dict()[num_batches] == 7
    middle = blended(start, trained, 0.25).model
    assert_same_weights(middle, trained.model, "kee.")
    assert middle.config.kee.weight == pytest.approx(0.25 * SMALL.kee.weight)
    with pytest.raises(ModelError, match=r"cannot be blended: kee.*: float32 .* and none; .*; \d+ more"):
        blended(trained, start, 0.5)


@pytest.mark.parametrize(
    ("start", "trained", "message"),
    [
        (SMALL, replace(SMALL, kee=replace(SMALL.kee, layers=2)), r"kee\.layers\.1\..*: none and float32"),
        (SMALL, replace(SMALL, kee=replace(SMALL.kee, heads=2)), "model.kee: .*heads=4.* and .*heads=2"),
        (replace(WITHOUT, name=PLAIN), replace(WITHOUT, name=QUICK), f"architecture: {PLAIN} and {QUICK}"),
        (WITHOUT, replace(WITHOUT, name=PLAIN), r"architecture: .*; clip\..*: .* and .*; \d+ more"),
    ],
    ids=["depth", "heads", "activation", "architecture"],
)
def test_models_that_differ_are_refused_with_their_first_differences(
    start: ModelConfig, trained: ModelConfig, message: str
) -> None:
    with pytest.raises(ModelError, match=f"cannot be blended: {message}"):
        blended(scorer(0, start), scorer(0, trained), 0.5)


@pytest.mark.parametrize("a", [-0.1, 1.001, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(a: float) -> None:
    model = scorer(0)
    with pytest.raises(ModelError, match=r"must be from 0 \(the start\) to 1"):
        blended(model, model, a)
