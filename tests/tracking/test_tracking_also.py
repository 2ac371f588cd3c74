"""TensorBoard and Weights & Biases get MLflow's rows, each once, and their failures cost a run nothing."""

from __future__ import annotations

import importlib.metadata
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sclip.config import Config, ConfigError, DataConfig, TrackingConfig
from sclip.config.loader import flatten, to_tree
from sclip.run.pretrain import pretrain
from sclip.storage.masking import mask_tree
from sclip.tracking import Tracker, open_recorded, open_run
from support.mlflow_stores import empty_store
from support.processes import free_port
from support.wandb_server import wandb_server

pytestmark = pytest.mark.usefixtures("patience")
Curves = dict[str, list[tuple[int, float]]]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for a tracker that works, since the machine may be busy."""
    monkeypatch.setattr("sclip.tracking.tracker._FINISH_S", 200.0)


def made(*also: str, **changes: object) -> Config:
    shards = DataConfig(shards=("s3://key:planted@bucket/*.tar",))
    return Config(data=shards, tracking=TrackingConfig(also=also, **changes))  # type: ignore[arg-type]


def train(tracker: Tracker, steps: range) -> None:
    """Log steps, and then a score of an earlier step, as an evaluation during training does."""
    for step in steps:
        tracker.log({"train/loss": 1 / (step + 3), "train/rate": math.nan if step == 2 else 0.1}, step)
    tracker.log({"beside/recall": 0.7}, steps[-1] - 1)


def in_mlflow(tracker: Tracker) -> Curves:
    names = tracker.client.get_run(tracker.run_id).data.metrics
    curves = {name: tracker.client.get_metric_history(tracker.run_id, name) for name in names}
    return {name: sorted((p.step, p.value) for p in curve) for name, curve in curves.items()}


def in_tensorboard(folder: Path) -> Curves:
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {name: [(e.step, e.value) for e in read.Scalars(name)] for name in read.Tags()["scalars"]}


def wandb_variables(port: int) -> dict[str, str]:
    """Return the variables with which wandb reaches a server on this machine."""
    server = {
        "BASE_URL": f"http://127.0.0.1:{port}",
        "API_KEY": "0" * 40,
        "INIT_TIMEOUT": "3",
        "MODE": "online",
    }
    return {f"WANDB_{name}": text for name, text in server.items()}


def in_wandb(rows: list[dict[str, Any]]) -> Curves:
    curves: Curves = {}
    for row in rows:
        for name in row.keys() - {"step", "_step", "_timestamp", "_runtime"}:
            curves.setdefault(name, []).append((row["step"], float(row[name])))
    return curves


def curve_text(curves: Curves, dtype: type = float) -> str:
    """Return the curves as text, in which NaN equals NaN; `dtype` rounds the values, since TensorBoard has 32 bits."""
    return str({name: [(s, float(dtype(v))) for s, v in sorted(curves[name])] for name in sorted(curves)})


def test_both_have_every_step_of_mlflow_once_after_a_crash_and_a_resume_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.5")
    empty_store(tmp_path)
    folder = tmp_path / "runs" / "both"
    first = open_run(made("tensorboard", "wandb"), "both", str(tmp_path))
    train(first, range(4))
    assert all(sender.flush(60.0) for sender in first._others)
    assert first._sampler
    for thread in (first._sampler, first._sender, *first._others):  # the process ends
        thread.close()
    with next((folder / "tensorboard").iterdir()).open("ab") as file:
        file.write(b"\0torn")
    again = open_run(made("tensorboard", "wandb"), "both", str(tmp_path))
    train(again, range(2, 9))  # from the checkpoint at step 2
    assert again.finish() == ""
    expected = in_mlflow(again)
    assert [step for step, _ in expected["train/loss"]] == [*range(9)]
    assert [step for step, _ in expected["beside/recall"]] == [2, 7]
    assert "system/cpu_utilization_percentage" in expected
    assert curve_text(in_tensorboard(folder), np.float32) == curve_text(expected, np.float32)
    last = max(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime)
    with wandb_server(port := free_port()) as (runs, config):
        subprocess.run(
            [sys.executable, "-m", "wandb", "sync", str(last)],
            env=os.environ | wandb_variables(port),
            cwd=tmp_path,
            check=True,
        )
    ((run, rows),) = runs.items()
    assert run.startswith("both-")
    assert curve_text(in_wandb(rows)) == curve_text(expected)
    assert config == flatten(mask_tree(to_tree(made("tensorboard", "wandb"))))
    assert not [path for path in folder.rglob("*") if path.is_file() and b"planted" in path.read_bytes()]


def test_an_absent_wandb_server_is_reported_once_and_gets_every_row_once_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, text in wandb_variables(port := free_port()).items():
        monkeypatch.setenv(name, text)
    empty_store(tmp_path)
    tracker = open_run(made("wandb"), "away", str(tmp_path))
    train(tracker, range(5))
    assert tracker.flush()  # MLflow does not wait for other trackers
    assert not tracker._others[0].flush(10.0)
    assert "not all events of the run were sent to Weights & Biases" in tracker.finish()
    tracker._others[0]._thread.join()
    assert len([line for line in caplog.messages if "Weights & Biases" in line]) == 1
    with wandb_server(port) as (runs, _):
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "60")
        for steps in (range(3, 8), range(6, 12)):
            tracker = open_run(made("wandb"), "away", str(tmp_path))
            train(tracker, steps)
            assert tracker.finish("KILLED") == ""
        assert open_recorded(tmp_path / "runs" / "away").close() == ""  # nothing is left to send
    (rows,) = runs.values()
    assert [row["_step"] for row in rows] == [*range(len(rows))]
    assert not (tmp_path / "runs" / "away" / "wandb").exists()
    assert curve_text(in_wandb(rows)) == curve_text(in_mlflow(tracker))


def test_a_tensorboard_folder_that_cannot_be_written_costs_no_metric(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty_store(tmp_path)
    (folder := tmp_path / "runs" / "full").mkdir(parents=True)
    (folder / "tensorboard").write_text("a file")
    tracker = open_run(made("tensorboard"), "full", str(tmp_path))
    train(tracker, range(5))
    assert tracker.flush()
    assert len(in_mlflow(tracker)["train/loss"]) == 5
    assert not tracker._others[0].flush(2.0)
    (line,) = [line for line in caplog.messages if "TensorBoard" in line]
    assert "File exists" in line
    (folder / "tensorboard").unlink()
    assert tracker.finish() == ""
    assert len(in_tensorboard(folder)["train/loss"]) == 5


def test_a_run_is_refused_in_one_line_where_wandb_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ConfigError) as raised:
        pretrain(made("wandb"), Console())
    assert str(raised.value).startswith(
        "tracking.also=['wandb']: wandb is not installed; pip install 'sclip[trackers]'"
    )
    assert "\n" not in str(raised.value)
