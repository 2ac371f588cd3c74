"""The main job from end to end: a config in, a registered model out.

    shards -> (Ray Data) -> encoded rows -> (Ray Train) -> checkpoints -> exported model -> scores -> registry

Every stage leaves its result in the run's folder before the next begins, so a run that is started again
under its name goes on with the first stage that is not done.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sclip import registry, scenes, tracking
from sclip.config import Config, ConfigError
from sclip.config_loader import to_tree
from sclip.data.pack import PackError
from sclip.data.shards import ShardError, count_samples, expand
from sclip.data.stream import StreamPlan
from sclip.evaluate.benchmarks import BenchmarkError
from sclip.evaluate.runner import evaluate
from sclip.model import ModelError, image_size
from sclip.model.export import WEIGHTS_FILE
from sclip.scenegraph import ParserError
from sclip.scorer import Scorer
from sclip.train import checkpoint, cluster, trainer
from sclip.train.checkpoint import CheckpointError
from sclip.train.progress import Progress
from sclip.train.run_folder import RunFolder


ERRORS = (
    BenchmarkError, CheckpointError, ModelError, PackError, ParserError, registry.RegistryError, ShardError,
    tracking.TrackingError, trainer.TrainingFailed,
)  # fmt: skip
"""What `pretrain` raises beside ConfigError; each message is written for the user."""


@dataclass(frozen=True)
class Summary:
    """What a finished run left behind."""

    folder: Path
    trained: dict[str, Any]
    """step, samples, quarantined, checkpoint."""
    scores: dict[str, float]
    version: str
    tracking_uri: str


def pretrain(config: Config, console: Console) -> Summary:
    """Train, evaluate and register one run; go on with it where it was begun before.

    Raises ConfigError or one of ERRORS, each with a message for the user.
    """
    config = _resolved(config, console)
    folder = RunFolder(Path(config.run.storage) / "runs" / config.run.name)
    size = image_size(config.model.name)
    capacity = cluster.connect()
    actors = cluster.actor_bounds(config, capacity)
    counts = count_samples(expand(config.data.shards))
    samples = sum(counts.values()) * config.train.epochs
    if not samples:
        raise ConfigError(f"data.shards={list(config.data.shards)}: {len(counts)} shards without a sample")
    folder.start(to_tree(config), counts)
    tracker = tracking.open_run(config, config.run.name, config.run.storage)
    console.print(Text(
        f"run {config.run.name}: {sum(counts.values()):,} samples in {len(counts)} shards, {config.train.epochs} epochs, "
        f"{config.model.name}, {config.train.num_workers} x {'GPU' if config.train.use_gpu else 'CPU'} workers, "
        f"{actors[0]}..{actors[1]} encoder actors"
    ), soft_wrap=True)  # fmt: skip
    try:
        if folder.complete is None:
            plan = StreamPlan(_started_from(config, folder), tuple(sorted(counts)), size, actors)
            _train(plan, folder, samples, tracker, console)
        summary = _finish(config, folder, tracker, console)
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")
    return summary


def _resolved(config: Config, console: Console) -> Config:
    """Fill in the run's name, an absolute storage folder and, where no shards are given, the scenes."""
    if "://" in config.run.storage:
        raise ConfigError(f"run.storage={config.run.storage!r}: a folder that every node reaches, not a URI")
    storage = Path(config.run.storage).expanduser().absolute()
    name = config.run.name or f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=name, storage=str(storage)))
    if config.data.shards:
        return config
    console.print("no data.shards given: training on generated scenes (yours: data.shards='/data/*.tar')", soft_wrap=True)
    made = scenes.generate(storage / "scenes", config.scenes, config.run.seed)
    found = dataclasses.replace(
        config.evaluate,
        relation=str(made.relation), attribute=str(made.attribute), images=str(made.images),
        retrieval=(str(made.heldout),),
    )  # fmt: skip
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, shards=(str(made.train),)), evaluate=found
    )


