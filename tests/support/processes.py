"""Helpers for processes that tests start: environment, ports, killing, and required programs."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

import psutil
import pytest


def require(variable: str, message: str) -> NoReturn:
    """Skip a test whose program is missing, or fail it if the variable says that the program is required."""
    if os.environ.get(variable) == "required":
        pytest.fail(message)
    pytest.skip(f"{message}; .ci/tools brings it, and make test finds it")


_USED_PORTS: set[int] = set()


def free_port() -> int:
    """Return a free loopback port, a new one at each call, since an earlier caller may not listen yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _USED_PORTS:
            _USED_PORTS.add(port)
            return port


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user who has activated the virtual environment that runs the tests."""
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    return variables | more


def end(pid: int) -> None:
    """Kill a Ray node and all its processes. On a gentler signal it would wait half a minute for them."""
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)
