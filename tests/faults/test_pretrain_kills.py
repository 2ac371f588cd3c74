"""A run whose worker and then whose MLflow server is killed continues, and MLflow has every step once at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray
from mlflow import MlflowClient

from sclip.launch.trainer import TrainingFailed
from sclip.run.summary import Summary
from sclip.tracking import history
from support.mlflow_server import MLflowServer, mlflow_server
from support.ray_head import Head
from support.runs import Killer, recorded, recorded_curve, reports_seen, starter

pytestmark = pytest.mark.cluster

EPOCHS = 5
STEPS = EPOCHS * 6
LONG = (f"train.epochs={EPOCHS}", "checkpoint.every=7")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as started:
        started.start()
        yield started


class Outage:
    """Kills the server at one step of the run and restarts it at a later step. It is called with each report."""

    def __init__(self, server: MLflowServer, killed: int, started: int) -> None:
        self._server, self._killed, self._started = server, killed, started
        self.over = False

    def __call__(self, report: dict[str, Any]) -> None:
        if report["kind"] != "metrics":
            return
        if report["step"] == self._killed:
            self._server.kill()
        elif report["step"] == self._started:
            self._server.start()
            self.over = True


@pytest.fixture(scope="module")
def survivor(head: Head, server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Summary]:
    """A run with two workers until one is killed, then resumed with one worker while the server is away for a time."""
    start, arguments = starter(tmp_path_factory.mktemp("storage")), (*LONG, f"tracking.uri={server.uri}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", head.address)
        with reports_seen(killer := Killer()), pytest.raises(TrainingFailed, match=r"worker \d"):
            start("run.name=died", *arguments, "run.max_failures=0")
        assert killer.killed
        outage = Outage(server, STEPS - 10, STEPS - 4)
        with reports_seen(outage):
            yield start("run.name=died", *arguments, "train.num_workers=1", "train.sharding=ddp")
        assert outage.over
        ray.shutdown()


def test_a_run_that_died_resumes_with_fewer_workers_and_has_one_continuous_curve(survivor: Summary) -> None:
    assert survivor.trained["samples"] == EPOCHS * 96
    started = [step for step, _ in history(survivor.folder)["train/checkpoint_stall_s"]]
    assert started == [*range(7, STEPS, 7), STEPS]
    curve = recorded_curve(survivor.tracking_uri, "died")
    assert list(curve) == list(range(1, STEPS + 1))
    jumps = [abs(curve[step] - curve[step - 1]) for step in list(curve)[1:]]
    assert max(jumps) < 0.5 * max(curve.values())
    assert curve[STEPS] < curve[1]


def test_a_server_that_was_stopped_and_started_again_has_every_metric_of_the_run_and_its_model(
    survivor: Summary, server: MLflowServer
) -> None:
    assert survivor.tracking_uri == server.uri
    logged = history(survivor.folder)
    run = recorded(server.uri, "died")
    assert run.data.metrics.keys() == logged.keys()
    for metric, points in logged.items():
        assert recorded_curve(server.uri, "died", metric) == pytest.approx(dict(points)), metric
    assert run.info.status == "FINISHED"
    client = MlflowClient(server.uri)
    version = client.get_model_version_by_alias("structure-clip", "candidate")
    assert (str(version.version), version.run_id) == (survivor.version, run.info.run_id)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"evaluation"}
