"""Whole programs that are told to end (a group by SIGTERM, a start by Ctrl-C) leave what they should."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sclip.train.run_folder import LEASE, RunFolder
from support.paths import ROOT
from support.processes import end, environment, free_port
from support.runs import TINY, recorded


@contextmanager
def program(
    *arguments: str, options: tuple[str, ...] = (), **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Start `sclip` as the leader of a process group, as a shell or a batch system does."""
    child = subprocess.Popen(
        [sys.executable, *options, "-m", "sclip.cli", *arguments],
        cwd=ROOT, env=environment(PYTHONUNBUFFERED="1", **variables), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        end(child.pid)
        child.wait()


def until(child: subprocess.Popen[str], sign: str) -> str:
    """Return the output up to the first line that matches the pattern `sign`."""
    assert child.stdout
    lines = []
    for line in child.stdout:
        lines.append(line)
        if re.search(sign, line):
            return "".join(lines)
    pytest.fail(f"no line with {sign!r}:\n{''.join(lines)}")


def rest(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.read()


# At the start


@pytest.mark.parametrize(
    ("module", "number", "line", "status"),
    [
        ("torch._C", signal.SIGINT, "pretrain: interrupted", 130),
        ("ray._raylet", signal.SIGTERM, "pretrain: stopped", 143),
    ],
)
def test_a_start_that_is_interrupted_during_its_imports_prints_one_line(
    module: str, number: signal.Signals, line: str, status: int
) -> None:
    with program("pretrain", options=("-X", "importtime")) as child:
        until(child, rf"\| +{re.escape(module)}$")
        child.send_signal(number)
        lines = [text for text in rest(child).splitlines() if not text.startswith("import time:")]
        assert child.wait() == status
    assert lines == [line]


# A run


@pytest.mark.cluster
def test_a_run_whose_group_gets_sigterm_saves_or_ends_at_once_and_the_same_command_finishes_it(
    tmp_path: Path,
) -> None:
    """Each start uses its own cluster, although Ray has noted the address of a head that is gone."""
    ray = Path(tempfile.mkdtemp(prefix="r-"))  # short, since Ray's sockets in it have long names
    (ray / "ray").mkdir()
    (ray / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    database, run = f"sqlite:///{tmp_path}/mlflow.db", RunFolder(tmp_path / "runs" / "told")
    command = ("pretrain", *TINY, f"run.storage={tmp_path}", "run.name=told", "train.epochs=20")

    def ended(sign: str, *more: str) -> tuple[int, str]:
        """Start the run, send SIGTERM to its process group at the line `sign`, and return status and output."""
        with program(*command, *more, RAY_TMPDIR=str(ray)) as child:
            output = until(child, sign)
            if sign != "alias candidate":
                os.killpg(child.pid, signal.SIGTERM)
            output += rest(child)
            return child.wait(), output

    try:
        status, output = ended(r"step \d+/", "checkpoint.every=9999", "run.progress_every_s=0.1")
        assert status == 143, output
        assert output.count("asked to stop: writing a checkpoint first") == 1
        assert run.latest()
        step = (run.latest() or ("", 0))[1]
        assert f"stopped after a checkpoint at step {step}" in output
        assert recorded(database, "told").info.status == "KILLED"
        assert not (run.path / LEASE).exists()

        status, output = ended("training with 2 workers at step", "train.log_every=9999")
        assert status == 143, output
        assert "no step since they started, so there is nothing to save" in output
        assert (run.latest() or ("", 0))[1] == step

        status, output = ended("alias candidate", "train.log_every=50")
    finally:
        shutil.rmtree(ray, ignore_errors=True)
    assert status == 0, output
    assert "Traceback" not in output
    assert f"training with 2 workers at step {step} " in output
    for text in (
        "training on generated scenes (your own data: data.shards=", "relation/accuracy",
        "models:/structure-clip/1, alias candidate", f"ui --backend-store-uri {database}",
    ):  # fmt: skip
        assert text in output


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_named_cluster_that_is_gone_causes_one_error_and_no_local_run(
    log_format: str, tmp_path: Path
) -> None:
    gone = f"127.0.0.1:{free_port()}"
    with program(
        "pretrain", f"run.storage={tmp_path}", f"run.log_format={log_format}", RAY_ADDRESS=gone
    ) as child:
        output = rest(child)
        assert child.wait() == 2
    if log_format == "json":
        record = json.loads(output)
        assert record["levelname"] == "ERROR"
        assert record["message"].startswith(f"no Ray cluster answers at {gone}")
    else:
        assert re.search(
            r"^pretrain: no Ray cluster answers at 127.*unset RAY_ADDRESS.*\n\Z", output, re.MULTILINE
        )
        assert "Traceback" not in output
    assert not list(tmp_path.iterdir())
