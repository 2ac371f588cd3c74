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
from support.commands import command
from support.paths import ROOT
from support.processes import end, environment
from support.runs import TINY, recorded

EPOCHS = 4


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
    """What a run left that was told to end, and the one that went on."""

    folder: RunFolder
    status: int
    said: str
    mlflow: str
    left: list[str]
    step: int
    again: int
    said_again: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A run on a cluster of its own, whose process group gets SIGTERM as from `timeout`: again while it is answered."""
    storage = tmp_path_factory.mktemp("storage")
    folder = RunFolder(storage / "runs" / "told")
    arguments = ("pretrain", *TINY, f"run.storage={storage}", "run.name=told", f"train.epochs={EPOCHS}")
    with program(*arguments) as child:
        said = until(child, "training with 2 workers")
        os.killpg(child.pid, signal.SIGTERM)
        said += until(child, "asked to stop")
        os.killpg(child.pid, signal.SIGTERM)
        said += rest(child)
        status = child.wait()
    latest = folder.latest()
    store = f"sqlite:///{storage}/mlflow.db"
    mlflow = recorded(store, "told").info.status
    left = sorted(path.name for path in folder.path.iterdir())
    with program(*arguments) as child:
        said_again = rest(child)
        again = child.wait()
    return Told(folder, status, said, mlflow, left, latest[1] if latest else 0, again, said_again)


@pytest.mark.cluster
def test_sigterm_to_the_process_group_leaves_a_checkpoint_and_ends_the_run_in_mlflow(told: Told) -> None:
    assert told.status == 143, told.said
    assert told.said.count("asked to stop") == 1
    assert f"stopped after a checkpoint at step {told.step}" in told.said
    assert told.step > 0
    assert "Traceback" not in told.said
    assert told.mlflow == "KILLED"
    assert LEASE not in told.left


@pytest.mark.cluster
def test_the_same_command_goes_on_there_and_trains_on_every_row_once(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told.again == 0, told.said_again
    assert f"training with 2 workers at step {told.step} " in told.said_again
    assert command("audit")(told.folder.path) == 0
    assert " missed=0 repeated=0 " in capsys.readouterr().out
