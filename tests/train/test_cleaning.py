"""sclip clean: what a storage folder of runs takes, what may go, and what never does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sclip.train import manifest
from sclip.train.cleaning import runs
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import record_inputs

DAY_S = 86400.0


def run_with(
    storage: Path, name: str, idle_s: float, checkpoints: int = 0, *, half: bool = False, done: bool = False
) -> Path:
    folder = RunFolder(storage / "runs" / name)
    record_inputs(folder, {"data": {"weights": []}, "tracking": {"uri": ""}}, [])
    for step in range(checkpoints):
        place = folder.step_path(step)
        place.mkdir()
        (place / "a.safetensors").write_bytes(bytes(1000))
        files = {"a.safetensors": manifest.fingerprint(place / "a.safetensors")}
        manifest.write_manifest(place, {}, files)
    if half:
        folder.step_path(99).mkdir()
        (folder.path / "damaged-step-00000001").mkdir()
    if done:
        (folder.path / "model").mkdir()
        folder.record_result({"scores": {}, "version": "1"})
    folder.touch()
    then = time.time() - idle_s
    for file in folder.path.iterdir():
        os.utime(file, (then, then))
    return folder.path


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    run_with(tmp_path, "begun", 2 * DAY_S)
    run_with(tmp_path, "done", 9 * DAY_S, 2, done=True, half=True)
    run_with(tmp_path, "live", 60.0, 2, half=True)
    run_with(tmp_path, "stopped", 5 * DAY_S, 1, half=True)
    run_with(tmp_path, "just-done", 60.0, 1, done=True)
    (tmp_path / "runs" / "no run").mkdir()
    return tmp_path


def clean(storage: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sclip.cli", "clean", str(storage), *options],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"COLUMNS": "160"},
    )  # fmt: skip


def tree(storage: Path) -> set[str]:
    return {str(path.relative_to(storage / "runs")) for path in storage.rglob("*")}


def test_each_run_is_listed_with_its_state_and_size(storage: Path) -> None:
    found = {use.path.name: use for use in runs(storage)}
    assert {name: use.state for name, use in found.items()} == {
        "begun": "begun", "done": "finished", "just-done": "finished", "live": "training", "stopped": "resumable",
    }  # fmt: skip
    assert [path.name for path in found["done"].leftovers] == ["damaged-step-00000001", "step-00000099"]
    assert found["done"].bytes > 2000
    assert found["stopped"].idle_s == pytest.approx(5 * DAY_S, rel=0.01)
    before = tree(storage)
    listed = clean(storage)
    assert listed.returncode == 0
    assert all(f" {name} " in listed.stdout for name in found)
    assert "would remove" not in listed.stdout
    assert tree(storage) == before


GONE = {
    ("--finished",): ["done/step-00000000", "done/step-00000001", "just-done/step-00000000"],
    ("--leftovers",): [
        "done/damaged-step-00000001", "done/step-00000099", "stopped/damaged-step-00000001", "stopped/step-00000099",
    ],
    ("--older-than", "4"): ["done", "stopped"],
    ("--older-than", "7", "--leftovers"): ["done", "stopped/damaged-step-00000001", "stopped/step-00000099"],
}  # fmt: skip


@pytest.mark.parametrize("options", GONE, ids=" ".join)
def test_what_is_asked_for_goes_with_yes_and_is_only_listed_without(
    storage: Path, options: tuple[str, ...]
) -> None:
    before = tree(storage)
    listed = clean(storage, *options)
    assert listed.returncode == 0
    lines = [line for line in listed.stdout.splitlines() if line.startswith("would remove")]
    assert lines == [f"would remove {storage / 'runs' / path}" for path in GONE[options]]
    assert "add --yes" in listed.stdout
    assert tree(storage) == before
    removed = clean(storage, *options, "--yes")
    assert removed.returncode == 0
    gone = GONE[options]
    assert before - tree(storage) == {p for p in before if any(p == g or p.startswith(f"{g}/") for g in gone)}
    assert (storage / "runs" / "live" / "step-00000099").is_dir()


def test_a_run_that_is_started_again_is_left_alone_from_that_moment(storage: Path) -> None:
    record_inputs(RunFolder(storage / "runs" / "stopped"), {"data": {"weights": [], "shards": []}}, [])
    (stopped,) = (use for use in runs(storage) if use.path.name == "stopped")
    assert stopped.state == "training"
    assert stopped.removable(finished=True, leftovers=True, older_than_s=1.0) == ()


def test_a_folder_that_holds_no_runs_is_refused(tmp_path: Path) -> None:
    told = clean(tmp_path / "nowhere")
    assert told.returncode == 2
    assert (
        told.stderr
        == f"clean: {tmp_path / 'nowhere'}: no folder of runs (run.storage of the runs is meant)\n"
    )


def test_a_number_of_days_that_is_none_is_refused(storage: Path) -> None:
    told = clean(storage, "--older-than", "0")
    assert told.returncode == 2
    assert "a number above 0" in told.stderr


def test_half_of_a_checkpoint_that_is_being_written_is_never_taken_for_one(storage: Path) -> None:
    shutil.rmtree(storage / "runs" / "live" / "damaged-step-00000001")
    (live,) = (use for use in runs(storage) if use.path.name == "live")
    assert [path.name for path in live.leftovers] == ["step-00000099"]
    assert live.removable(finished=True, leftovers=True, older_than_s=1.0) == ()
