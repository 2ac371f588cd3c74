"""`sclip clean`: what the runs in a storage folder use, what may be removed, and what must stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sclip.train import manifest
from sclip.train.cleaning import runs
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import record_inputs
from support.commands import command

DAY_S = 86400.0
INPUTS = {"data": {"weights": [], "shards": []}, "tracking": {"uri": ""}}

clean = command("clean")


def run_with(
    storage: Path, name: str, idle_s: float, checkpoints: int = 0, *, half: bool = False, done: bool = False
) -> None:
    folder = RunFolder(storage / "runs" / name)
    record_inputs(folder, INPUTS, [])
    for step in range(checkpoints):
        path = folder.step_path(step)
        path.mkdir()
        (path / "a.safetensors").write_bytes(bytes(1000))
        manifest.write_manifest(path, {}, {"a.safetensors": manifest.fingerprint(path / "a.safetensors")})
    if half:
        folder.step_path(99).mkdir()
        (folder.path / "damaged-step-00000001").mkdir()
    if done:
        folder.record_result({"scores": {}, "version": "1"})
    folder.touch()
    then = time.time() - idle_s
    for file in folder.path.iterdir():
        os.utime(file, (then, then))


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "160")
    run_with(tmp_path, "begun", 2 * DAY_S)
    run_with(tmp_path, "done", 9 * DAY_S, 2, done=True, half=True)
    run_with(tmp_path, "live", 60.0, 2, half=True)
    run_with(tmp_path, "stopped", 5 * DAY_S, 1, half=True)
    run_with(tmp_path, "just-done", 60.0, 1, done=True)
    (tmp_path / "runs" / "no run").mkdir()
    return tmp_path


def tree(storage: Path) -> set[str]:
    return {str(path.relative_to(storage / "runs")) for path in storage.rglob("*")}


def test_each_run_is_listed_with_its_state_and_size_and_a_restarted_run_is_left_alone(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uses = {use.path.name: use for use in runs(storage)}
    assert {name: use.state for name, use in uses.items()} == {
        "begun": "begun", "done": "finished", "just-done": "finished", "live": "training", "stopped": "resumable",
    }  # fmt: skip
    assert [path.name for path in uses["done"].leftovers] == ["damaged-step-00000001", "step-00000099"]
    assert uses["done"].bytes > 2000
    assert uses["stopped"].idle_s == pytest.approx(5 * DAY_S, rel=0.01)
    record_inputs(RunFolder(storage / "runs" / "stopped"), INPUTS, [])  # started again
    for use in runs(storage):
        if use.path.name in ("stopped", "live"):
            assert (use.state, bool(use.leftovers)) == ("training", True)
            assert use.removable(finished=True, leftovers=True, older_than_s=1.0) == ()
    before = tree(storage)
    assert clean(storage) == 0
    listed = capsys.readouterr().out
    assert all(f" {name} " in listed for name in uses)
    assert "would remove" not in listed
    assert tree(storage) == before


GONE = {
    ("--finished",): ["done/step-00000000", "done/step-00000001", "just-done/step-00000000"],
    ("--older-than", "7", "--leftovers"): ["done", "stopped/damaged-step-00000001", "stopped/step-00000099"],
}


@pytest.mark.parametrize("options", GONE, ids=" ".join)
def test_selected_folders_are_removed_with_yes_and_only_listed_without_it(
    storage: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before, gone = tree(storage), GONE[options]
    assert clean(storage, *options) == 0
    listed = capsys.readouterr().out
    lines = [line for line in listed.splitlines() if line.startswith("would remove")]
    assert lines == [f"would remove {storage / 'runs' / path}" for path in gone]
    assert "add --yes" in listed
    assert tree(storage) == before
    assert clean(storage, *options, "--yes") == 0
    assert before - tree(storage) == {p for p in before if any(p == g or p.startswith(f"{g}/") for g in gone)}


def test_a_folder_without_runs_and_an_age_of_zero_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    assert clean(nowhere) == 2
    error = f"clean: {nowhere}: not a folder of runs; name the run.storage of the runs\n"
    assert capsys.readouterr().err == error
    assert clean(tmp_path, "--older-than", "0") == 2
    assert "a number above 0" in capsys.readouterr().err
