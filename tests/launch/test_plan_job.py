"""`jobs/pretrain.py --plan` says what a run would be, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from sclip.launch import cluster
from sclip.launch.capacity import Capacity
from sclip.launch.node_types import NodeType
from support.commands import command
from support.tars import pair, tar_bytes

job = command("pretrain")
NODES = (NodeType("head", 0, 0, 1, 1), NodeType("cpu", 16, 0, 0, 4), NodeType("gpu", 32, 4, 0, 2, "A100"))


@pytest.fixture(autouse=True)
def _growing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the job be on a cluster of a head that can grow."""
    monkeypatch.setattr(cluster, "connect", lambda: Capacity(128, 8, NODES))
    monkeypatch.setenv("COLUMNS", "100")


def test_no_flag_is_needed_to_use_all_that_the_cluster_can_grow_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "storage"
    assert job("--plan", f"run.storage={storage}") == 0
    said = capsys.readouterr().out
    for told in ("8 on GPUs, fsdp, fp32", "gpu: 2 asked for", "100,000 samples in 5 epochs: about "):
        assert told in said
    assert not storage.exists()


def test_the_samples_are_those_of_the_shards_in_all_epochs_at_the_prices_and_rates_that_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0.tar", "1.tar"):
        (tmp_path / name).write_bytes(tar_bytes([m for n in range(4) for m in pair(str(n))]))
    prices = tmp_path / "prices.json"
    prices.write_text('{"gpu": 10, "cpu": {"price": 1, "spot": true}, "head": 0, "currency": "USD"}')
    given = ("--prices", prices, "--rates", "worker=1,encoder=1,reader=9", f"run.storage={tmp_path}/storage")
    paper = ("--config", "paper", "model.pretrained=", "evaluate.suite=", f"data.shards={tmp_path}/*.tar")
    assert job("--plan", *paper, *given) == 0
    said = capsys.readouterr().out
    assert "80 samples in 10 epochs: about 8 a second, 1 min; workers are the limit (as given)" in said
    assert "cost: 24.00 USD an hour with all of these nodes" in said


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["data.shards=/nowhere/*.tar"], "no such shard"),
        (["train.worker_cpus=33", "train.num_workers=1"], "1 of the 1 workers have a place on no node"),
        (["--rates", "worker=fast"], "--rates 'worker=fast': write worker=N"),
        (["--prices", "/nowhere/prices.yaml"], "/nowhere/prices.yaml: cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_is_told_as_before_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], found: str
) -> None:
    assert job("--plan", f"run.storage={tmp_path / 'storage'}", *arguments) == 2
    assert found in capsys.readouterr().err
    assert not (tmp_path / "storage").exists()
