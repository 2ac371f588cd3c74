"""Whole programs that are told to end: a process group by SIGTERM, a start by Ctrl-C; each leaves what it should."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

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


class Ended(NamedTuple):
    """How a run ended that was told to."""

    status: int
    said: str
    latest: int
    """Step of the newest checkpoint; 0 where there is none."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def ended(storage: Path) -> list[Ended]:
    """One run on clusters of its own, whose process group gets SIGTERM before a step is reported, then after one."""
    arguments = ("pretrain", *TINY, f"run.storage={storage}", "run.name=told")
    endless, found = ("train.epochs=400", "checkpoint.every=99999"), list[Ended]()
    for log_every, sign in (("99999", "training with 2 workers"), ("1", r"step \d+/")):
        with program(*arguments, *endless, f"train.log_every={log_every}") as child:
            said = until(child, sign)
            os.killpg(child.pid, signal.SIGTERM)
            said += rest(child)
            latest = RunFolder(storage / "runs" / "told").latest()
            found.append(Ended(child.wait(), said, latest[1] if latest else 0))
    return found


@pytest.mark.cluster
def test_before_the_first_step_it_says_that_there_is_nothing_to_save_and_ends_at_once(
    ended: list[Ended],
) -> None:
    before, after = ended
    assert before.status == 143, before.said
    assert "no step since they started: nothing to save" in before.said
    assert "writing a checkpoint" not in before.said
    assert before.latest == 0
    assert "training with 2 workers from the start" in after.said


@pytest.mark.cluster
def test_sigterm_to_the_process_group_leaves_a_checkpoint_and_ends_the_run_in_mlflow(
    storage: Path, ended: list[Ended]
) -> None:
    after = ended[1]
    assert after.status == 143, after.said
    assert after.said.count("asked to stop: writing a checkpoint first") == 1
    assert after.latest > 0
    assert f"stopped after a checkpoint at step {after.latest}" in after.said
    assert "Traceback" not in after.said
    assert recorded(f"sqlite:///{storage}/mlflow.db", "told").info.status == "KILLED"
    assert not (storage / "runs" / "told" / LEASE).exists()
