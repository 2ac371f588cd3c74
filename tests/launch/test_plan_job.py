"""`jobs/pretrain.py --plan` shows what a run would be, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from sclip.launch import cluster
from sclip.launch.capacity import Capacity
from sclip.launch.node_types import NodeType
from sclip.launch.plan import memory
from sclip.train.dry_run import DryRun
from support.commands import command
from support.tars import pair, tar_bytes

job = command("pretrain")
NODES = (NodeType("head", 0, 0, 1, 1), NodeType("cpu", 16, 0, 0, 4), NodeType("gpu", 32, 4, 0, 2, "A100"))


@pytest.fixture(autouse=True)
def _growing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attach the job to a pretended cluster: a head, and nodes that can be added."""
    monkeypatch.setattr(cluster, "connect", lambda: Capacity(128, 8, NODES))
    monkeypatch.setenv("COLUMNS", "100")


def test_a_plan_uses_all_nodes_that_the_cluster_can_add_without_any_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "storage"
    assert job("--plan", f"run.storage={storage}") == 0
    output = capsys.readouterr().out
    for text in ("8 on GPUs, ddp, fp32", "gpu: 2 asked for", "100,000 samples in 5 epochs: about "):
        assert text in output
    assert not storage.exists()


def test_a_plan_counts_the_samples_of_all_epochs_and_uses_the_given_prices_and_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0.tar", "1.tar"):
        (tmp_path / name).write_bytes(tar_bytes([m for n in range(4) for m in pair(str(n))]))
    prices = tmp_path / "prices.json"
    prices.write_text('{"gpu": 10, "cpu": {"price": 1, "spot": true}, "head": 0, "currency": "USD"}')
    options = (
        "--prices",
        prices,
        "--rates",
        "worker=1,encoder=1,reader=9",
        f"run.storage={tmp_path}/storage",
    )
    paper = ("--config", "paper", "model.pretrained=", "evaluate.suite=", f"data.shards={tmp_path}/*.tar")
    assert job("--plan", *paper, *options) == 0
    output = capsys.readouterr().out
    assert "80 samples in 10 epochs: about 8 a second, 1 min; workers are the limit (as given)" in output
    assert "cost: 24.00 USD an hour with all of these nodes" in output


def test_a_plan_for_the_nodes_in_a_file_needs_no_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("a cluster was asked for"))
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text(
        "available_node_types: {gpus: {max_workers: 2, resources: {CPU: 64, GPU: 8, accelerator_type:H100: 1}}}"
    )
    assert job("--plan", "--cluster", nodes, f"run.storage={tmp_path}/storage") == 0
    output = capsys.readouterr().out
    for text in (
        "16 on GPUs, ddp, fp32",
        "gpus: 2 asked for",
        " of 80 GiB of each H100 (parameters ",
    ):
        assert text in output
    monkeypatch.setattr(memory, "_step", lambda *_: DryRun(0, 0, 0, 2**40, ()))
    assert job("--plan", "--cluster", nodes, f"run.storage={tmp_path}/storage") == 2
    assert "train.batch_size=128: a step needs 1024 GiB on each of 16 GPUs" in capsys.readouterr().err
    assert job("--cluster", nodes) == 2
    assert "only with --plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.shards=/nowhere/*.tar"], "no such shard"),
        (["train.worker_cpus=33", "train.num_workers=1"], "1 of 1 workers fit on no node"),
        (["--rates", "worker=fast"], "--rates 'worker=fast': write worker=N"),
        (["--prices", "/nowhere/prices.yaml"], "/nowhere/prices.yaml: cannot be read"),
    ],
)
def test_an_impossible_plan_is_refused_as_the_run_would_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert job("--plan", f"run.storage={tmp_path / 'storage'}", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "storage").exists()
