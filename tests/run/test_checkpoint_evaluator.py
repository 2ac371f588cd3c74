"""Evaluation during training: one at a time, on checkpoints that are kept, at no cost to the run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import ray

from sclip.config import CheckpointConfig, EvaluateConfig
from sclip.run.checkpoint_evaluator import CheckpointEvaluator
from sclip.train import manifest, run_checkpoints
from sclip.train.run_folder import RunFolder
from support.ray_head import Head

pytestmark = pytest.mark.cluster

Score = Callable[[str], dict[str, float]]


class Run:
    """A run without training. It collects the scores and the messages of its evaluator."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path / "run")
        self.scores: dict[int, dict[str, float]] = {}
        self.said: list[str] = []

    def evaluator(self, score: Score, cpus: float = 0.1) -> CheckpointEvaluator:
        def log(scores: Mapping[str, float], step: int) -> None:
            self.scores[step] = dict(scores)

        return CheckpointEvaluator(
            EvaluateConfig(every=2, cpus=cpus), self.folder, score, log, self.said.append
        )

    def checkpoint(self, evaluator: CheckpointEvaluator, step: int) -> None:
        """Write a checkpoint, prune older ones, and report the new one to the evaluator."""
        (path := self.folder.step_path(step)).mkdir(parents=True)
        manifest.write_manifest(path, {}, {})
        run_checkpoints.prune(self.folder, CheckpointConfig(keep_last=1))
        evaluator.checkpoint(path.name, step)

    @property
    def held(self) -> bool:
        return bool(list(self.folder.path.glob("held-*")))

    @property
    def steps(self) -> list[int]:
        return [int(path.name.removeprefix("step-")) for path in self.folder.checkpoints()]


@pytest.fixture(scope="module", autouse=True)
def _attached(head: Head) -> Iterator[None]:
    ray.init(address=head.address, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_slow_evaluation_skips_checkpoints_and_keeps_the_one_that_it_reads(
    run: Run, tmp_path: Path
) -> None:
    os.mkfifo(gate := str(tmp_path / "gate"))

    def score(name: str) -> dict[str, float]:
        return {"relation/accuracy": float(open(gate).read()), "step": float(name.removeprefix("step-"))}

    evaluator = run.evaluator(score)
    for step in (1, 2, 3, 4, 5):
        run.checkpoint(evaluator, step)
    assert run.steps == [5, 2]
    assert run.said == ["step 4 is not evaluated: the evaluation of step 2 still goes on"]
    assert run.scores == {}
    with open(gate, "w") as opened:
        opened.write("0.75")
    evaluator.close()
    assert run.scores == {2: {"relation/accuracy": 0.75, "step": 2}}
    run_checkpoints.prune(run.folder, CheckpointConfig(keep_last=1))
    assert run.steps == [5]


def test_a_failed_or_killed_evaluation_is_reported_and_the_next_one_runs(run: Run) -> None:
    def score(name: str) -> dict[str, float]:
        if name == "step-00000002":
            raise ValueError("relation.json: no such file")
        if name == "step-00000004":
            os.kill(os.getpid(), signal.SIGKILL)
        return {"relation/accuracy": 0.5}

    evaluator = run.evaluator(score)
    for step in (2, 4, 6):
        run.checkpoint(evaluator, step)
        assert evaluator._running
        ray.wait([evaluator._running[0]])
        evaluator.poll()
        assert not run.held
    evaluator.close()
    assert run.scores == {6: {"relation/accuracy": 0.5}}
    failed, killed = run.said
    assert failed == "step 2 was not evaluated: relation.json: no such file"
    assert killed.startswith("step 4 was not evaluated: ")


def test_no_checkpoint_stays_held_after_a_run_is_stopped_or_its_driver_dies(run: Run, tmp_path: Path) -> None:
    os.mkfifo(gate := str(tmp_path / "gate"))
    evaluator = run.evaluator(lambda name: {"relation/accuracy": float(Path(gate).read_text())}, cpus=4)
    run.checkpoint(evaluator, 2)
    assert run.held
    evaluator.abandon()
    assert not run.held
    assert ray.get(ray.remote(num_cpus=4)(lambda: True).remote())  # the evaluation's CPUs are free again
    run.folder.hold("step-00000002")
    run.evaluator(lambda name: {}).close()
    assert not run.held
