"""Measure models on benchmarks; write a file and a page for each model, a comparison and a table for a paper.

A model may also be an `evaluation.json`: its stored scores are shown beside the others, without a new measurement.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError

import sclip
from sclip.config import ConfigError, DataConfig
from sclip.data.shards import ShardError
from sclip.evaluate import features, runner, score_table, suite
from sclip.evaluate.benchmarks import BenchmarkDataError, Task
from sclip.evaluate.compare import Comparison, compare
from sclip.evaluate.encoder_pool import EncoderPool
from sclip.evaluate.result import EVALUATION_FILE, Evaluation, EvaluationError
from sclip.evaluate.suite import Entry
from sclip.inference.scorer import Scorer
from sclip.launch import cluster
from sclip.model import ModelError
from sclip.registry import RegistryError
from sclip.report import comparison, evaluation
from sclip.report import score_table as table_files
from sclip.scenegraph import ParserError
from sclip.storage.paths import storage_path
from sclip.train.manifest import CheckpointError

NOT_STARTED = (
    BenchmarkDataError, CheckpointError, ConfigError, EvaluationError, ModelError, OSError, ParserError, RegistryError,
    ShardError,
)  # fmt: skip
"""Errors that `open_scorers` and all `read_*` functions raise; each message is written for the user."""

ERRORS = (BenchmarkDataError, EvaluationError, OSError, RayError, ShardError)
"""Errors that `evaluate` and `write_tables` raise."""

PROGRESS_S = 10.0
"""Minimum seconds between two lines of progress."""


@dataclass(frozen=True)
class Measured:
    """Results of all models."""

    evaluations: list[Evaluation]
    comparison: Comparison | None
    """Comparison with the first model; None for a single model, or for models that could not be compared."""
    pages: list[Path]
    not_compared: str = ""
    """Reason why several models could not be compared."""


def read_entries(
    suite_name: str, root: str, benchmarks: Sequence[str], images: Sequence[str], data: DataConfig
) -> list[Entry]:
    """Return the benchmarks of a suite, or those given as KIND=FILE. `data` has defaults for reading shards."""
    if suite_name:
        return suite.read(suite_name, root, data.reading())
    pairs = [(kind, file) for kind, _, file in (text.partition("=") for text in benchmarks)]
    return suite.from_options(pairs, images, data.reading()) if pairs else []


def read_tasks(entries: Sequence[Entry], exclude: Sequence[str], partial: bool) -> list[Task]:
    """Read the files of the benchmarks, and drop pictures that are on the exclusion lists."""
    exclusions = runner.exclusions_of(exclude)
    return runner.prepared([entry.task() for entry in entries], partial, exclusions)


def read_evaluations(files: Sequence[str]) -> dict[str, Evaluation]:
    """Read evaluation files; return them by path or URI."""
    return {file: Evaluation.read(storage_path(file)) for file in files}


def open_scorers(
    models: Sequence[str], device: str, actors: int, tracking_uri: str, storage: str
) -> list[Scorer]:
    """Load the models on `device`, or on the CPU if actors will run copies of them."""
    if actors:
        capacity = cluster.connect()
        gpu = device != "cpu"
        if actors > (capacity.gpus if gpu else capacity.cpus):
            raise ConfigError(
                f"--actors={actors}: the cluster has {capacity.cpus:g} CPUs and {capacity.gpus:g} GPUs, "
                f"and each takes {'a GPU' if gpu else 'a CPU'}; lower it"
            )
    return [sclip.load(name, "cpu" if actors else device, tracking_uri, storage) for name in models]


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
    known: Mapping[str, Evaluation],
) -> Measured:
    """Measure each model as `measure` does, and write its results. If there are several, compare them with the first.

    `known` holds stored evaluations by model name; these models are not measured and have no scorer.
    """
    evaluations, pages, unused_scorers = list[Evaluation](), list[Path](), iter(scorers)
    for name, folder in zip(models, _folders(models, out), strict=True):
        if name in known:
            evaluations.append(known[name])
            continue
        scorer = next(unused_scorers)
        measured = measure(tasks, name, scorer, suite_name, partial, device, actors, batch_size)
        measured.write(folder / EVALUATION_FILE)
        pages.append(evaluation.write(measured, folder, graphs=scorer.scene_graph))
        evaluations.append(measured)
    if len(evaluations) < 2:
        return Measured(evaluations, None, pages)
    try:
        compared = compare(evaluations)
    except EvaluationError as error:  # stored evaluations may be of other benchmarks
        return Measured(evaluations, None, pages, str(error))
    return Measured(evaluations, compared, [comparison.write(compared, out), *pages])


def write_tables(
    evaluations: Sequence[Evaluation], benchmarks: Sequence[str], files: Sequence[Path]
) -> list[Path]:
    """Write the score table of these benchmarks, or of all if none is named, into each file."""
    if not files:
        return []
    table = score_table.score_table(evaluations, benchmarks)
    return [table_files.write(table, file) for file in files]


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
    """Measure one model: in this process if `actors` is 0, else with this number of actors."""
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
    """Return `out` for a single model, else subfolders of `out` named after the models."""
    if len(models) == 1:
        return [out]
    names = [re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model" for model in models]
    if len(set(names)) < len(names):
        names = [f"{name}-{number}" for number, name in enumerate(names)]
    return [out / name for name in names]


def _progress(model: str) -> Callable[[str, int, int], None]:
    printed_at = time.monotonic()

    def say(kind: str, done: int, total: int) -> None:
        nonlocal printed_at
        if (now := time.monotonic()) - printed_at >= PROGRESS_S:
            printed_at = now
            print(f"{model}: {done:,} of {total:,} {kind} encoded", file=sys.stderr, flush=True)

    return say
