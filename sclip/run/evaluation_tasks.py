"""Export and evaluate checkpoints of a run in Ray tasks; the run's folder stores the evaluations."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sclip.config import Config
from sclip.evaluate.result import EVALUATION_FILE, Evaluation
from sclip.evaluate.runner import evaluate
from sclip.inference.scorer import Scorer
from sclip.model import StructureCLIP
from sclip.storage.paths import send, staged
from sclip.train import checkpoint
from sclip.train.run_folder import RunFolder
from sclip.train.teacher import build_start

__all__ = [
    "BEFORE",
    "EVALUATION_BEFORE",
    "checkpoint_scorer",
    "measure_before",
    "measure_trained",
    "retention",
]

BEFORE = "before training"
"""Model name in the evaluation of the weights that a run starts from."""
EVALUATION_BEFORE = "evaluation-before.json"
_RETAINED = ("retrieval", "shards", "zero-shot")
"""Kinds of benchmarks that `retention` compares: they test what a model can do before training."""


def measure_trained(config: Config, folder: RunFolder, step: str, shards: Sequence[str]) -> Evaluation:
    """Export checkpoint `step` to the run's model folder; evaluate it with the resources of one training worker."""
    _on_cluster(config, _export_and_score, config, folder, step, shards)
    return Evaluation.read(folder.path / EVALUATION_FILE)


def measure_before(config: Config, folder: RunFolder, shards: Sequence[str]) -> Evaluation:
    """Evaluate the weights that training starts from, once per run; later calls return the stored evaluation."""
    path = folder.path / EVALUATION_BEFORE
    if not path.exists():
        _on_cluster(config, _score_before, config, folder, shards)
    return Evaluation.read(path)


def checkpoint_scorer(
    config: Config, folder: RunFolder, shards: Sequence[str]
) -> Callable[[str], dict[str, float]]:
    """Return a picklable function from the name of a checkpoint's folder to the checkpoint's scores."""
    suite = config.evaluate.suite_beside
    if suite:
        config = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, suite=suite))
    return functools.partial(_score_checkpoint, config, folder, shards, "beside/" if suite else "")


def retention(before: Evaluation, after: Evaluation) -> dict[str, float]:
    """Return the retention of each benchmark of the kinds in `_RETAINED`, and the mean of all.

    The retention is the headline score after training, divided by the score before. It is absent if the divisor is 0.
    """
    kept = {}
    old_results = {result.name: result for result in before.results}
    for result in after.results:
        if result.kind in _RETAINED and result.name in old_results:
            old_score = old_results[result.name].scores[result.headline].value
            if old_score > 0:
                kept[f"retention/{result.name}"] = result.scores[result.headline].value / old_score
    return kept | ({"retention/mean": sum(kept.values()) / len(kept)} if kept else {})


def _on_cluster(config: Config, function: Callable[..., None], *arguments: Any) -> None:
    """Run a function in a task with the CPUs and the GPU of one training worker, while no worker trains."""
    gpus = 1 if config.train.use_gpu else 0
    # Run outside the placement group of a sweep's trial, which has room only for the trial's driver.
    strategy = PlacementGroupSchedulingStrategy(placement_group=None)
    task = ray.remote(num_cpus=config.train.worker_cpus, num_gpus=gpus, scheduling_strategy=strategy)(
        function
    )
    try:
        ray.get(task.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, ValueError | RuntimeError) else error) from None


def _export_and_score(config: Config, folder: RunFolder, step: str, shards: Sequence[str]) -> None:
    model = _consolidated(config, folder, step)
    scorer = _scorer(config, model, "cuda" if config.train.use_gpu else "cpu")
    evaluation = _evaluation(scorer, config, shards, config.run.name)
    with staged(folder.model) as exported:
        scorer.save(exported)
        send(exported, folder.model)
    _write(evaluation, folder, EVALUATION_FILE)


def _score_before(config: Config, folder: RunFolder, shards: Sequence[str]) -> None:
    scorer = _scorer(config, build_start(folder, config.model), "cuda" if config.train.use_gpu else "cpu")
    _write(_evaluation(scorer, config, shards, BEFORE), folder, EVALUATION_BEFORE)


def _write(evaluation: Evaluation, folder: RunFolder, name: str) -> None:
    with staged(folder.path) as staging:
        evaluation.write(staging / name)
        send(staging, folder.path, [name])


def _score_checkpoint(
    config: Config, folder: RunFolder, shards: Sequence[str], prefix: str, step: str
) -> dict[str, float]:
    model = _consolidated(config, folder, step)
    scorer = _scorer(config, model, "cuda" if config.evaluate.gpus else "cpu")
    scores = _evaluation(scorer, config, shards, step).scores()
    return {f"{prefix}{name}": value for name, value in scores.items()}


def _consolidated(config: Config, folder: RunFolder, step: str) -> StructureCLIP:
    if not config.model.lora.rank:
        return checkpoint.consolidate(folder.path / step, config.model)
    # A LoRA checkpoint holds only updates of the starting weights.
    with folder.starting(config.model) as model:
        return checkpoint.consolidate(folder.path / step, model)


def _scorer(config: Config, model: StructureCLIP, device: str) -> Scorer:
    return Scorer(model, config.data.spacy_model, device)


def _evaluation(scorer: Scorer, config: Config, shards: Sequence[str], model: str) -> Evaluation:
    return evaluate(scorer, config.evaluate, shards, data=config.data, model=model)
