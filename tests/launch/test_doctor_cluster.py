"""The doctor on a real cluster of four nodes: one differs, one hangs, one was killed, and one is well."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from support.paths import ROOT
from support.processes import environment
from support.tars import pair, tar_bytes

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Examine a head, a node with another open_clip, one that no longer answers and one that was killed."""
    folder = tmp_path_factory.mktemp("doctor")
    planted = folder / "planted" / "open_clip_torch-0.0.1.dist-info"
    planted.mkdir(parents=True)
    (planted / "METADATA").write_text("Metadata-Version: 2.1\nName: open_clip_torch\nVersion: 0.0.1\n")
    (folder / "shards").mkdir()
    (folder / "shards" / "0.tar").write_bytes(tar_bytes([m for n in range(8) for m in pair(str(n))]))
    here = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "object_store_memory": 80 * 2**20}
    temporary = tempfile.mkdtemp(prefix="ray-")  # short: the sockets in it have long names
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TMPDIR", temporary)  # where Ray notes its address, which no other test is to follow
    cluster = Cluster()
    stopped = 0
    try:
        cluster.add_node(node_name="head", include_dashboard=False, **here)
        cluster.add_node(node_name="other", env_vars={"PYTHONPATH": str(planted.parent)}, **here)
        killed = cluster.add_node(node_name="killed", **here)
        silent = cluster.add_node(node_name="silent", **here)
        os.kill(killed.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        while all(node["Alive"] for node in ray.nodes()):  # until Ray has missed it
            time.sleep(0.2)
        ray.shutdown()
        stopped = silent.all_processes["raylet"][0].process.pid
        os.kill(stopped, signal.SIGSTOP)
        command = [sys.executable, str(ROOT / "jobs" / "doctor.py"), "--json", "-", "--timeout", "120"]
        command += [f"run.storage={folder}/storage", f"data.shards={folder}/shards/*.tar"]
        done = subprocess.run(
            command, env=environment(RAY_ADDRESS=cluster.address), capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 1, done.stdout + done.stderr
        yield json.loads(done.stdout) | {"folder": folder}
    finally:
        if stopped:
            os.kill(stopped, signal.SIGCONT)
        cluster.shutdown()
        patch.undo()
        shutil.rmtree(temporary, ignore_errors=True)


def of_check(examined: dict[str, Any], check: str) -> dict[str, tuple[str, str]]:
    found = [finding for finding in examined["findings"] if finding["check"] == check]
    return {finding["where"].partition(" (")[0]: (finding["status"], finding["found"]) for finding in found}


def test_nodes_that_hang_or_went_are_named_and_not_waited_for(examined: dict[str, Any]) -> None:
    nodes = of_check(examined, "nodes")
    assert nodes["silent"][0] == "fail"
    assert nodes["killed"][0] == "warn"
    assert nodes["cluster"][1].startswith("2 answer, ")


def test_another_version_on_one_node_is_found_there(examined: dict[str, Any]) -> None:
    (differs,) = of_check(examined, "versions").items()
    assert differs[0] in ("head", "other")  # of two nodes either may be the one that differs
    assert "open_clip_torch 0.0.1" in differs[1][1] or "elsewhere 0.0.1" in differs[1][1]


def test_the_other_checks_are_made_on_all_nodes_that_answer_and_leave_the_storage_as_it_was(
    examined: dict[str, Any],
) -> None:
    for check in ("clock", "storage", "shards", "open files"):
        found = of_check(examined, check)
        assert {where: status for where, (status, _) in found.items()} == {"head": "ok", "other": "ok"}, check
    assert of_check(examined, "gloo")["cluster"][1].startswith("all-reduce over 2 nodes, ")
    assert of_check(examined, "authentication")["cluster"][0] == "ok"
    assert {path.name for path in (examined["folder"] / "storage").iterdir()} <= {"mlflow.db"}
