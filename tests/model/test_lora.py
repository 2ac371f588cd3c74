"""Low-rank updates of the towers are zero at the start, merge into a plain model, and need transformer blocks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import open_clip
import pytest
import torch

from sclip.config import ConfigError, KEEConfig, LoRAConfig, ModelConfig
from sclip.config.loader import from_tree
from sclip.model import ModelError, build_model, check_trainable, lora
from sclip.model.build import parameter_count
from sclip.model.export import export, export_clip, load_exported
from support.small_vit import RESNET
from support.train_cases import MODEL, VIT, config_with, start, training_batch

UPDATES = LoRAConfig(rank=2, alpha=8.0)
TIMM = "test_vit"
"""A tower of timm, whose q, k and v are one linear layer."""


@pytest.fixture(scope="module", params=["open_clip", TIMM])
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    if request.param == "open_clip":
        return VIT
    folder, name = tmp_path_factory.mktemp("models"), "updated-timm"
    tree = open_clip.get_model_config(VIT.name)
    tree["vision_cfg"] = {"timm_model_name": TIMM, "image_size": 160, "timm_pool": "avg"}
    (folder / f"{name}.json").write_text(json.dumps(tree))
    open_clip.add_model_config(folder)
    return dataclasses.replace(VIT, name=name)


@torch.no_grad()
def test_updates_start_at_zero_and_merging_them_into_a_plain_model_changes_no_feature(
    config: ModelConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    plain, batch = build_model(config).eval(), training_batch(0, config)
    model = start(config_with(model=dataclasses.replace(config, lora=UPDATES))).model.eval()
    before = plain(batch)
    torch.testing.assert_close(model(batch), before, rtol=0, atol=0)
    updates = [module for module in model.modules() if isinstance(module, lora.LowRank)]
    assert all(update.scale == 4.0 for update in updates)
    for update in updates:
        update.up.normal_(std=0.2)
    unmerged = model(batch)
    assert min((unmerged[name] - before[name]).abs().max() for name in unmerged if "features" in name) > 0.01
    lora.merge(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    torch.testing.assert_close(model(batch), unmerged, rtol=0, atol=1e-6)
    assert "lora" not in (export(model, tmp_path / "ours") / "config.json").read_text()
    torch.testing.assert_close(load_exported(tmp_path / "ours")(batch), unmerged, rtol=0, atol=1e-6)
    clip = open_clip.create_model(f"local-dir:{export_clip(model, tmp_path / 'clip')}").eval()
    text = torch.nn.functional.normalize(clip.encode_text(batch["text"]), dim=-1)
    torch.testing.assert_close(text, model.encode_text(batch["text"]), rtol=0, atol=1e-6)


def test_only_updates_knowledge_encoder_and_logit_scale_are_trained() -> None:
    config = dataclasses.replace(VIT, lora=UPDATES)
    step = start(config_with(model=config))
    # The plan counts as many parameters as the run, so that both choose the same sharding.
    parameters = sum(parameter.numel() for parameter in step.model.parameters())
    assert parameter_count(VIT) < parameter_count(config) == parameters
    before = {name: p.detach().clone() for name, p in step.model.named_parameters()}
    for number in range(3):
        step(training_batch(number, VIT), 0.3)
    moved = {name for name, p in step.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in step.model.named_parameters() if p.requires_grad}
    assert moved == {name for name in before if lora.is_stored(name)}
    # Two towers of two blocks. Each block has four updates: q, k and v jointly, their output, both MLP layers.
    assert sum(name.endswith(".lora.up") for name in moved) == 2 * 2 * 4
    decays = {p: group["weight_decay"] for group in step.optimizer.param_groups for p in group["params"]}
    assert decays.keys() == {p for name, p in step.model.named_parameters() if name in moved}
    assert all(decays[p] > 0 for name, p in step.model.named_parameters() if ".lora." in name)


@pytest.mark.parametrize("name", [MODEL.name, RESNET])
def test_a_tower_without_transformer_blocks_is_refused(name: str) -> None:
    config = ModelConfig(name=name, kee=KEEConfig(heads=2), lora=UPDATES)
    with pytest.raises(
        ModelError, match=rf"model\.lora\.rank=2: the image tower of {name} has no transformer"
    ):
        check_trainable(config)


def test_updates_of_random_weights_are_refused() -> None:
    tree = {"model": {"lora": {"rank": 4}}}
    with pytest.raises(ConfigError, match=r"model\.lora\.rank=4: LoRA needs trained weights; set"):
        from_tree(tree)
    assert from_tree(tree | {"run": {"init_from": "first"}}).model.lora.alpha == 16.0
