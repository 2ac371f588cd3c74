"""Nodes of a real cluster that are lost in mid-run, and one that is added: the run goes on as large as it can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray
from jobs_here import job_here
from ray.cluster_utils import Cluster
from runs import recorded, recorded_curve, reports_seen, starter

from sclip.finish import Summary

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

EPOCHS = 120
WORKER = {"num_cpus": 3, "object_store_memory": 200_000_000}
"""A node that takes a training worker and nothing else."""
PARSER = {"num_cpus": 2, "object_store_memory": 200_000_000}
"""A node that takes an encoder and readers, and no worker."""


class Faults:
    """Takes nodes away and adds one, each at a report of the run that goes on."""

    def __init__(self, cluster: Cluster, parser: Any, worker: Any) -> None:
        self._cluster, self._parser, self._worker = cluster, parser, worker
        self.workers: list[int] = []
        """Of each start of the workers."""
        self.done: list[str] = []
        self._checkpoints = 0
        """Since the last start."""

    def __call__(self, report: dict[str, Any]) -> None:
        if report["kind"] == "start":
            self.workers.append(report["workers"])
            self._checkpoints = 0
            if self.done == ["parser", "worker"] and report["workers"] == 1:
                self.done.append("added")
                self._cluster.add_node(**WORKER)
        elif report["kind"] == "checkpoint":
            self._checkpoints += 1
            if self._checkpoints == 2 and not self.done:
                self._lose(self._parser, "parser")
            elif self._checkpoints >= 2 and self.done == ["parser"]:
                self._lose(self._worker, "worker")

    def _lose(self, node: Any, what: str) -> None:
        self.done.append(what)
        self._cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Summary, Faults]]:
    # Not at exit, which would need signals: a node is added in the thread that takes the reports.
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 200_000_000},
        shutdown_at_exit=False,
    )
    cluster.add_node(**PARSER)
    parser, _, worker = cluster.add_node(**PARSER), cluster.add_node(**WORKER), cluster.add_node(**WORKER)
    faults = Faults(cluster, parser, worker)
    try:
        cluster.wait_for_nodes()
        start = starter(tmp_path_factory.mktemp("storage"))
        with pytest.MonkeyPatch.context() as patch, reports_seen(faults):
            patch.setenv("RAY_ADDRESS", cluster.address)
            summary = start(
                "run.name=survivor", "run.max_failures=4", f"train.epochs={EPOCHS}", "checkpoint.every=10",
                "train.num_workers=2", "train.min_workers=1", "train.resize_every_s=3", "train.worker_cpus=3",
                "data.actor_cpus=1.5", "data.actors_max=2", "data.readers=2", "data.read_cpus=0.2",
            )  # fmt: skip
            yield summary, faults
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_it_goes_on_with_fewer_workers_and_with_more_once_there_is_room(
    survived: tuple[Summary, Faults],
) -> None:
    _, faults = survived
    assert faults.done == ["parser", "worker", "added"]
    assert faults.workers[0] == 2
    assert 1 in faults.workers
    assert faults.workers[-1] == 2


def test_every_sample_of_every_epoch_is_trained_on_once(
    survived: tuple[Summary, Faults], capsys: pytest.CaptureFixture[str]
) -> None:
    summary, _ = survived
    assert summary.trained["samples"] == EPOCHS * 96
    assert job_here("audit")(summary.folder) == 0
    assert " missed=0 repeated=0 " in capsys.readouterr().out


def test_mlflow_has_each_step_once_and_the_model(survived: tuple[Summary, Faults]) -> None:
    summary, _ = survived
    assert max(recorded_curve(summary.tracking_uri, "survivor")) == summary.trained["step"]
    assert recorded(summary.tracking_uri, "survivor").info.status == "FINISHED"
    assert summary.version == "1"
