"""A dry run of the training step: its memory and its collectives, beside sums by hand and a real step."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from sclip.config import Config, KEEConfig, LossConfig, ModelConfig, RunConfig, TrainConfig
from sclip.model import build_model
from sclip.model.packing import pack
from sclip.train import sharding
from sclip.train.dry_run import DryRun, dry_run
from sclip.train.optimizer import make_optimizer
from sclip.train.step import TrainStep
from sclip.train.typical_batch import typical_columns
from support import small_vit

DEEP = "deep-vit"


@pytest.fixture(scope="module", autouse=True)
def _deep_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Register a ViT with enough blocks that a dry run leaves some of them out."""
    folder = tmp_path_factory.mktemp("models")
    towers = {key: small_vit.CONFIG[key] | {"layers": 11} for key in ("vision_cfg", "text_cfg")}
    (folder / f"{DEEP}.json").write_text(json.dumps(small_vit.CONFIG | towers))
    open_clip.add_model_config(folder)


def config_of(name: str = small_vit.PLAIN, loss: LossConfig | None = None, **train: Any) -> Config:
    model = ModelConfig(name=name, kee=KEEConfig(layers=1, heads=2))
    settings = {"batch_size": 256, "num_workers": 1, "sharding": "ddp", "use_gpu": True} | train
    run = RunConfig(init_from="earlier")
    return Config(model=model, loss=loss or LossConfig(), train=TrainConfig(**settings), run=run)


def parameter_bytes(config: Config) -> int:
    with torch.device("meta"):
        model = build_model(config.model, load_weights=False)
    return sum(4 * parameter.numel() for parameter in model.parameters())


def counts(step: DryRun) -> dict[str, int]:
    return {collectives.kind: collectives.count for collectives in step.collectives}


def real_peak(config: Config) -> int:
    """Return the peak of a real step on the CPU with the next batch at hand, by torch's own MemTracker."""
    torch.set_num_threads(1)
    model = build_model(config.model, load_weights=False)
    optimizer = make_optimizer(model, config.train)
    columns = pack(typical_columns(config, config.train.batch_size))
    columns["image"] = np.zeros((config.train.batch_size, 3, 32, 32), np.uint8)
    batch, next_batch = (
        {n: torch.from_numpy(np.ascontiguousarray(c).copy()) for n, c in columns.items()} for _ in range(2)
    )
    for parameter in model.parameters():  # DDP's buckets
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    tracker = MemTracker()
    tracker.track_external(model, optimizer, *batch.values(), *next_batch.values())
    with tracker:
        TrainStep(model, optimizer, config)(batch, 0.5)
    return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def test_a_replica_needs_what_its_parts_need_and_its_peak_is_that_of_a_real_step() -> None:
    config = config_of()
    step = dry_run(config, 8)
    size = parameter_bytes(config)
    assert step.parameters == pytest.approx(size, rel=0.01)
    assert step.gradients == pytest.approx(size, rel=0.01)
    assert step.moments == pytest.approx(2 * size, rel=0.01)
    assert step.peak == pytest.approx(real_peak(config), rel=0.05)
    assert not step.collectives


