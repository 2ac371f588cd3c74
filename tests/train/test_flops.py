"""Operations of a step: equal to torch's count without padding, and none for padding or absent parts."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sclip.config import Config, KEEConfig, LossConfig, ModelConfig, RunConfig, TrainConfig
from sclip.model import build_model, structure_loss
from sclip.train.flops import StepFlops, peak_flops
from sclip.train.sharding import apply
from sclip.train.step import unwrapped
from support.small_model import END, SMALL, small_model

Columns = dict[str, NDArray[Any]]

CONTEXT = 24
VIT = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "head_width": 16, "layers": 2},
    "text_cfg": {"context_length": CONTEXT, "width": 64, "heads": 4, "layers": 3},
}
DEEP = ModelConfig(name=SMALL.name, kee=KEEConfig(layers=2, heads=4, form="concatenation"))


def columns(rows: int, length: int = CONTEXT, triples: int = 6, negatives: bool = True) -> Columns:
    """Return a batch of captions of `length` tokens and `triples` triples, each with a negative of the same size."""
    text = np.zeros((rows, CONTEXT), np.int32)
    text[:, :length] = 5
    text[:, length - 1] = END
    caption_triples = np.full((rows, 6, 3, 5), -1, np.int32)
    caption_triples[:, :triples] = 7
    batch: Columns = {
        "image": np.zeros((rows, 3, 64, 64), np.uint8), "text": text, "triples": caption_triples,
        "image_digest": np.arange(rows), "valid": np.ones(rows, bool),
    }  # fmt: skip
    if negatives:
        batch |= {
            "negative_text": text[:, None], "negative_triples": caption_triples[:, None],
            "has_negative": np.ones((rows, 1), bool),
        }  # fmt: skip
    return batch


def flops_of(model: ModelConfig = DEEP, loss: LossConfig | None = None, **train: Any) -> StepFlops:
    torch.manual_seed(0)
    loss = loss or LossConfig()
    if loss.contrastive == "sigmoid":
        model = dataclasses.replace(model, logit_bias=-10.0)
    config = Config(model=model, loss=loss, train=TrainConfig(**train))
    return StepFlops(build_model(model), config)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of an architecture without grouped convolutions; torch counts their backward pass as ungrouped."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "flops-vit.json").write_text(json.dumps(VIT))
    open_clip.add_model_config(folder)
    return "flops-vit"


def counted_by_torch(model: Any, batch: Columns) -> int:
    """Return the operations that torch counts for a step on eight rows, forward and backward."""
    tensors = {name: torch.from_numpy(column) for name, column in batch.items()}
    # The counter does not know the fused attention of CPUs.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        structure_loss(model.train()(tensors), tensors, LossConfig())[0].backward()
    # torch omits the gradient of images: half of the first layer's backward pass.
    patches = 8 * 2 * (64 * 16 * 16 * 3) * 16
    return int(counter.get_total_flops()) + patches


@pytest.mark.parametrize(("negatives", "kee"), [(False, False), (True, True)])
def test_operations_without_padding_equal_the_count_of_torch(vit: str, negatives: bool, kee: bool) -> None:
    model = small_model(
        config=dataclasses.replace(DEEP, name=vit, kee=dataclasses.replace(DEEP.kee, enabled=kee))
    )
    batch = columns(8, negatives=negatives)
    if not kee:
        batch = {name: column for name, column in batch.items() if "triples" not in name}
    before = {name: tensor.clone() for name, tensor in model.eval().state_dict().items()}
    flops = StepFlops(model, Config(model=model.config))(batch)
    assert not model.clip.visual.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert flops == pytest.approx(counted_by_torch(model, batch), rel=1e-3)


def test_padding_absent_negatives_empty_slots_and_unseen_triples_cost_nothing() -> None:
    flops = flops_of()
    unseen = flops_of(dataclasses.replace(DEEP, kee=dataclasses.replace(DEEP.kee, on_negatives=False)))
    bare = {name: column for name, column in columns(8).items() if name != "negative_triples"}
    assert unseen(columns(8)) == unseen(bare) < flops(columns(8))
    alone = flops(columns(8, length=10, triples=2, negatives=False))
    without = columns(8, length=10, triples=2)
    without["has_negative"][:] = False
    assert flops(without) == alone
    padded = columns(12, length=10, triples=2, negatives=False)
    padded["valid"][8:] = False
    assert flops(padded) == alone
    for length, triples, negatives in ((10, 2, True), (11, 2, False), (10, 3, False)):
        assert flops(columns(8, length, triples, negatives)) > alone


def test_counted_logits_are_those_that_the_loss_computes() -> None:
    for loss, candidates in (
        (LossConfig(), 2 * 4),
        (LossConfig(contrastive="sigmoid"), 4),
        (LossConfig(negatives_as_texts=True), 3 * 4),
    ):
        flops, batch = flops_of(loss=loss), columns(4)
        assert flops(batch, world_size=3) - flops(batch) == 2 * 3 * 4 * candidates * 2 * 96


def test_a_teacher_costs_its_forward_pass_and_the_logits_of_both(vit: str) -> None:
    plain = Config(run=RunConfig(init_from="start"), model=dataclasses.replace(DEEP, name=vit))
    model, batch = small_model(config=plain.model), columns(8)
    config = dataclasses.replace(plain, loss=LossConfig(distil=1.0))
    captions = {name: torch.from_numpy(c) for name, c in batch.items() if "negative" not in name}
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.train()(captions)
    logits = (3 + 1) * 2 * (2 * 8 * 8 * 96)
    flops = StepFlops(model, config, model)(batch) - StepFlops(model, plain)(batch)
    assert flops == pytest.approx(counter.get_total_flops() + logits, rel=1e-3)


@pytest.mark.parametrize("own", [False, True])
def test_a_frozen_encoder_passes_gradients_on_to_the_words_that_are_trained(own: bool, vit: str) -> None:
    kee = dataclasses.replace(DEEP.kee, own_embeddings=own)
    config = Config(model=dataclasses.replace(DEEP, name=vit, kee=kee), train=TrainConfig(lr_scale_kee=0))
    model = apply(small_model(config=config.model), config.train, torch.device("cpu"))
    batch = columns(8)
    flops = StepFlops(unwrapped(model), config)(batch)
    assert flops == pytest.approx(counted_by_torch(model, batch), rel=1e-3)


def test_peaks_are_known_by_name_and_precision_and_not_taken_from_a_similar_name() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989.4e12
    assert peak_flops("NVIDIA GeForce RTX 4090", "fp32") == 82.6e12
    for name in (
        "some CPU",
        "NVIDIA H20",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    ):
        assert peak_flops(name, "bf16") is None
