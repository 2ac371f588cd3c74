"""The head of a real cluster killed in mid-run, GCS in a real Redis: the nodes stay, the job submitted again goes on."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, Head, end, environment, free_port, ray_head, require
from jobs_here import job_here
from ray.job_submission import JobSubmissionClient
from runs import TINY, recorded, recorded_curve

from sclip.train.run_folder import RunFolder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

EPOCHS = 6
PASSWORD = "word-of-the-tests"
PATIENCE_S = 240


@dataclass(frozen=True)
class Resumed:
    """A run whose job was submitted to a head, and again to the one that took its place."""

    folder: RunFolder
    latest: int
    """Step of the newest checkpoint when the head was killed."""
    said: str
    """Printed by the second job."""
    kept: bool
    """Whether the node is the process that it was."""


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


@contextlib.contextmanager
def node(head: Head, log: Path) -> Iterator[psutil.Process]:
    """Start a node with room for the whole run, which outlives heads."""
    command = ["ray", "start", "--block", f"--address={head.address}", "--node-ip-address=127.0.0.1"]
    command += ["--num-cpus=3", "--object-store-memory=300000000", "--disable-usage-stats"]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment(), stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        end(process.pid)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resumed]:
    folder = tmp_path_factory.mktemp("head")
    run = RunFolder(folder / "storage" / "runs" / "headless")
    job = ["--working-dir", str(ROOT), "--", "python", "jobs/pretrain.py", *TINY, "run.name=headless"]
    job += [f"run.storage={folder}/storage", f"train.epochs={EPOCHS}", "checkpoint.every=3"]
    with contextlib.ExitStack() as stack:
        kept_in = {"RAY_REDIS_ADDRESS": stack.enter_context(redis(folder))}
        port = free_port()

        def head() -> contextlib.AbstractContextManager[Head]:
            return ray_head("--num-cpus=0", f"--redis-password={PASSWORD}", env=kept_in, port=port)

        with head() as first:
            living = stack.enter_context(node(first, folder / "node.log"))
            submit = ["ray", "job", "submit", "--address", first.jobs, "--no-wait", "--submission-id=first"]
            subprocess.run([*submit, *job], env=environment(), check=True)
            client = JobSubmissionClient(first.jobs)
            until(lambda: run.latest() is not None, lambda: client.get_job_logs("first"))
        latest = run.latest()
        assert latest
        assert run.complete is None
        with head() as second:
            submit = ["ray", "job", "submit", "--address", second.jobs]
            done = subprocess.run([*submit, *job], env=environment(), capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            yield Resumed(run, latest[1], done.stdout, living.is_running())


def test_submitted_again_the_job_goes_on_from_its_checkpoint(resumed: Resumed) -> None:
    assert resumed.kept
    assert f"training with 2 workers at step {resumed.latest} " in resumed.said


def test_every_sample_is_trained_on_once(resumed: Resumed, capsys: pytest.CaptureFixture[str]) -> None:
    assert job_here("audit")(resumed.folder.path) == 0
    assert f"trained_once={EPOCHS * 96} missed=0 repeated=0" in capsys.readouterr().out


def test_mlflow_has_one_curve_and_one_model(resumed: Resumed) -> None:
    database = f"sqlite:///{resumed.folder.path.parent.parent}/mlflow.db"
    assert resumed.folder.complete
    assert resumed.folder.result
    steps = list(range(1, resumed.folder.complete["step"] + 1))
    assert list(recorded_curve(database, "headless")) == steps
    assert recorded(database, "headless").info.status == "FINISHED"
    assert resumed.folder.result["version"] == "1"
