"""Checkpoint options through the worker loop, on one gloo rank: what stands in for Ray hands out blocks of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sclip.config import CheckpointConfig, ConfigError
from sclip.data.reader import ReadSettings
from sclip.data.schedule import Schedule
from sclip.data.stream import StreamPlan
from sclip.model import image_size
from sclip.train import checkpoint, loop, manifest
from sclip.train.ema import EMA
from sclip.train.manifest import CheckpointError
from sclip.train.run_folder import RunFolder
from sclip.train.step import unwrapped
from support.stream_blocks import placed, samples
from support.train_cases import MODEL, ROWS, config_with, start, training_batch

STEPS = 3


@pytest.fixture(autouse=True)
def _one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def block(number: int) -> dict[str, Any]:
    """Return the rows of a step as the stream hands them out."""
    batch = training_batch(number)
    columns: dict[str, Any] = {name: tensor.numpy() for name, tensor in batch.items() if name != "valid"}
    return columns | placed(samples(0, ROWS, first=number * ROWS))


def trained(folder: Path, ema_decay: float = 0.0, **keep: Any) -> list[dict[str, Any]]:
    """Train three steps with a checkpoint after each; return what was reported."""
    config = config_with(ema_decay=ema_decay, log_every=1, warmup=0.0)
    config = dataclasses.replace(config, checkpoint=CheckpointConfig(**({"every": 1} | keep)))
    blocks = [block(number) for number in range(STEPS)]
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    shard = SimpleNamespace(iter_batches=lambda **_: iter(blocks))
    train = SimpleNamespace(get_context=lambda: context, get_dataset_shard=lambda name: shard)
    reports: list[dict[str, Any]] = []
    folder.mkdir()
    sources = (("/data/0.tar",),)
    plan = StreamPlan(ReadSettings(config), Schedule(0, 1, (1,)), sources, image_size(MODEL.name), (1, 1))
    queue: Any = SimpleNamespace(put_nowait=reports.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "ray", SimpleNamespace(train=train))
        patch.setattr(loop, "get_device", lambda: torch.device("cpu"))
        loop.train_worker(loop.TrainJob(plan, folder, STEPS * ROWS, queue))
    return reports


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in RunFolder(folder).checkpoints()]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_every_checkpoint_is_told_once_it_is_whole_and_the_run_ends_with_the_last(
    tmp_path: Path, asynchronous: bool
) -> None:
    reports = trained(tmp_path / "run", asynchronous=asynchronous, keep_last=9)
    assert steps(tmp_path / "run") == [3, 2, 1]
    told = [report for report in reports if report["kind"] == "checkpoint"]
    assert [report["step"] for report in told] == [1, 2, 3]
    assert all(manifest.verify(report["path"]) == "" for report in told)
    complete = RunFolder(tmp_path / "run").complete
    assert complete is not None
    assert complete["checkpoint"] == "step-00000003"
    if not asynchronous:
        order = [(report["kind"], report["step"]) for report in reports if report["kind"] != "start"]
        assert order == [(kind, n) for n in (1, 2, 3) for kind in ("metrics", "checkpoint")]


def test_the_newest_and_the_best_by_a_reported_metric_stay(tmp_path: Path) -> None:
    reports = trained(tmp_path / "run", keep_last=1, keep_best=1, best_is="highest")
    losses = {r["step"]: r["metrics"]["loss"] for r in reports if r["kind"] == "metrics"}
    highest = max(losses, key=lambda step: losses[step])
    assert highest < 3  # or the newest alone would do
    assert steps(tmp_path / "run") == [3, highest]


def test_a_best_metric_that_nobody_reports_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"checkpoint\.best_metric='accuracy': no such metric; one of .*loss"
    ):
        trained(tmp_path / "run", keep_best=1, best_metric="accuracy")


def test_a_budget_that_no_checkpoint_fits_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint\.disk_budget_gb=1e-06"):
        trained(tmp_path / "run", disk_budget_gb=1e-6)
    assert steps(tmp_path / "run") == []


def test_the_average_of_the_weights_is_kept_where_the_config_asks_for_it(tmp_path: Path) -> None:
    trained(tmp_path / "averaged", ema_decay=0.5)
    trained(tmp_path / "raw")
    step = start(config_with())
    ema = EMA(unwrapped(step.model), 0.5)
    checkpoint.load(tmp_path / "averaged" / "step-00000003", step.model, step.optimizer, ema)
    weights = unwrapped(step.model).state_dict()
    assert max(float((average - weights[name]).abs().max()) for name, average in ema.weights.items()) > 1e-5
    with pytest.raises(CheckpointError, match=r"missing in it \(ema\."):
        checkpoint.load(tmp_path / "raw" / "step-00000003", step.model, step.optimizer, ema)
