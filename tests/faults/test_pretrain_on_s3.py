"""A run whose nodes share only an S3 server: killed, resumed from another machine, and exact to the row."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

import sclip
from sclip.storage.paths import sizes, storage_path
from sclip.tracking import history
from sclip.train.run_folder import RunFolder
from support.commands import command
from support.object_store import ObjectStore, every, object_store
from support.paths import ROOT
from support.processes import environment
from support.runs import TINY, recorded, recorded_curve

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

EPOCHS = 4
JOB = (
    *TINY, "run.name=far", f"train.epochs={EPOCHS}", "train.num_workers=2", "train.worker_cpus=1.1",
    "checkpoint.every=3",
)  # fmt: skip
"""About 24 steps by two workers; each node has room for one worker."""
PATIENCE_S = 700


@dataclass(frozen=True)
class Nodes:
    """Two nodes of a Ray cluster; each writes to its own folder."""

    address: str
    folders: tuple[Path, ...]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An object store that the environment of every process names."""
    with object_store() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield running


@pytest.fixture
def nodes(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    short = tempfile.mkdtemp(prefix="ray-")  # short, since the sockets in it have long names
    monkeypatch.setenv("RAY_TMPDIR", short)
    cluster, folders = Cluster(), []
    try:
        for number in range(2):
            folders.append(tmp_path / f"node-{number}")
            folders[-1].mkdir()
            with monkeypatch.context() as patch:
                patch.setenv("TMPDIR", str(folders[-1]))
                patch.setenv("HOME", str(folders[-1]))
                cluster.add_node(num_cpus=2, node_ip_address="127.0.0.1", include_dashboard=False)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield Nodes(cluster.address, tuple(folders))
    finally:
        ray.shutdown()
        cluster.shutdown()


class Driver:
    """`jobs/pretrain.py` on its own machine, with its own home and temporary folder."""

    def __init__(self, nodes: Nodes, home: Path, storage: str, *more: str) -> None:
        home.mkdir()
        self.log = home / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "jobs/pretrain.py", *JOB, f"run.storage={storage}", *more],
                cwd=ROOT, stdout=log, stderr=log,
                env=environment(RAY_ADDRESS=nodes.address, HOME=str(home), TMPDIR=str(home)),
            )  # fmt: skip

    def until_step(self, step: int, run: RunFolder) -> int:
        """Wait for a checkpoint after `step`; return its step."""
        self._until(lambda: (run.latest() or ("", 0))[1] > step)
        newest = run.latest()
        assert newest
        return newest[1]

    def until_kept(self, step: int, run: RunFolder) -> None:
        """Wait until the record in the run's folder has the step; the record is written after the checkpoint."""
        self._until(lambda: step in dict(history(run.path).get("train/loss", [])))

    def _until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)


def workers_of(nodes: Nodes) -> list[psutil.Process]:
    """Return the training workers in the order of their nodes."""
    workers = {}
    for process in psutil.process_iter(["name", "cmdline"]):
        with contextlib.suppress(psutil.Error):  # a process that ends meanwhile, or of another user
            if "RayTrainWorker" in " ".join(process.info["cmdline"] or []):
                workers[process.environ().get("TMPDIR")] = process
    return [workers[str(folder)] for folder in nodes.folders]


def test_a_run_on_object_storage_survives_the_loss_of_worker_and_driver_and_failing_writes(
    nodes: Nodes, store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = "s3://bucket/deep/storage"
    run = RunFolder(storage_path(storage) / "runs" / "far")
    first = Driver(nodes, tmp_path / "first", storage)
    step = first.until_step(0, run)
    os.kill(workers_of(nodes)[1].pid, signal.SIGKILL)
    first.until_kept(first.until_step(step, run), run)
    first.process.kill()
    first.process.wait()

    store.fault = every(10, "PUT")
    second = Driver(nodes, tmp_path / "second", storage)
    assert second.process.wait(PATIENCE_S) == 0, second.log.read_text()
    assert store.failed > 0
    output = second.log.read_text()
    assert "set tracking.uri to a permanent one" in output
    assert run.result
    assert run.result["version"] == "1"

    assert command("audit")(run.path) == 0
    assert f"trained_once={EPOCHS * 96} missed=0 repeated=0" in capsys.readouterr().out
    model = sclip.load(str(run.path))
    assert len(model.encode_text(["a red circle", "a blue square"])) == 2
    assert command("clean")(storage) == 0
    assert "finished" in capsys.readouterr().out
    assert {"report.html", "evaluation.json", "tracking.jsonl"} <= sizes(run.path).keys()

    database = f"sqlite:///{tmp_path}/second/sclip/mlflow.db"
    assert run.complete
    assert list(recorded_curve(database, "far")) == list(range(1, run.complete["step"] + 1))
    assert recorded(database, "far").info.status == "FINISHED"
    remaining = [file for folder in nodes.folders for file in folder.rglob("*.safetensors")]
    assert remaining == []
