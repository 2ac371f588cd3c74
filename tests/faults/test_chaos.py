"""A run over every defect, whose encoder, workers and MLflow server are killed: every row once, and in its step."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient
from ray.util.state import list_actors
from rich.console import Console

from sclip.config.loader import load
from sclip.run import pretrain
from sclip.run.audit.account import audit
from sclip.tracking import history
from sclip.train.run_folder import RunFolder
from support.commands import command
from support.defective_shards import write
from support.mlflow_server import MLflowServer, mlflow_server
from support.paths import ROOT
from support.processes import environment
from support.ray_head import Head
from support.runs import recorded, recorded_curve, reports_seen

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

EPOCHS = 6
JOB = (
    "model.kee.layers=1", f"train.epochs={EPOCHS}", "train.batch_size=15",
    "train.worker_cpus=0.4", "train.log_every=1", "data.actor_cpus=0.4", "data.read_cpus=0.1", "data.shuffle_buffer=8",
    "data.actors_max=2", "data.block_samples=4", "data.max_quarantined=0.5", "data.max_unreadable_shards=3",
    "checkpoint.every=4", "evaluate.retrieval_images=8",
)  # fmt: skip
PATIENCE_S = 500


@pytest.fixture(autouse=True)
def _attached(head: Head, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attach this process to the cluster, to find the actors of the jobs on it."""
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    ray.init(address=head.address, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def given(folder: Path, workers: int, *more: str, name: str = "chaos") -> list[str]:
    """Return the job's arguments."""
    return [
        *JOB, f"run.name={name}", f"data.shards={folder}/shards/*.tar", f"run.storage={folder}",
        f"train.num_workers={workers}", *more,
    ]  # fmt: skip


class Job:
    """`jobs/pretrain.py` in a process of its own, over the planted shards, which outlives one loss of a worker."""

    def __init__(self, head: Head, folder: Path, *more: str) -> None:
        self.run = RunFolder(folder / "runs" / "chaos")
        self.log = folder / "log"
        arguments = given(folder, 2, "run.max_failures=1", *more)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "jobs/pretrain.py", *arguments],
                cwd=ROOT, env=environment(RAY_ADDRESS=head.address), stdout=log, stderr=log,
            )  # fmt: skip

    def until(self, true: Callable[[], object], what: str) -> None:
        """Wait until something is so while the job goes on."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert self.process.poll() is None, f"the job ended before {what}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"not {what} in {PATIENCE_S} s:\n{self.log.read_text()}"
            time.sleep(0.05)

    @property
    def newest(self) -> int:
        latest = self.run.latest()
        return latest[1] if latest else 0

    def actors(self, name: str, many: int, but: frozenset[int] = frozenset()) -> frozenset[int]:
        """Return the process ids of living actors of this class, once there are so many others than some."""
        found = set[int]()

        def live() -> bool:
            alive = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
            found.update(actor.pid for actor in alive if name in actor.class_name and actor.pid)
            return len(found - but) >= many

        self.until(live, f"a {name} to kill")
        return frozenset(found - but)


class Outage:
    """Kills the server at a step of the run, and starts it again at a later one; its call takes the reports."""

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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MLflowServer]:
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server") as made:
        made.start()
        yield made


def test_over_kills_of_all_kinds_and_another_number_of_workers_each_step_has_the_rows_of_a_run_that_nothing_befalls(
    head: Head, server: MLflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shards").mkdir()
    planted = write(tmp_path / "shards")
    tracked = f"tracking.uri={server.uri}"
    job = Job(head, tmp_path, tracked)
    os.kill(min(job.actors("_ImportedEncoder", 1)), signal.SIGKILL)  # at once: so little data is soon encoded
    # Looked for before the first step: the answer takes longer than some steps.
    workers = job.actors("RayTrainWorker", 2)
    job.until(lambda: job.newest, "a checkpoint")
    os.kill(min(workers), signal.SIGKILL)
    others, step = job.actors("RayTrainWorker", 2, workers), job.newest
    job.until(lambda: job.newest > step, f"a checkpoint after step {step}")
    os.kill(min(others), signal.SIGKILL)
    assert job.process.wait(PATIENCE_S) == 1, job.log.read_text()
    assert re.search(r"^pretrain: .*worker \d", job.log.read_text(), re.MULTILINE)
    step = job.newest
    with reports_seen(outage := Outage(server, step + 5, step + 12)):
        pretrain.pretrain(
            load(given(tmp_path, 1, tracked, "train.sharding=ddp")), Console(file=(said := io.StringIO()))
        )
    assert outage.over
    assert f"training with 1 workers at step {step} " in said.getvalue()

    found = audit(job.run.path)
    good = sum(map(len, planted.good.values()))
    assert (found.missed, found.repeated, found.unknown) == (0, 0, 0)
    assert found.complete
    assert found.trained_once == EPOCHS * good
    assert found.expected == found.trained_once + found.quarantined
    rows = [(Path(row.shard).name, row.key, row.reason) for row in found.quarantined_rows]
    no_tars = ("empty.tar", "garbage.tar", "page.tar")
    defects = [defect for defect in planted.defects if defect[0] not in no_tars]
    assert sorted(row[:2] for row in rows) == sorted(defect[:2] for defect in defects)
    for shard, key, reason in defects:
        assert any(row[:2] == (shard, key) and reason in row[2] for row in rows), (shard, key, reason)
    assert {row.passes for row in found.quarantined_rows} == {EPOCHS}
    cut = [shard for shard, key, _ in defects if not key]
    assert sorted(Path(lost.shard).name for lost in found.lost) == sorted([*no_tars, *cut])
    assert command("audit")(job.run.path) == 1
    assert re.search(r" missed=0 repeated=0 .*order=exact", capsys.readouterr().out)

    told, run, client = history(job.run.path), recorded(server.uri, "chaos"), MlflowClient(server.uri)
    assert run.data.metrics.keys() == told.keys()
    for metric, points in told.items():
        assert recorded_curve(server.uri, "chaos", metric) == pytest.approx(dict(points)), metric
    assert run.info.status == "FINISHED"
    version = client.get_model_version_by_alias("structure-clip", "candidate")
    assert (str(version.version), version.run_id) == ((job.run.result or {})["version"], run.info.run_id)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"evaluation"}

    pretrain.pretrain(load(given(tmp_path, 2, name="undisturbed")), Console(file=io.StringIO()))
    undisturbed = RunFolder(tmp_path / "runs" / "undisturbed")
    assert audit(undisturbed.path).order == "exact"  # so that each step of the two had the same rows
    expected = dict(history(undisturbed.path)["train/loss"])
    losses = dict(told["train/loss"])
    assert len(losses) > 0.8 * len(expected)  # those of a worker that was killed may be on their way still
    assert losses == pytest.approx({step: expected[step] for step in losses}, abs=1e-4)
