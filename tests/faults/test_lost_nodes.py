"""Nodes of a cluster are lost, added and given notice during a run, which continues with the workers that fit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from sclip.run.summary import Summary
from support.commands import command
from support.processes import environment
from support.runs import recorded, recorded_curve, reports_seen, starter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

EPOCHS = 80
EVERY = 15
WORKER = {"num_cpus": 3, "object_store_memory": 200_000_000}
"""A node that has room for a training worker and nothing else."""
PARSER = {"num_cpus": 2, "object_store_memory": 200_000_000}
"""A node that has room for the encoders and readers of both workers, but for no worker."""


class Faults:
    """Removes nodes, adds one and gives it notice, each at a certain report of the run."""

    def __init__(self, cluster: Cluster, parser: Any, worker: Any) -> None:
        self._cluster, self._parser, self._worker = cluster, parser, worker
        self.workers: list[int] = []
        """Number of workers at each start of the workers."""
        self.done: list[str] = []
        self.checkpoints: list[list[int]] = []
        """Steps of the checkpoints since each start of the workers."""

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
        """Tell Ray that the newest node will go, as an ending pod does (cluster/kuberay/base/drain.py)."""
        command = ["ray", "drain-node", f"--address={self._cluster.address}"]
        command += [f"--node-id={self._added.node_id}", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message=the pod is ending"]
        subprocess.run([*command, "--deadline-remaining-seconds=8"], env=environment(), check=True)


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Summary, Faults]]:
    # No shutdown at exit: it needs signal handlers, and a node is added in the thread that receives reports.
    head = {"num_cpus": 0, "object_store_memory": 200_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    cluster.add_node(**PARSER)
    parser, _, worker = cluster.add_node(**PARSER), cluster.add_node(**WORKER), cluster.add_node(**WORKER)
    faults = Faults(cluster, parser, worker)
    try:
        cluster.wait_for_nodes()
        start = starter(tmp_path_factory.mktemp("storage"))
        with pytest.MonkeyPatch.context() as patch, reports_seen(faults):
            patch.setenv("RAY_ADDRESS", cluster.address)
            summary = start(
                "run.name=survivor", "run.max_failures=4", f"train.epochs={EPOCHS}", f"checkpoint.every={EVERY}",
                "train.num_workers=2", "train.min_workers=1", "train.resize_every_s=3", "train.worker_cpus=3",
                "train.collective_timeout_s=300",  # a lost rank ends a collective long before
                "data.actor_cpus=0.8", "data.actors_max=2", "data.read_cpus=0.2",
            )  # fmt: skip
            yield summary, faults
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_run_continues_with_fewer_or_more_workers_and_saves_before_a_planned_restart(
    survived: tuple[Summary, Faults],
) -> None:
    _, faults = survived
    assert faults.done == ["parser", "worker", "added", "notice"]
    assert faults.workers == [2, 1, 2, 1]
    _, alone, grown, _ = faults.checkpoints
    for steps in (alone, grown):  # before the restart with more workers, and at the notice
        assert any(step % EVERY for step in steps), steps


def test_every_sample_is_trained_on_once_and_mlflow_has_each_step_once_and_the_model(
    survived: tuple[Summary, Faults], capsys: pytest.CaptureFixture[str]
) -> None:
    summary, _ = survived
    assert summary.trained["samples"] == EPOCHS * 96
    assert command("audit")(summary.folder) == 0
    assert " missed=0 repeated=0 " in capsys.readouterr().out
    assert max(recorded_curve(summary.tracking_uri, "survivor")) == summary.trained["step"]
    assert recorded(summary.tracking_uri, "survivor").info.status == "FINISHED"
    assert summary.version == "1"
