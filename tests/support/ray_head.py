"""A real Ray cluster on loopback, with a head started as a user starts it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.processes import end, environment, free_port


@dataclass(frozen=True)
class Head:
    address: str
    jobs: str


@contextlib.contextmanager
def ray_head(
    *arguments: str,
    more: Callable[[str], list[str]] = lambda address: [],
    env: Mapping[str, str] | None = None,
) -> Iterator[Head]:
    """Start a head as a user does, with further arguments of `ray start`; kill it and all its nodes afterwards.

    `more` maps the head's address to arguments that contain this address.
    """
    folder = tempfile.mkdtemp(prefix="ray-")  # short, since the sockets in it have long names
    port, dashboard = free_port(), free_port()
    command = ["ray", "start", "--head", "--block", f"--temp-dir={folder}", f"--port={port}", *arguments]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    # By default the job agent and the client server take fixed ports, so that two heads on one machine would fail.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += ["--object-store-memory=1000000000", "--disable-usage-stats", *more(f"127.0.0.1:{port}")]
    # Seconds between SIGTERM and SIGKILL of a job; the default is 3.
    patience = {"RAY_JOB_STOP_WAIT_TIME_S": "600"}
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


def _takes_jobs(head: Head) -> bool:
    """Return whether an empty job succeeds; the job server answers before its agent can start jobs."""
    command = ["ray", "job", "submit", "--address", head.jobs, "--", "true"]
    return subprocess.run(command, env=environment(), capture_output=True).returncode == 0
