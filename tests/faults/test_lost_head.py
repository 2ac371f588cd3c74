"""The head of a real cluster killed in mid-run, its tables in a real Redis: nodes stay, the job is submitted again."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
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

EPOCHS = 90
"""So many that the encoders still have work at the first checkpoint: Ray 2.60 cannot start with tables of an actor that
has ended while its blocks are in use (a failed check in gcs_actor.h). For that too each worker has one encoder: of
more, Ray Data ends those that have nothing to do."""
PASSWORD = "word-of-the-tests"
PATIENCE_S = 600


def until(holds: Callable[[], bool], told: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Start a Redis server with a password, which keeps what it is told in memory; give its address."""
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
    """A cluster with one node that has room for the whole run, and heads one after the other at the same address."""

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
        """Kill the head with all that runs on it, as a machine goes, and start another."""
        processes = self.cluster.head_node.all_processes
        # The tables' server first: of a machine that goes, none tells the other how it ended.
        for kind in sorted(processes, key=lambda kind: kind != "gcs_server"):
            for info in processes[kind]:
                end(info.process.pid)
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)
        self._start()

    @property
    def node_pid(self) -> int | None:
        """The node's raylet, as long as it lives."""
        (raylet,) = self.node.all_processes["raylet"]
        return raylet.process.pid if raylet.process.poll() is None else None


def test_submitted_again_after_the_loss_of_the_head_the_job_goes_on_from_its_checkpoint_exact_to_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "storage"
    run = RunFolder(storage / "runs" / "headless")
    job = ["--", "python", str(ROOT / "jobs" / "pretrain.py"), *TINY, "run.name=headless"]
    job += [f"run.storage={storage}", f"train.epochs={EPOCHS}", "train.batch_size=64"]
    temporary = tempfile.mkdtemp(prefix="ray-")  # short: the sockets in it have long names
    monkeypatch.setenv(
        "RAY_TMPDIR", temporary
    )  # where Ray notes its address, which no other test is to follow
    monkeypatch.setenv("PATH", environment()["PATH"])  # by which a head finds the job's Python
    with redis(tmp_path) as address:
        monkeypatch.setenv("RAY_REDIS_ADDRESS", address)
        heads = Heads()
        try:
            heads.cluster.wait_for_nodes()
            client = JobSubmissionClient(heads.jobs)
            submit = ["ray", "job", "submit", "--address", heads.jobs, "--no-wait", "--submission-id=first"]
            subprocess.run([*submit, *job, "checkpoint.every=2"], env=environment(), check=True)
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
            rest = [*job, "checkpoint.every=1000"]  # most of its time would go into checkpoints
            done = subprocess.run([*submit, *rest], env=environment(), capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            assert node is not None
            assert heads.node_pid == node  # it is the process that it was
        finally:
            heads.cluster.shutdown()
            shutil.rmtree(temporary, ignore_errors=True)
    assert f"training with 2 workers at step {latest[1]} " in done.stdout
    assert command("audit")(run.path) == 0
    assert f"trained_once={EPOCHS * 96} missed=0 repeated=0" in capsys.readouterr().out
    database = f"sqlite:///{storage}/mlflow.db"
    assert run.complete
    assert run.result
    assert list(recorded_curve(database, "headless")) == list(range(1, run.complete["step"] + 1))
    assert recorded(database, "headless").info.status == "FINISHED"
    assert run.result["version"] == "1"