def _started_from(config: Config, folder: RunFolder) -> Config:
    """Copy the weights of `run.init_from` into the run's folder and name them as the pretrained ones."""
    source = config.run.init_from
    if not source:
        return config
    weights = folder.path / "init.safetensors"
    if not weights.exists():
        temporary = weights.with_suffix(".partial")
        shutil.copyfile(_weights(source, config), temporary)
        temporary.replace(weights)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, pretrained=str(weights)))


def _weights(source: str, config: Config) -> Path:
    if source.startswith("models:/"):
        return registry.download(source, tracking.store_uri(config, config.run.storage)) / WEIGHTS_FILE
    path = Path(source).expanduser()
    candidates = (path, path / WEIGHTS_FILE, path / "model" / WEIGHTS_FILE)
    run = Path(config.run.storage) / "runs" / source / "model" / WEIGHTS_FILE
    for candidate in (*candidates, run):
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"run.init_from={source!r}: no .safetensors file, no folder of a finished run, and no models:/NAME@alias"
    )


def _train(plan: StreamPlan, folder: RunFolder, samples: int, tracker: tracking.Tracker, console: Console) -> None:
    config = plan.config
    with Progress(samples, config.train.batch_size, config.run.progress_every_s, console) as progress:

        def on_report(report: dict[str, Any]) -> None:
            progress.report(report)
            if report["kind"] == "metrics":
                tracker.log({f"train/{k}": v for k, v in report["metrics"].items()}, report["step"])

        trainer.fit(plan, folder, samples, on_report)


def _finish(config: Config, folder: RunFolder, tracker: tracking.Tracker, console: Console) -> Summary:
    """Export, score and register the trained model, unless that was done before."""
    trained = folder.complete
    if trained is None:
        raise trainer.TrainingFailed("training ended without an error, but not every sample was trained on")
    result = folder.result
    if result is None:
        console.print("evaluating the trained model")
        gpus = 1 if config.train.use_gpu else 0
        task = ray.remote(num_cpus=config.train.worker_cpus, num_gpus=gpus)(_export_and_score)
        shards = expand(config.data.shards)
        try:
            scores = ray.get(task.remote(config, folder.path, trained["checkpoint"], shards))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, ERRORS) else error) from None
        tracker.log(scores, trained["step"])
        version = registry.register(tracker.client, tracker.run_id, folder.model, config.tracking.model_name, scores)
        result = {"scores": scores, "version": version}
        folder.record_result(result)
    return Summary(folder.path, trained, result["scores"], result["version"], tracker.uri)


def _export_and_score(config: Config, path: Path, step: str, shards: Sequence[str]) -> dict[str, float]:
    folder = RunFolder(path)
    model = checkpoint.consolidate(folder.path / step, config.model)
    scorer = Scorer(model, config.data.spacy_model, "cuda" if config.train.use_gpu else "cpu")
    scorer.save(folder.model)
    return evaluate(scorer, config.evaluate, shards, caption_field=config.data.caption_field)


def show(summary: Summary, config: Config, console: Console) -> None:
    """Print the closing table: what was trained, the scores, where the run is, how to look at it."""
    trained = summary.trained
    table = Table(title=f"run {summary.folder.name}", title_justify="left", show_header=False)
    table.add_row("trained", f"{trained['samples']:,} samples in {trained['step']:,} steps")
    if trained["quarantined"]:
        where = summary.folder / "quarantine.jsonl"
        table.add_row("quarantined", f"{trained['quarantined']:,} samples could not be trained on: {where}")
    for name, score in summary.scores.items():
        if name.rsplit("/", 1)[-1] not in ("cases", "images", "captions"):
            filled = round(20 * score)
            table.add_row(name, f"{score:6.3f}  {'█' * filled}{'░' * (20 - filled)}")
    table.add_row("model", f"{config.tracking.model_name} version {summary.version}, alias candidate")
    table.add_row("run folder", str(summary.folder))
    table.add_row("look at it", f"mlflow ui --backend-store-uri {tracking.mask(summary.tracking_uri)}")
    console.print(table)
