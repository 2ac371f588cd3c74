"""One architecture of each kind trains, is exported and loads again. The files of a hub are made here."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.distributed as dist
from open_clip.tokenizer import HFTokenizer
from torch.distributed.tensor import DTensor

from sclip.benchmark import towers_cut, towers_hub
from sclip.config import Config, KEEConfig, ModelConfig, RunConfig, TrainConfig
from sclip.evaluate.encoder_pool import _Actor
from sclip.inference.convert import opened
from sclip.inference.scorer import Scorer
from sclip.model import ModelError, Tokenizer, build_model, check_model
from sclip.model.architecture import pretrained_normalisation
from sclip.model.build import meta_model, parameter_count, unpackable_reason
from sclip.model.export import export, export_clip, load_exported
from sclip.model.packing import text_lengths
from sclip.model.tokenizer import PADDING
from sclip.model.towers import block_lists
from sclip.storage.paths import sizes
from sclip.train.dry_run import dry_run
from sclip.train.sharding import needs_autocast
from support.small_vit import CONFIG, PLAIN, RESNET

SIGLIP_NAME, XLM_V = "timm/ViT-B-16-SigLIP", "facebook/xlm-v-base"
ROBERTA, MT5 = "roberta-base", "google/mt5-base"
_TEXT = {"width": 64, "heads": 2, "layers": 2}
_SIGLIP: dict[str, Any] = {
    "context_length": 64, "vocab_size": towers_hub.WORDS, "hf_tokenizer_name": SIGLIP_NAME, "no_causal_mask": True,
    "tokenizer_kwargs": {"clean": "canonicalize"}, "pool_type": "last", "proj_bias": True, **_TEXT,
}  # fmt: skip
_TIMM = {
    "image_size": 224,
    "timm_model_name": "vit_base_patch16_siglip_224",
    "timm_pool": "map",
    "timm_proj": "none",
}
_COCA = CONFIG["vision_cfg"] | {"output_tokens": True, "attentional_pool": True, "attn_pooler_heads": 2}
_CLASS = {"context_length": 15, "vocab_size": 49408, "embed_cls": True, "output_tokens": True, **_TEXT}
MADE: dict[str, dict[str, Any]] = {
    "small-siglip": {"embed_dim": 768, "init_logit_bias": -10, "custom_text": True, "vision_cfg": _TIMM,
                     "text_cfg": _SIGLIP},
    "small-coca": {"embed_dim": 32, "custom_text": True, "vision_cfg": _COCA, "text_cfg": _CLASS,
                   "multimodal_cfg": {"context_length": 15, "vocab_size": 49408, "attn_pooler_heads": 2, **_TEXT}},
    "small-worldwide": CONFIG | {"text_cfg": {"context_length": 16, "vocab_size": towers_hub.WORDS, "eos_id": 2,
                                              "hf_tokenizer_name": XLM_V, "pool_type": "eos", **_TEXT}},
    "small-roberta": CONFIG | {"text_cfg": {"hf_model_name": ROBERTA, "hf_tokenizer_name": ROBERTA}},
    "small-mt5": CONFIG | {"text_cfg": {"hf_model_name": MT5, "hf_tokenizer_name": MT5,
                                        "hf_pooler_type": "cls_pooler"}},
}  # fmt: skip
HUB = {
    "small-siglip": SIGLIP_NAME,
    "small-worldwide": XLM_V,
    "small-roberta": ROBERTA,
    "small-mt5": MT5,
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Register the architectures above; return a folder with the hub files that they need."""
    configs, folder = tmp_path_factory.mktemp("configs"), tmp_path_factory.mktemp("hub")
    torch.set_num_threads(1)
    for name, config in MADE.items():
        (configs / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(configs)
    for name in HUB.values():
        towers_hub.make(folder, name, cut=True)
    return folder


def config_of(name: str, hub_folder: Path) -> ModelConfig:
    return ModelConfig(name=name, hub_folder=str(hub_folder), kee=KEEConfig(layers=1))


@pytest.mark.parametrize("name", [PLAIN, RESNET, *MADE])
def test_each_kind_takes_two_steps_and_its_export_has_its_features_here_and_in_open_clip(
    name: str, hub: Path, tmp_path: Path
) -> None:
    # In a group of one rank, DDP refuses the second step if a parameter had no gradient in the first.
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        towers_cut.check(name, hub, tmp_path)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("name", ["small-coca", "small-roberta", "small-mt5", "swin_base_patch4_window7_224"])
def test_a_step_of_another_tower_can_be_dry_run_in_bf16(name: str, hub: Path) -> None:
    train = TrainConfig(batch_size=16, num_workers=2, sharding="fsdp", precision="bf16", use_gpu=True)
    config = Config(model=config_of(name, hub), train=train, run=RunConfig(init_from="earlier"))
    step = dry_run(config, 2)
    assert step.parameters == pytest.approx(4 * parameter_count(config.model) / 2, rel=0.01)
    assert step.activations > 0


@pytest.mark.parametrize("name", [RESNET, "small-coca", "small-worldwide"])
def test_towers_train_in_bfloat16_by_fsdp2_except_those_with_buffers_in_fp32(
    name: str, hub: Path, tmp_path: Path
) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = build_model(config_of(towers_cut.cut_config(name, tmp_path), hub))
        towers_cut.train(model, "bf16")
        assert {isinstance(p, DTensor) for p in model.parameters()} == {name != RESNET}
    finally:
        dist.destroy_process_group()


def test_a_tower_with_other_buffers_in_fp32_than_masks_needs_autocast(hub: Path) -> None:
    names = (PLAIN, RESNET, "swin_base_patch4_window7_224", "vit_relpos_medium_patch16_cls_224")
    needs = {name: needs_autocast(meta_model(config_of(name, hub))) for name in names}
    assert list(needs.values()) == [False, True, False, True]


@pytest.mark.parametrize("name", [PLAIN, "small-worldwide", "small-siglip", "small-roberta"])
def test_the_scorer_leaves_padding_out_where_the_tower_allows_it_and_changes_no_feature(
    name: str, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(towers_cut.cut_config(name, tmp_path), hub)
    scorer = Scorer(build_model(dataclasses.replace(config, kee=KEEConfig(enabled=False))))
    texts = [*towers_hub.CAPTIONS, "", "a"]
    ids = torch.from_numpy(Tokenizer(config).text(texts)).long()
    whole = scorer.model.encode_text(ids)
    widths, encode = set(), scorer.model.encode_text
    monkeypatch.setattr(
        scorer.model, "encode_text", lambda text, *args: (widths.add(text.shape[1]), encode(text, *args))[1]
    )
    torch.testing.assert_close(scorer.encode_text(texts, 2), whole, rtol=0, atol=1e-5)
    assert (min(widths) < ids.shape[1]) == scorer.model.packs_text


def test_only_causal_towers_whose_feature_is_the_end_tokens_are_packed(hub: Path) -> None:
    reasons = {name: unpackable_reason(config_of(name, hub)) for name in (PLAIN, RESNET, *MADE)}
    assert [name for name, reason in reasons.items() if not reason] == [PLAIN, RESNET, "small-worldwide"]
    assert "not causal" in reasons["small-siglip"]
    assert "class token" in reasons["small-coca"]
    assert "Hugging Face" in reasons["small-mt5"]


@pytest.mark.parametrize("name", HUB)
def test_ids_of_hub_tokenizers_equal_open_clips_and_phrases_have_no_special_tokens(
    name: str, hub: Path
) -> None:
    tokenizer = Tokenizer(config_of(name, hub))
    text = MADE[name]["text_cfg"]
    theirs = HFTokenizer(str(hub / HUB[name]), tokenizer.context_length, **text.get("tokenizer_kwargs", {}))
    captions = ["A brown  dog, on a sofa!", "", *towers_hub.CAPTIONS, " ".join(towers_hub.CAPTIONS * 9)]
    ids, expected = tokenizer.text(captions), theirs(captions).numpy()
    lengths = (
        text_lengths(expected)
        if name == "small-siglip"
        else (expected != theirs.tokenizer.pad_token_id).sum(1)
    )
    for row, their_ids, length in zip(ids, expected, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], their_ids[:length])
    if not unpackable_reason(config_of(name, hub)):
        np.testing.assert_array_equal(text_lengths(ids), lengths)
    triples = tokenizer.triples([[("dog", "on", "sofa")]])
    assert not set(triples[triples != PADDING].tolist()) & tokenizer.special_ids
    end = tokenizer.read_end(captions[-1])
    words = captions[-1][end:].split()
    assert 0 < end < len(captions[-1])
    kept = tokenizer.text([captions[-1][:end], f"{captions[-1][:end]} {words[0]}", captions[-1]])
    assert tokenizer.read_end(captions[-1][:end]) == end
    assert (kept[1] == kept[2])[:-2].all()  # the first word that does not fit is cut like the whole caption


def test_an_export_is_complete_without_the_hub_and_missing_hub_files_are_named(
    hub: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(hub, tmp_path / "hub")
    config = config_of("small-roberta", copied)
    torch.manual_seed(0)
    model = build_model(config).eval()
    exported = export(model, tmp_path / "export")
    shutil.rmtree(copied)
    assert str(tmp_path) not in "".join(file.read_text() for file in exported.rglob("*.json"))
    again = load_exported(exported)
    ids = torch.from_numpy(Tokenizer(again.config).text(towers_hub.CAPTIONS))
    assert torch.equal(again.encode_text(ids), model.encode_text(ids))
    with pytest.raises(ModelError, match=r"^model\.name=.* model\.hub_folder=.*has no folder roberta-base"):
        Tokenizer(config)
    too_long = dataclasses.replace(again.config, context_length=513)
    with pytest.raises(ModelError, match=r"^model\.context_length=513: small-roberta has 512 positions"):
        check_model(too_long)
    (copied / ROBERTA).mkdir(parents=True)
    with pytest.raises(ModelError, match=r"cannot be loaded .*put its files into model\.hub_folder=FOLDER"):
        build_model(config)


@torch.no_grad()
def test_training_mode_keeps_batch_statistics_and_has_no_dropout_in_hugging_face_towers(hub: Path) -> None:
    resnet = build_model(config_of(RESNET, hub)).train()
    before = {name: tensor.clone() for name, tensor in resnet.named_buffers()}
    resnet.encode_image(torch.full((2, 3, 32, 32), 200, dtype=torch.uint8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.named_buffers())
    roberta = build_model(config_of("small-roberta", hub)).train()
    ids = torch.from_numpy(Tokenizer(roberta.config).text(towers_hub.CAPTIONS))
    assert torch.equal(roberta.encode_text(ids), roberta.encode_text(ids))
    assert roberta.kee is not None
    assert roberta.kee.training


def test_an_architecture_has_a_normalisation_if_all_its_weights_share_it() -> None:
    means = {
        name: pretrained_normalisation(name).get("mean", ())[:1]
        for name in ("ViT-B-16-SigLIP2", "MobileCLIP2-S0", PLAIN)
    }
    assert means == {"ViT-B-16-SigLIP2": (0.5,), "MobileCLIP2-S0": (0.0,), PLAIN: ()}


def test_weights_load_into_their_own_kind_of_text_tower_and_are_refused_by_another(
    hub: Path, tmp_path: Path
) -> None:
    coca = build_model(config_of("small-coca", hub)).eval()
    again = opened(
        export_clip(coca, tmp_path / "clip"), "small-coca"
    ).model  # its class token has a position too
    ids = torch.from_numpy(Tokenizer(coca.config).text(towers_hub.CAPTIONS))
    assert torch.equal(again.encode_text(ids), coca.encode_text(ids))
    plain = export(build_model(config_of(PLAIN, hub)), tmp_path / "plain")
    with pytest.raises(ModelError, match=r"positional_embedding"):
        build_model(dataclasses.replace(config_of("small-roberta", hub), pretrained=str(plain)))


def test_nothing_that_a_hub_folder_holds_is_executed(hub: Path, tmp_path: Path) -> None:
    (folder := tmp_path / ROBERTA).mkdir()
    (folder / "own.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Own: pass\n")
    (folder / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        check_model(config_of("small-roberta", tmp_path))
    assert not (tmp_path / "executed").exists()


def test_t5_has_one_list_of_blocks_and_an_actor_gets_the_hub_files(hub: Path, tmp_path: Path) -> None:
    model = build_model(config_of("small-mt5", hub)).eval()
    assert [name for name in block_lists(model.clip.text) if "block" in name] == ["transformer.block"]
    scorer = Scorer(model)
    folder = scorer.save(tmp_path)
    actor = _Actor({name: (folder / name).read_bytes() for name in sizes(folder)}, "cpu", 2)
    assert torch.equal(actor.captions(["a dog"]), scorer.encode_text(["a dog"]))
