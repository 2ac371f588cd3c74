"""Processes that tests start: their environment, ports and end, and programs that have to be installed."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

import psutil
import pytest


def require(variable: str, told: str) -> NoReturn:
    """Skip a test for want of a program, but fail it where the variable says that the program is required."""
    if os.environ.get(variable) == "required":
        pytest.fail(told)
    pytest.skip(f"{told}; .ci/tools brings it, and make test finds it")


_GIVEN: set[int] = set()


def free_port() -> int:
    """Return a loopback port that nothing listens on, another at each call: who asked before may not listen yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user who has activated the virtual environment that runs the tests."""
    found = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
    return found | more


def end(pid: int) -> None:
    """End a node and all that it started; told by a signal, it takes half a minute to give up on its processes."""
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)
