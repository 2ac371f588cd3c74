"""One real Ray cluster on loopback for all tests that need one: a head as a user starts it, ended with the tests."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", RAY_USAGE_STATS_ENABLED="0")
# Read when Ray is imported. The switch keeps Ray on loopback, see sclip.launch.cluster.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), GLOO_SOCKET_IFNAME="lo")
os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")

# No storage client looks for a machine in a cloud that would hand it credentials.
os.environ.update(AWS_EC2_METADATA_DISABLED="true")

# What passes on one machine passes on the next; other examples are tried wherever a developer runs the tests.
settings.register_profile("ci", derandomize=True)
if "CI" in os.environ:
    settings.load_profile("ci")


def require(variable: str, told: str) -> NoReturn:
    """Skip a test for want of a program, but fail it where the variable says that the program is required."""
    if os.environ.get(variable) == "required":
        pytest.fail(told)
    pytest.skip(told)


def starts_clusters(file: Path) -> bool:
    """Tell whether any test of a file does; of several processes one has all of these files."""
    return "mark.cluster" in file.read_text()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first."""
    clusters = {path: starts_clusters(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: not clusters[item.path])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Give `pytest -n 2 --dist loadscope` files as scopes, and one scope for all that start clusters.

    Two clusters at once would share two cores, and what waits for a fault to be seen would wait too long.
    """
    return _OneCluster(config, log)


class _OneCluster(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "cluster" if starts_clusters(ROOT / file) else file


@dataclass(frozen=True)
class Head:
    """A running head: where its cluster, and where its job server answer."""

    address: str
    jobs: str


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user who has activated the virtual environment that runs the tests."""
    found = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
    return found | more


@contextlib.contextmanager
def ray_head(
    *arguments: str,
    more: Callable[[str], list[str]] = lambda address: [],
    env: Mapping[str, str] | None = None,
) -> Iterator[Head]:
    """Start a head as a user does, with further arguments of `ray start`, and end it and all its nodes afterwards.

    `more` gives those that name the cluster's own address.
    """
    folder = tempfile.mkdtemp(prefix="ray-")  # short: the sockets in it have long names
    port, dashboard = free_port(), free_port()
    command = ["ray", "start", "--head", "--block", f"--temp-dir={folder}", f"--port={port}", *arguments]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    # Else the agent, which starts jobs, and the client's server take fixed ports, and two heads fail on one machine.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += ["--object-store-memory=1000000000", "--disable-usage-stats", *more(f"127.0.0.1:{port}")]
    patience = {"RAY_JOB_STOP_WAIT_TIME_S": "60"}  # between SIGTERM and SIGKILL of a job; 3 by default
    log = Path(folder, "head.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            env=environment(**patience, **(env or {})),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        started = Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}")
        deadline = time.monotonic() + 120
        while not _takes_jobs(started):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the Ray head did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield started
    finally:
        end(process.pid)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    with ray_head("--num-cpus=4") as started:
        yield started


def end(pid: int) -> None:
    """End a node and all that it started; told by a signal, it takes half a minute to give up on its processes."""
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)


def _takes_jobs(head: Head) -> bool:
    """Submit a job that does nothing; the job server answers before its agent can start one."""
    command = ["ray", "job", "submit", "--address", head.jobs, "--", "true"]
    return subprocess.run(command, env=environment(), capture_output=True).returncode == 0
