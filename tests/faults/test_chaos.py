"""A run over shards with every defect that loses each kind of process trains on every row once, in its step."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.util.state import list_actors
from rich.console import Console
from safetensors.torch import load_file

from sclip.config.loader import load
from sclip.model.weights import WEIGHTS_FILE
from sclip.run import pretrain
from sclip.run.audit.account import audit
from sclip.tracking import history
from sclip.train.run_folder import RunFolder
from support.commands import command
from support.defective_shards import Planted, write
from support.paths import ROOT
from support.processes import environment
from support.ray_head import Head
from support.runs import recorded_curve

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

EPOCHS = 6
JOB = (
    "model.kee.layers=1", f"train.epochs={EPOCHS}", "train.batch_size=15",
    "train.worker_cpus=0.4", "train.log_every=1", "data.actor_cpus=0.4", "data.read_cpus=0.1", "data.shuffle_buffer=8",
    "data.actors_max=2", "data.block_samples=4", "data.max_quarantined=0.5", "data.max_unreadable_shards=3",
    "checkpoint.every=4", "evaluate.retrieval_images=8",
)  # fmt: skip
PATIENCE_S = 500


@pytest.fixture(autouse=True)
def _attached(head: Head, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attach this process to the cluster, so that it can find the actors of the jobs."""
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    ray.init(address=head.address, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def job_arguments(folder: Path, workers: int, name: str = "chaos") -> list[str]:
    """Return the job's arguments."""
    return [
        *JOB, f"run.name={name}", f"data.shards={folder}/shards/*.tar", f"run.storage={folder}",
        f"train.num_workers={workers}",
    ]  # fmt: skip


def undisturbed(folder: Path, name: str) -> RunFolder:
    """Train the same job on two workers without any fault."""
    pretrain.pretrain(load(job_arguments(folder, 2, name)), Console(file=io.StringIO()))
    return RunFolder(folder / "runs" / name)


def rows_of_steps(run: RunFolder) -> dict[int, list[list[object]]]:
    """Return the sorted ledger rows of all ranks for each step; a later attempt replaces the steps that it repeats."""
    steps: dict[int, list[list[object]]] = {}
    attempts: dict[int, list[list[dict[str, Any]]]] = {}
    for file in sorted((run.path / "ledger").glob("*.jsonl")):
        head, *lines = map(json.loads, file.read_text().splitlines())
        attempts.setdefault(head["attempt"], []).append([head, *lines])
    for attempt in attempts.values():
        steps = {step: rows for step, rows in steps.items() if step <= attempt[0][0]["from_step"]}
        for _, *lines in attempt:
            for line in lines:
                for kind in ("trained", "filtered"):
                    for *visit, indices in line.get(kind, []):
                        steps.setdefault(line["step"], []).extend([kind, *visit, index] for index in indices)
    return {step: sorted(rows, key=str) for step, rows in steps.items()}


class Job:
    """`jobs/pretrain.py` in a separate process, on the planted shards."""

    def __init__(self, head: Head, folder: Path, workers: int) -> None:
        self.run = RunFolder(folder / "runs" / "chaos")
        self.log = folder / f"log-{time.monotonic_ns()}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "jobs/pretrain.py", *job_arguments(folder, workers)],
                cwd=ROOT, env=environment(RAY_ADDRESS=head.address), stdout=log, stderr=log,
            )  # fmt: skip

    def until(self, true: Callable[[], object], event: str) -> None:
        """Wait until `true()` holds; fail if the job ends first."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert self.process.poll() is None, f"the job ended before {event}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"not {event} in {PATIENCE_S} s:\n{self.log.read_text()}"
            time.sleep(0.05)

    def until_checkpoint_after(self, step: int) -> int:
        self.until(lambda: self.newest > step, f"a checkpoint after step {step}")
        return self.newest

    @property
    def newest(self) -> int:
        latest = self.run.latest()
        return latest[1] if latest else 0

    def actor(self, name: str) -> int:
        """Wait for a living actor whose class name contains `name`; return its process ID."""
        pids: list[int] = []

        def lives() -> bool:
            alive = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
            pids.extend(actor.pid for actor in alive if name in actor.class_name and actor.pid)
            return bool(pids)

        self.until(lives, f"a {name} to kill")
        return pids[0]

    def kill(self) -> None:
        """Kill the driver itself with SIGKILL."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    (tmp_path / "shards").mkdir()
    return write(tmp_path / "shards")


def test_after_kills_of_all_kinds_and_with_other_worker_counts_steps_have_the_rows_of_an_undisturbed_run(
    head: Head, tmp_path: Path, planted: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(head, tmp_path, workers=2)
    os.kill(job.actor("_ImportedEncoder"), signal.SIGKILL)  # at once, because so little data is soon encoded
    # Looked up before the first step, since the query takes longer than some steps.
    worker = job.actor("RayTrainWorker")
    step = job.until_checkpoint_after(0)
    os.kill(worker, signal.SIGKILL)
    step = job.until_checkpoint_after(step)
    job.kill()
    job = Job(head, tmp_path, workers=1)
    job.until_checkpoint_after(step)
    job.kill()
    pretrain.pretrain(load(job_arguments(tmp_path, 2)), Console(file=(output := io.StringIO())))
    assert "training with 2 workers at step " in output.getvalue()

    result = audit(job.run.path)
    good = sum(map(len, planted.good.values()))
    assert (result.missed, result.repeated, result.unknown) == (0, 0, 0)
    assert result.complete
    assert result.trained_once == EPOCHS * good
    assert result.expected == result.trained_once + result.quarantined
    rows = [(Path(row.shard).name, row.key, row.reason) for row in result.quarantined_rows]
    no_tars = ("empty.tar", "garbage.tar", "page.tar")
    defects = [defect for defect in planted.defects if defect[0] not in no_tars]
    assert sorted(row[:2] for row in rows) == sorted(defect[:2] for defect in defects)
    for shard, key, reason in defects:
        assert any(row[:2] == (shard, key) and reason in row[2] for row in rows), (shard, key, reason)
    assert {row.passes for row in result.quarantined_rows} == {EPOCHS}
    cut = [shard for shard, key, _ in defects if not key]
    assert sorted(Path(lost.shard).name for lost in result.lost) == sorted([*no_tars, *cut])
    assert command("audit")(job.run.path) == 1
    assert re.search(r" missed=0 repeated=0 .*order=exact", capsys.readouterr().out)
    assert max(recorded_curve(f"sqlite:///{tmp_path}/mlflow.db", "chaos")) == job.newest

    first, second = undisturbed(tmp_path, "first"), undisturbed(tmp_path, "second")
    assert audit(first.path).order == "exact"
    assert rows_of_steps(first) == rows_of_steps(second) == rows_of_steps(job.run)
    losses, undisturbed_losses = (dict(history(run.path)["train/loss"]) for run in (job.run, first))
    assert len(losses) > 0.8 * len(undisturbed_losses)  # a killed driver has not logged its last steps
    assert losses == pytest.approx({step: undisturbed_losses[step] for step in losses}, abs=1e-4)
    weights = [load_file(run.model / WEIGHTS_FILE) for run in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
