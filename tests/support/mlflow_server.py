"""A real MLflow server on loopback that tests can kill and restart quickly.

Importing MLflow takes seconds, so one process imports it once and forks a server on each `start`. The process ends,
and its server with it, when the tests close its standard input or die.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from support.mlflow_stores import empty_store
from support.paths import ROOT
from support.processes import environment, free_port


@dataclass
class MLflowServer:
    port: int
    _commands: IO[str]
    _answers: IO[str]

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._tell("start")

    def kill(self) -> None:
        self._tell("kill")

    def _tell(self, command: str) -> None:
        self._commands.write(f"{command}\n")
        self._commands.flush()
        assert self._answers.readline() == f"{command}\n"


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MLflowServer]:
    """Yield a server that is not started yet; its store and artifacts are in `folder`."""
    port = free_port()
    empty_store(folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "support.mlflow_server", str(port), str(folder)], cwd=ROOT / "tests",
        env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "server.log").open("w"),
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        yield MLflowServer(port, process.stdin, process.stdout)
    finally:
        process.stdin.close()
        process.wait(60)


def _serve(port: int, folder: Path) -> None:
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = f"sqlite:///{folder / 'mlflow.db'}"
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = str(folder / "server-artifacts")
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    from mlflow.server import app
    from werkzeug.serving import make_server

    server = 0
    for line in sys.stdin:
        if line == "start\n":
            ready, listens = os.pipe()
            server = os.fork()
            if not server:
                app.test_client().get("/api/2.0/mlflow/experiments/search?max_results=1")  # opens the store
                http_server = make_server("127.0.0.1", port, app, threaded=True)
                os.write(listens, b".")
                http_server.serve_forever()
            os.read(ready, 1)
        else:
            _end(server)
            server = 0
        print(line, end="", flush=True)
    if server:
        _end(server)


def _end(server: int) -> None:
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
