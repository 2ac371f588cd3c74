"""Nodes of a real cluster that are lost, added and given notice in mid-run: the run goes on as large as it can be."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from support.commands import command
from support.processes import environment
from support.runs import recorded, recorded_curve, reports_seen, starter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

EPOCHS = 80
EVERY = 15
WORKER = {"num_cpus": 3, "object_store_memory": 200_000_000}
"""A node that takes a training worker and nothing else."""
PARSER = {"num_cpus": 2, "object_store_memory": 200_000_000}
"""A node that takes the encoders and readers of both workers, and no worker."""


class Faults:
    """Takes nodes away, adds one and gives it notice, each at a report of the run that goes on."""

    def __init__(self, cluster: Cluster, parser: Any, worker: Any) -> None:
        self._cluster, self._parser, self._worker = cluster, parser, worker
        self.workers: list[int] = []
        """Of each start of the workers."""
        self.done: list[str] = []
        self.checkpoints: list[list[int]] = []
        """Steps of those since each start of the workers."""

    def __call__(self, report: dict[str, Any]) -> None:
        if report["kind"] == "start":
            self.workers.append(report["workers"])
            self.checkpoints.append([])
            if self.done == ["parser", "worker"]:
                self._added = self._cluster.add_node(**WORKER)
                self.done.append("added")
        elif report["kind"] == "checkpoint":
            self.checkpoints[-1].append(report["step"])
            if len(self.checkpoints[-1]) == 2 and not self.done:
                self._cluster.remove_node(self._parser, allow_graceful=False)
                self.done.append("parser")
            elif len(self.checkpoints[-1]) > 2 and self.done == ["parser"]:
                self._cluster.remove_node(self._worker, allow_graceful=False)
                self.done.append("worker")
            elif self.done == ["parser", "worker", "added"] and self.workers[-1] == 2:
                self._give_notice()
                self.done.append("notice")

    def _give_notice(self) -> None:
        """Tell Ray that the newest node will go, as a pod does that is about to end (cluster/kuberay/base/drain.py)."""
        command = ["ray", "drain-node", f"--address={self._cluster.address}"]
        command += [f"--node-id={self._added.node_id}", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message=the pod is ending"]
        subprocess.run([*command, "--deadline-remaining-seconds=8"], env=environment(), check=True)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """Two nodes for encoders and two for workers, on which faults are made."""
    monkeypatch.setenv("RAY_health_check_period_ms", "500")  # five checks, which a dead node fails at once
    head = {"num_cpus": 0, "object_store_memory": 200_000_000}
    # Not at exit, which would need signals: a node is added in the thread that takes the reports.
    cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    cluster.add_node(**PARSER)
    parser, _, worker = cluster.add_node(**PARSER), cluster.add_node(**WORKER), cluster.add_node(**WORKER)
    try:
        cluster.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield Faults(cluster, parser, worker)
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_it_goes_on_with_fewer_workers_and_with_more_after_a_checkpoint_that_is_foreseen_exact_to_the_row(
    faults: Faults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with reports_seen(faults):
        summary = starter(tmp_path)(
            "run.name=survivor", "run.max_failures=4", f"train.epochs={EPOCHS}", f"checkpoint.every={EVERY}",
            "train.num_workers=2", "train.min_workers=1", "train.resize_every_s=3", "train.worker_cpus=3",
            "data.actor_cpus=0.8", "data.actors_max=2", "data.read_cpus=0.2",
        )  # fmt: skip
    assert faults.done == ["parser", "worker", "added", "notice"]
    assert faults.workers == [2, 1, 2, 1]
    _, alone, grown, _ = faults.checkpoints
    for steps in (alone, grown):  # before the workers became more, and at the notice
        assert any(step % EVERY for step in steps), steps
    assert summary.trained["samples"] == EPOCHS * 96
    assert command("audit")(summary.folder) == 0
    assert " missed=0 repeated=0 " in capsys.readouterr().out
    assert max(recorded_curve(summary.tracking_uri, "survivor")) == summary.trained["step"]
    assert recorded(summary.tracking_uri, "survivor").info.status == "FINISHED"
    assert summary.version == "1"
