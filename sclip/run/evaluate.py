"""Models and benchmarks in; scores, a file and a page for each model, and a comparison out."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError

import sclip
from sclip.config import ConfigError, DataConfig
from sclip.data.shards import ShardError
from sclip.evaluate import features, runner, suite
from sclip.evaluate.benchmarks import BenchmarkDataError, Task
from sclip.evaluate.compare import Comparison, compare
from sclip.evaluate.encoder_pool import EncoderPool
from sclip.evaluate.result import EVALUATION_FILE, Evaluation, EvaluationError
from sclip.inference.scorer import Scorer
from sclip.launch import cluster
from sclip.model import ModelError
from sclip.registry import RegistryError
from sclip.report import comparison, evaluation
from sclip.scenegraph import ParserError
from sclip.train.manifest import CheckpointError

NOT_STARTED = (
    BenchmarkDataError, CheckpointError, ConfigError, ModelError, OSError, ParserError, RegistryError, ShardError,
)  # fmt: skip
"""What `read_tasks` and `open_scorers` raise; each message is written for the user."""

ERRORS = (BenchmarkDataError, EvaluationError, OSError, RayError, ShardError)
"""What `evaluate` raises."""

PROGRESS_S = 10.0
"""Between two lines of progress."""


@dataclass(frozen=True)
class Measured:
    """What was measured of all models."""

    evaluations: list[Evaluation]
    comparison: Comparison | None
    """With the first model, where there are several."""
    pages: list[Path]


def read_tasks(
    suite_name: str,
    root: str,
    benchmarks: Sequence[str],
    images: Sequence[str],
    exclude: Sequence[str],
    partial: bool,
    data: DataConfig,
) -> list[Task]:
    """Return the benchmarks of a suite, or those written as KIND=FILE, without the pictures of exclusion lists.

    `data` says how shards are read where a suite does not.
    """
    if suite_name:
        entries = suite.read(suite_name, root, data.reading())
    else:
        named = [(kind, file) for kind, _, file in (text.partition("=") for text in benchmarks)]
        entries = suite.from_options(named, images, data.reading())
    exclusions = runner.exclusions_of(exclude)
    return runner.prepared([entry.task() for entry in entries], partial, exclusions)


def open_scorers(
    models: Sequence[str], device: str, actors: int, tracking_uri: str, storage: str
) -> list[Scorer]:
    """Return the models; where actors encode, on this process's CPU and with the cluster connected."""
    scorers = [sclip.load(name, "cpu" if actors else device, tracking_uri, storage) for name in models]
    if actors:
        capacity = cluster.connect()
        gpu = device != "cpu"
        if actors > (capacity.gpus if gpu else capacity.cpus):
            raise ConfigError(
                f"--actors={actors}: the cluster has {capacity.cpus:g} CPUs and {capacity.gpus:g} GPUs, "
                f"and each takes {'a GPU' if gpu else 'a CPU'}; lower it"
            )
    return scorers


def evaluate(
    tasks: Sequence[Task],
    models: Sequence[str],
    scorers: Sequence[Scorer],
    out: Path,
    suite_name: str,
    *,
    partial: bool,
    device: str,
    actors: int,
    batch_size: int,
) -> Measured:
    """Measure each model, in this process or by so many actors; write the results, of several models a comparison."""
    evaluations, pages = [], []
    for name, scorer, folder in zip(models, scorers, _folders(models, out), strict=True):
        measured = measure(tasks, name, scorer, suite_name, partial, device, actors, batch_size)
        measured.write(folder / EVALUATION_FILE)
        pages.append(evaluation.write(measured, folder, graphs=scorer.scene_graph))
        evaluations.append(measured)
    compared = compare(evaluations) if len(evaluations) > 1 else None
    if compared:
        pages = [comparison.write(compared, out), *pages]
    return Measured(evaluations, compared, pages)


def measure(
    tasks: Sequence[Task],
    model: str,
    scorer: Scorer,
    suite_name: str,
    partial: bool,
    device: str,
    actors: int,
    batch_size: int,
) -> Evaluation:
    """Measure one model, in this process or by so many actors."""
    with contextlib.ExitStack() as stack:
        encoder: features.FeatureEncoder = features.Here(scorer, batch_size)
        if actors:
            encoder = stack.enter_context(EncoderPool(scorer, actors, batch_size, device))
        facts = runner.facts(scorer, suite_name)
        return runner.measure(
            encoder, tasks, model, facts,
            partial=partial, say=_progress(model), reads_whole=scorer.reads_whole,
        )  # fmt: skip


def _folders(models: Sequence[str], out: Path) -> list[Path]:
    """Return a folder for each model's files: `out` for one, and below it, called as the models, for several."""
    if len(models) == 1:
        return [out]
    names = [re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model" for model in models]
    return [
        out / (name if names.count(name) == 1 else f"{name}-{number}") for number, name in enumerate(names)
    ]


def _progress(model: str) -> Callable[[str, int, int], None]:
    said = time.monotonic()

    def say(what: str, done: int, of: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said >= PROGRESS_S:
            said = now
            print(f"{model}: {done:,} of {of:,} {what} encoded", file=sys.stderr, flush=True)

    return say
