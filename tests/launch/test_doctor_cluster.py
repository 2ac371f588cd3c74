"""The doctor on a real cluster of four nodes: one differs, one hangs, one was killed, and one is healthy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from support.commands import command
from support.tars import pair, tar_bytes

pytestmark = pytest.mark.cluster

HEALTH = {"period_ms": "500", "timeout_ms": "6000"}
"""Settings of Ray's health checks. A lost node must fail five: at once if it is dead, at the timeout if it hangs."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    temporary = tempfile.mkdtemp(prefix="ray-")  # short, since the sockets in it have long names
    monkeypatch.setenv("RAY_TMPDIR", temporary)  # Ray notes its address there, which no other test must find
    for name, value in HEALTH.items():
        monkeypatch.setenv(f"RAY_health_check_{name}", value)
    started = Cluster()
    yield started
    ray.shutdown()
    started.shutdown()
    shutil.rmtree(temporary, ignore_errors=True)


def test_nodes_that_differ_hang_or_are_gone_are_named_and_the_others_are_checked_and_unchanged(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = tmp_path / "planted" / "open_clip_torch-0.0.1.dist-info"
    planted.mkdir(parents=True)
    (planted / "METADATA").write_text("Metadata-Version: 2.1\nName: open_clip_torch\nVersion: 0.0.1\n")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").write_bytes(tar_bytes([m for n in range(8) for m in pair(str(n))]))
    options = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster.add_node(node_name="head", include_dashboard=False, **options)
    cluster.add_node(node_name="other", env_vars={"PYTHONPATH": str(planted.parent)}, **options)
    killed, silent = (cluster.add_node(node_name=name, **options) for name in ("killed", "silent"))
    os.kill(killed.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    while all(node["Alive"] for node in ray.nodes()):  # until Ray notices the loss
        time.sleep(0.2)
    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    os.kill(stopped := silent.all_processes["raylet"][0].process.pid, signal.SIGSTOP)
    capsys.readouterr()  # discards Ray's message on standard output that a node is gone
    try:
        overrides = (f"run.storage={tmp_path}/storage", f"data.shards={tmp_path}/shards/*.tar")
        assert command("doctor")("--json", "-", "--timeout", "120", *overrides) == 1
    finally:
        os.kill(stopped, signal.SIGCONT)
    findings = json.loads(capsys.readouterr().out)["findings"]

    def results(check: str) -> dict[str, tuple[str, str]]:
        selected = [finding for finding in findings if finding["check"] == check]
        return {
            finding["where"].partition(" (")[0]: (finding["status"], finding["found"]) for finding in selected
        }

    nodes = results("nodes")
    assert (nodes["silent"][0], nodes["killed"][0]) == ("fail", "warn")
    assert nodes["cluster"][1].startswith("2 of 3 nodes answer; ")
    (differs,) = results("versions").items()
    assert differs[0] in ("head", "other")  # with two nodes, either may be called the one that differs
    assert "open_clip_torch 0.0.1" in differs[1][1] or "elsewhere 0.0.1" in differs[1][1]
    for check in ("clock", "storage", "shards", "open files"):
        statuses = {location: status for location, (status, _) in results(check).items()}
        assert statuses == {"head": "ok", "other": "ok"}, check
    assert results("gloo")["cluster"][1].startswith("all-reduce over 2 nodes, ")
    assert "GB/s between 2 nodes, gloo over TCP" in results("network")["cluster"][1]
    assert results("authentication")["cluster"][0] == "ok"
    assert {path.name for path in (tmp_path / "storage").iterdir()} <= {"mlflow.db", "mlflow.db.lock"}
