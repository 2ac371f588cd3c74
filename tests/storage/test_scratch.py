"""Folders on a node's own disk: they go with their process, however it ends; common folders are filled once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sclip.storage import scratch
from support.paths import ROOT
from support.processes import environment


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"sclip-{os.getuid()}"


def test_an_own_folder_exists_only_during_its_block(root: Path) -> None:
    with scratch.own() as first, scratch.own() as second:
        assert first != second
        (first / "file").write_text("")
        assert sorted(root.glob("own-*/")) == sorted([first, second])
    assert [file.name for file in root.iterdir()] == ["own.lock"]
    assert root.stat().st_mode & 0o777 == 0o700


def test_the_next_process_removes_the_folder_of_a_killed_process_but_not_of_a_living_one(root: Path) -> None:
    program = (
        "import sys; from sclip.storage import scratch\nwith scratch.own() as folder:\n"
        "    (folder / 'file').write_text(''); print(folder, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=environment(TMPDIR=str(root.parent)), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        with scratch.own():
            assert (folder / "file").exists()
        process.send_signal(signal.SIGKILL)
    with scratch.own() as mine:
        assert list(root.glob("own-*/")) == [mine]


def test_a_common_folder_is_filled_once_and_is_whole_or_absent(root: Path) -> None:
    fills = []

    def fill(folder: Path) -> None:
        fills.append(folder)
        (folder / "whole").write_text("")
        if len(fills) == 1:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        scratch.common("word", fill)
    assert not list(root.glob("*/"))
    for _ in range(2):
        assert [file.name for file in scratch.common("word", fill).iterdir()] == ["whole"]
    assert len(fills) == 2
    scratch.remove(root / "word")
    assert not list(root.glob("word*"))