def test_the_peak_of_a_large_model_is_the_sum_of_its_parts_by_hand() -> None:
    """ViT-L/14 in bf16 on eight ranks of 128 rows. All activations exist at the peak, where backward begins."""
    model = ModelConfig(name="ViT-L-14", attention="lean", kee=KEEConfig(layers=6, heads=12))
    config = config_of(sharding="fsdp", batch_size=8 * 128, num_workers=8, precision="bf16")
    step = dry_run(dataclasses.replace(config, model=model), 8)

    def block(w: int) -> int:  # qkv, output, two matrices of the MLP; their biases; two norms
        return (3 + 1 + 4 + 4) * w**2 + (3 + 1 + 4 + 1) * w + 4 * w

    patches, words = 3 * 14 * 14 * 1024, 49408 * 768
    image = 24 * block(1024) + patches + (1 + 257) * 1024 + 4 * 1024 + 1024 * 768
    text = words + 77 * 768 + 12 * block(768) + 2 * 768 + 768 * 768
    encoder = 6 * block(768) + 4 * 768 + 768 * 768
    parameters = image + text + encoder + 1
    # Six captions or negatives of 13 tokens share a row of 80, and 32 of the 2 * 256 triples a row.
    tokens, triples = 80 * -(-256 // 6), 2 * 256
    # Backward of a block needs its input, the results of both norms, q, k and v, what attention returns, the sum after
    # it, and the input and the result of GELU.
    kept = 1 + 2 + 3 + 1 + 1 + 4 + 4
    block_elements = 24 * 128 * 257 * 1024 + 12 * tokens * 768 + 6 * triples * 768
    activations = 2 * kept * block_elements + 2 * 128 * 257 * 1024  # the stem's sum, before its norm
    pixels = 128 * 3 * 224**2
    batches = 2 * pixels + 2 * pixels  # bytes of this batch and the next, and pixels in bf16
    logits = 2 * 4 * 128 * 1024
    # The root's own parameters, and the group that backward begins with.
    gathered = 2 * (text - 12 * block(768) + encoder)
    assert step.parameters == pytest.approx(4 * parameters / 8, rel=0.01)
    assert step.moments == pytest.approx(8 * parameters / 8, rel=0.01)
    # No gradient exists yet.
    assert step.peak == pytest.approx(
        12 * parameters / 8 + activations + batches + logits + gathered, rel=0.05
    )


def test_shards_divide_parameters_and_moments_and_a_step_gathers_and_reduces_them() -> None:
    config = config_of(sharding="fsdp", num_workers=8)
    step = dry_run(config, 8)
    size = parameter_bytes(config)
    assert step.parameters == pytest.approx(size / 8, rel=0.01)
    assert step.moments == pytest.approx(2 * size / 8, rel=0.01)
    reduced = next(c.size_bytes for c in step.collectives if c.kind == "reduce-scatter")
    assert reduced == pytest.approx(size, rel=0.05)
    assert counts(step)["all-gather"] > counts(step)["reduce-scatter"]
    averaged = dry_run(config_of(sharding="fsdp", num_workers=8, ema_decay=0.9), 8)
    assert averaged.parameters - step.parameters == pytest.approx(size / 8, rel=0.01)


def test_replicas_reduce_their_gradients_and_groups_of_ranks_their_shards() -> None:
    config = config_of(num_workers=4)
    reduced = sum(c.size_bytes for c in dry_run(config, 8).collectives if c.kind == "all-reduce")
    assert reduced == pytest.approx(parameter_bytes(config), rel=0.01)
    elastic = config_of(sharding="auto", precision="bf16", num_workers=4, min_workers=2)
    in_bf16, autocast = (dry_run(c, 8) for c in (elastic, config_of(precision="bf16", num_workers=4)))
    summed = sum(c.size_bytes for c in in_bf16.collectives if c.kind == "all-reduce")
    assert summed == pytest.approx(parameter_bytes(config), rel=0.01)
    assert in_bf16.parameters == autocast.parameters
    assert in_bf16.peak < autocast.peak
    groups = dry_run(config_of(sharding="hsdp", num_workers=4), ranks_per_node=2)
    assert groups.parameters == pytest.approx(parameter_bytes(config) / 2, rel=0.01)
    assert counts(groups)["all-reduce"] >= counts(groups)["reduce-scatter"]


@pytest.mark.parametrize("train", [{}, {"batch_size": 4096, "sharding": "fsdp", "num_workers": 4}])
def test_figures_of_some_blocks_are_extrapolated_to_those_of_all_blocks(train: dict[str, Any]) -> None:
    config = config_of(DEEP, **{"batch_size": 1024} | train)
    some, all_blocks = dry_run(config, 8), dry_run(config, 8, all_blocks=True)
    assert some.parameters == all_blocks.parameters
    assert some.peak == pytest.approx(all_blocks.peak, rel=0.03)
    assert counts(some) == counts(all_blocks)


def test_smaller_parts_of_a_batch_need_less_memory_and_a_large_model_gathers_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = {"sharding": "fsdp", "num_workers": 2, "batch_size": 1024}
    whole, halves, eighths = (
        dry_run(config_of(DEEP, micro_batch=rows, **shared), 8) for rows in (0, 256, 64)
    )
    assert eighths.peak < halves.peak < whole.peak
    assert counts(eighths) == counts(halves)
    monkeypatch.setattr(sharding, "WHOLE", 0)
    few, many = (
        counts(dry_run(config_of(DEEP, micro_batch=rows, **shared), 8))["all-gather"] for rows in (256, 64)
    )
    assert 3 * few < many <= 4 * few  # the loss gathers once in any case


def test_all_rows_of_a_batch_are_on_the_device_however_small_its_parts_are() -> None:
    shared = {"sharding": "fsdp", "num_workers": 2, "micro_batch": 16}
    few, many = (dry_run(config_of(batch_size=rows, **shared), 8) for rows in (512, 4096))
    pixels = 3 * 32 * 32 * (4096 - 512) // 2
    assert many.activations - few.activations > 2 * pixels  # the next batch is there too


def test_a_teacher_is_counted_with_its_parameters() -> None:
    plain = dry_run(config_of(), 8)
    taught = dry_run(config_of(loss=LossConfig(distil=1.0)), 8)
    assert 1.5 * plain.parameters < taught.parameters < 2 * plain.parameters
    assert taught.moments == plain.moments
