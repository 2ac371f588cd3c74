"""A cluster's head is killed during a run, with its tables in Redis: nodes stay, and the job is submitted again."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from ray.job_submission import JobSubmissionClient

from sclip.train.run_folder import RunFolder
from support.commands import command
from support.paths import ROOT
from support.processes import end, environment, free_port, require
from support.runs import TINY, recorded, recorded_curve

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

EPOCHS = 120
"""Enough epochs that the encoders still have work at the first checkpoint: Ray 2.60 cannot start with tables of an
actor that has ended while its blocks are in use (a failed check in gcs_actor.h). Each worker has only one encoder for
the same reason: Ray Data ends additional encoders that are idle."""
PASSWORD = "word-of-the-tests"
PATIENCE_S = 600


@dataclass(frozen=True)
class Resumed:
    """A run whose job was submitted to a head, and again to the head that replaced it."""

    folder: RunFolder
    latest: int
    """Step of the newest checkpoint when the head was killed."""
    said: str
    """Output of the second job."""
    kept: bool
    """Whether the node's process survived the loss of the head."""


def until(holds: Callable[[], bool], message: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, message()
        time.sleep(0.2)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Start a Redis server with a password, which keeps its data in memory; yield its address."""
    program = shutil.which("redis-server")
    if program is None:
        require("SCLIP_REDIS", "needs redis-server")
    port = free_port()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--requirepass", PASSWORD, "--save", ""]
    server = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


class Heads:
    """A cluster with one node that has room for the whole run, and successive heads at the same address."""

    def __init__(self) -> None:
        self.port, self.jobs = free_port(), ""
        self.cluster = Cluster()
        self._start()
        self.node = self.cluster.add_node(num_cpus=3, object_store_memory=300_000_000)

    def _start(self) -> None:
        dashboard, agent = free_port(), free_port()
        self.cluster.add_node(
            num_cpus=0, node_ip_address="127.0.0.1", gcs_server_port=self.port, redis_password=PASSWORD,
            include_dashboard=True, dashboard_port=dashboard, dashboard_agent_listen_port=agent,
        )  # fmt: skip
        self.jobs = f"http://127.0.0.1:{dashboard}"

    def replace(self) -> None:
        """Kill the head and all its processes, as when a machine is lost, and start another head."""
        processes = self.cluster.head_node.all_processes
        # The GCS first: on a lost machine no process can report the end of another.
        for kind in sorted(processes, key=lambda kind: kind != "gcs_server"):
            for info in processes[kind]:
                end(info.process.pid)
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)
        self._start()

    @property
    def node_pid(self) -> int | None:
        """Process ID of the node's raylet while it lives, otherwise None."""
        (raylet,) = self.node.all_processes["raylet"]
        return raylet.process.pid if raylet.process.poll() is None else None


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resumed]:
    folder = tmp_path_factory.mktemp("head")
    run = RunFolder(folder / "storage" / "runs" / "headless")
    job = ["--", "python", str(ROOT / "jobs" / "pretrain.py"), *TINY, "run.name=headless"]
    job += [f"run.storage={folder}/storage", f"train.epochs={EPOCHS}", "train.batch_size=64"]
    with redis(folder) as address, pytest.MonkeyPatch.context() as patch:
        temporary = tempfile.mkdtemp(prefix="ray-")  # short, since the sockets in it have long names
        patch.setenv("RAY_TMPDIR", temporary)  # Ray notes its address there, which no other test must find
        patch.setenv("RAY_REDIS_ADDRESS", address)
        patch.setenv("PATH", environment()["PATH"])  # through which a head finds the job's Python
        heads = Heads()
        try:
            heads.cluster.wait_for_nodes()
            client = JobSubmissionClient(heads.jobs)
            submit = ["ray", "job", "submit", "--address", heads.jobs, "--no-wait", "--submission-id=first"]
            subprocess.run([*submit, *job, "checkpoint.every=4"], env=environment(), check=True)
            until(
                lambda: run.latest() is not None or client.get_job_status("first").is_terminal(),
                lambda: client.get_job_logs("first"),
            )
            node = heads.node_pid
            heads.replace()
            latest = run.latest()
            assert latest
            assert run.complete is None
            submit = ["ray", "job", "submit", "--address", heads.jobs]
            rest = [*job, "checkpoint.every=1000"]  # frequent checkpoints would take most of the time
            done = subprocess.run([*submit, *rest], env=environment(), capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            yield Resumed(run, latest[1], done.stdout, node is not None and heads.node_pid == node)
        finally:
            heads.cluster.shutdown()
            shutil.rmtree(temporary, ignore_errors=True)


def test_the_resubmitted_job_resumes_from_its_checkpoint(resumed: Resumed) -> None:
    assert resumed.kept
    assert f"training with 2 workers at step {resumed.latest} " in resumed.said


def test_every_sample_is_trained_on_once_and_mlflow_has_one_curve_and_one_model(
    resumed: Resumed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("audit")(resumed.folder.path) == 0
    assert f"trained_once={EPOCHS * 96} missed=0 repeated=0" in capsys.readouterr().out
    database = f"sqlite:///{resumed.folder.path.parent.parent}/mlflow.db"
    assert resumed.folder.complete
    assert resumed.folder.result
    steps = list(range(1, resumed.folder.complete["step"] + 1))
    assert list(recorded_curve(database, "headless")) == steps
    assert recorded(database, "headless").info.status == "FINISHED"
    assert resumed.folder.result["version"] == "1"
