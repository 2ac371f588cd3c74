"""Which checkpoints of a run are kept: the newest and the best, within a budget and the disk's space."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sclip.config import CheckpointConfig
from sclip.train import manifest, run_checkpoints
from sclip.train.manifest import CheckpointError
from sclip.train.run_folder import RunFolder, size_of

MEGABYTE = 10**6


def folder_with(path: Path, losses: dict[int, float | None], megabytes: int = 1) -> RunFolder:
    """Return a run with a checkpoint at each step of `losses`, which records the loss as its metric."""
    folder = RunFolder(path)
    for step, loss in losses.items():
        step_path = folder.step_path(step)
        step_path.mkdir(parents=True)
        (step_path / "a.safetensors").write_bytes(bytes(megabytes * MEGABYTE))
        metrics = {} if loss is None else {"loss": loss, "accuracy": 1 - loss}
        files = {"a.safetensors": manifest.fingerprint(step_path / "a.safetensors")}
        manifest.write_manifest(step_path, {"metrics": metrics}, files)
    return folder


def steps(folder: RunFolder) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in folder.checkpoints()]


LOSSES = {10: 0.5, 20: 0.1, 30: None, 40: 0.3, 50: 0.4, 60: 0.6}


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ({}, [60, 50]),
        ({"keep_last": 9}, [60, 50, 40, 30, 20, 10]),
        ({"keep_last": 1, "keep_best": 2}, [60, 40, 20]),
        ({"keep_last": 1, "keep_best": 2, "best_is": "highest"}, [60, 10]),
        ({"keep_last": 1, "keep_best": 1, "best_metric": "accuracy", "best_is": "highest"}, [60, 20]),
        ({"keep_last": 1, "keep_best": 2, "best_metric": "other"}, [60]),
    ],
)
def test_the_newest_and_the_best_stay(tmp_path: Path, keep: dict[str, Any], expected: list[int]) -> None:
    folder = folder_with(tmp_path, LOSSES)
    run_checkpoints.prune(folder, CheckpointConfig(**keep))
    assert steps(folder) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"step-{n:08d}" for n in expected)


def test_a_checkpoint_being_written_stays_and_damaged_or_half_removed_ones_go(
    tmp_path: Path,
) -> None:
    folder = folder_with(tmp_path, LOSSES)
    folder.step_path(70).mkdir()
    (folder.step_path(10) / manifest.MANIFEST).unlink()
    (folder.step_path(20) / manifest.MANIFEST).write_text("{")
    run_checkpoints.prune(folder, CheckpointConfig(keep_last=1, keep_best=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-000000{n}" for n in (40, 60, 70)]


@pytest.mark.parametrize(
    ("budget_mb", "keep_best", "expected"),
    [(0, 0, [60, 50, 40, 30, 20, 10]), (4.5, 0, [60, 50, 40]), (3.5, 1, [60, 20]), (2.5, 1, [60])],
)
def test_older_checkpoints_make_room_within_the_budget_and_the_best_go_last(
    tmp_path: Path, budget_mb: float, keep_best: int, expected: list[int]
) -> None:
    folder = folder_with(tmp_path, LOSSES)
    keep = CheckpointConfig(disk_budget_gb=budget_mb / 1000, keep_best=keep_best)
    run_checkpoints.make_room(folder, MEGABYTE, keep)
    assert steps(folder) == expected
    assert size_of(tmp_path) == pytest.approx(len(expected) * MEGABYTE, rel=0.01)


def test_a_budget_too_small_for_a_second_checkpoint_is_refused_even_before_the_first(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, LOSSES, megabytes=10)
    with pytest.raises(
        CheckpointError, match=r"disk_budget_gb=0\.015: .* takes 0\.01 GB, .* the budget to 0\.02 or more"
    ):
        run_checkpoints.make_room(folder, 10 * MEGABYTE, CheckpointConfig(disk_budget_gb=0.015))
    assert steps(folder) == [60]
    keep, empty = CheckpointConfig(disk_budget_gb=0.015), RunFolder(tmp_path / "empty")
    empty.path.mkdir()
    run_checkpoints.make_room(empty, 7 * MEGABYTE, keep)
    with pytest.raises(CheckpointError, match=r"takes 0\.01 GB, .* raise the budget to 0\.02 or more"):
        run_checkpoints.make_room(empty, 10 * MEGABYTE, keep)


def test_a_full_disk_is_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with(tmp_path, {10: 0.5})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    run_checkpoints.make_room(folder, 99 * MEGABYTE, CheckpointConfig())
    with pytest.raises(
        CheckpointError, match=r"0\.10 GB free, a checkpoint takes 0\.20 GB; make room .*sclip clean"
    ):
        run_checkpoints.make_room(folder, 200 * MEGABYTE, CheckpointConfig())
