"""Tiny runs of the main job and their records in MLflow, for the tests of whole runs."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from ray.util.state import list_actors
from rich.console import Console

from sclip.config import Config
from sclip.config.loader import load
from sclip.run import pretrain
from sclip.run.progress import Progress
from sclip.run.summary import Summary
from support.processes import free_port

TINY = (
    "scenes.train_samples=96", "scenes.heldout_samples=8", "model.kee.layers=1", "evaluate.retrieval_images=8",
    "train.epochs=2", "train.batch_size=16", "train.num_workers=2", "train.worker_cpus=0.4", "train.log_every=1",
    "train.sharding=fsdp",
    "data.read_cpus=0.1", "data.actor_cpus=0.4", "data.actors_max=2", "data.shuffle_buffer=32",
)  # fmt: skip
"""96 scenes for two epochs of six steps."""


def config(storage: Path, *overrides: str) -> Config:
    return load([*TINY, f"run.storage={storage}", *overrides])


def starter(storage: Path) -> Callable[..., Summary]:
    """Return the job as a function of its overrides; all its runs use the same storage."""

    def start(*overrides: str, console: Console | None = None) -> Summary:
        return pretrain.pretrain(config(storage, *overrides), console or Console(file=io.StringIO()))

    return start


def port_without_server() -> str:
    return f"http://127.0.0.1:{free_port()}"


def recorded(tracking_uri: str, name: str) -> Run:
    client = MlflowClient(tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    return run


def recorded_curve(tracking_uri: str, name: str, metric: str = "train/loss") -> dict[int, float]:
    """Return the curve of a run from MLflow; a step that was recorded twice fails the test."""
    run = recorded(tracking_uri, name)
    history = MlflowClient(tracking_uri).get_metric_history(run.info.run_id, metric)
    steps = [point.step for point in history]
    assert sorted(steps) == sorted(set(steps))
    return {point.step: point.value for point in sorted(history, key=lambda point: point.step)}


@contextmanager
def reports_seen(see: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Also pass each report of the runs in this block to `see`; training does not wait for it."""
    shown = Progress.report

    def report(self: Progress, report: dict[str, Any]) -> None:
        shown(self, report)
        see(report)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "report", report)
        yield


class Killer:
    """Kills a training worker with SIGKILL once the run has a checkpoint. It is called with each report."""

    def __init__(self) -> None:
        self.killed = False
        self._pid = 0

    def __call__(self, report: dict[str, Any]) -> None:
        if report["kind"] == "start" and not self._pid:
            # Looked up before the first step, since the query takes longer than some steps.
            alive = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
            self._pid = next(actor.pid for actor in list_actors(filters=alive, detail=True) if actor.pid)
        elif report["kind"] == "checkpoint" and not self.killed:
            os.kill(self._pid, signal.SIGKILL)
            self.killed = True
