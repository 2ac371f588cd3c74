"""Whole programs that are told to end: a process group by SIGTERM, a start by Ctrl-C; each leaves what it should."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from sclip.train.run_folder import LEASE, RunFolder
from support.paths import ROOT
from support.processes import end, environment
from support.runs import TINY, recorded


@contextmanager
def program(*arguments: str, options: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Start `sclip` as the leader of a process group, as a shell or a batch system does."""
    child = subprocess.Popen(
        [sys.executable, *options, "-m", "sclip.cli", *arguments],
        cwd=ROOT, env=environment(PYTHONUNBUFFERED="1"), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        end(child.pid)
        child.wait()


def until(child: subprocess.Popen[str], sign: str) -> str:
    """Return the output up to the line that the pattern is found in."""
    assert child.stdout
    said = []
    for line in child.stdout:
        said.append(line)
        if re.search(sign, line):
            return "".join(said)
    pytest.fail(f"no line with {sign!r}:\n{''.join(said)}")


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
def test_a_start_that_is_told_to_end_in_its_imports_ends_in_one_line(
    module: str, number: signal.Signals, line: str, status: int
) -> None:
    with program("pretrain", options=("-X", "importtime")) as child:
        until(child, rf"\| +{re.escape(module)}$")
        child.send_signal(number)
        said = [text for text in rest(child).splitlines() if not text.startswith("import time:")]
        assert child.wait() == status
    assert said == [line]


# A run


@dataclass(frozen=True)
class Told:
    """What is left of two starts of a run: one that had reported no step when it was told to end, and one that had."""

    folder: RunFolder
    statuses: list[int]
    said: list[str]
    latest: list[int]
    """Step of the newest checkpoint; 0 where there is none."""
    status: str
    """In MLflow, in the end."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Runs on a cluster of their own, whose process group gets SIGTERM as from `timeout`."""
    storage = tmp_path_factory.mktemp("storage")
    folder, statuses, lines, latest = (
        RunFolder(storage / "runs" / "told"),
        list[int](),
        list[str](),
        list[int](),
    )
    arguments = ("pretrain", *TINY, f"run.storage={storage}", "run.name=told")
    endless = ("train.epochs=400", "checkpoint.every=99999")
    for log_every, sign in (("99999", "training with 2 workers"), ("1", r"step \d+/")):
        with program(*arguments, *endless, f"train.log_every={log_every}") as child:
            said = until(child, sign)
            os.killpg(child.pid, signal.SIGTERM)
            lines.append(said + rest(child))
            statuses.append(child.wait())
        latest.append((folder.latest() or ("", 0))[1])
    return Told(
        folder, statuses, lines, latest, recorded(f"sqlite:///{storage}/mlflow.db", "told").info.status
    )


@pytest.mark.cluster
def test_sigterm_to_the_process_group_leaves_a_checkpoint_and_ends_the_run_in_mlflow(told: Told) -> None:
    assert told.statuses[1] == 143, told.said[1]
    assert told.said[1].count("asked to stop: writing a checkpoint first") == 1
    assert told.latest[1] > 0
    assert f"stopped after a checkpoint at step {told.latest[1]}" in told.said[1]
    assert "Traceback" not in told.said[1]
    assert told.status == "KILLED"
    assert not (told.folder.path / LEASE).exists()


@pytest.mark.cluster
def test_before_the_first_step_it_says_that_there_is_nothing_to_save_and_ends_at_once(told: Told) -> None:
    assert told.statuses[0] == 143, told.said[0]
    assert "no step since they started: nothing to save" in told.said[0]
    assert "writing a checkpoint" not in told.said[0]
    assert told.latest[0] == 0
    assert "training with 2 workers from the start" in told.said[1]
