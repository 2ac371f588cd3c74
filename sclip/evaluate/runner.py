"""Evaluate a model on benchmarks: read the files, look for all pictures, encode each input once, and score."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sclip.config import DataConfig, EvaluateConfig
from sclip.data.patterns import expand
from sclip.evaluate import features, kinds, suite
from sclip.evaluate.benchmarks import About, BenchmarkDataError, Task
from sclip.evaluate.exclusion import ExclusionError, Exclusions
from sclip.evaluate.features import FeatureEncoder, Here, Say
from sclip.evaluate.picture import Picture, excluded, missing
from sclip.evaluate.readers import shards
from sclip.evaluate.result import Evaluation, Result
from sclip.inference.scorer import Scorer
from sclip.storage.masking import mask

__all__ = ["check_files", "evaluate", "exclusions_of", "measure", "prepared", "tasks_of"]

_log = logging.getLogger(__name__)

_DEFAULTS = DataConfig()
ON_TRAINING = "retrieval_on_training_images"
"""Name of the retrieval benchmark if the model was trained on one of its shards."""


def evaluate(
    scorer: Scorer,
    config: EvaluateConfig,
    training_shards: Sequence[str] = (),
    *,
    data: DataConfig = _DEFAULTS,
    model: str = "",
) -> Evaluation:
    """Return every score that the config asks for.

    Args:
        scorer: the model to measure.
        config: a suite, retrieval shards or both. If both are empty, retrieval uses the training shards.
        training_shards: paths or patterns of the shards that the model was trained on.
        data: settings for reading shards; use those of the training.
        model: name of the model in the evaluation.

    Raises BenchmarkDataError or ShardError, naming file and case, if something cannot be read.
    """
    tasks = prepared(tasks_of(config, training_shards, data), exclusions=exclusions_of(config.exclude))
    encoder = Here(scorer, config.batch_size)
    return measure(encoder, tasks, model, facts(scorer, config.suite), reads_whole=scorer.reads_whole)


def check_files(config: EvaluateConfig, data: DataConfig = _DEFAULTS) -> None:
    """Raise the errors that `evaluate` would raise for bad files or missing pictures, before a run starts.

    These are BenchmarkDataError and ShardError.
    """
    prepared(tasks_of(config, (), data), exclusions=exclusions_of(config.exclude))


def exclusions_of(files: Sequence[str]) -> Exclusions | None:
    """Read exclusion lists; return None if `files` is empty. Raises BenchmarkDataError naming file and line."""
    try:
        return Exclusions.read([Path(file).expanduser() for file in files]) if files else None
    except ExclusionError as error:
        raise BenchmarkDataError(str(error)) from error


def tasks_of(config: EvaluateConfig, training_shards: Sequence[str], data: DataConfig) -> list[Task]:
    """Read the benchmarks that a config asks for. Arguments and errors as in `evaluate`."""
    defaults = {"limit": config.retrieval_images, **data.reading()}
    entries = suite.read(config.suite, config.root, defaults) if config.suite else []
    tasks = [entry.task() for entry in entries]
    trained = set(expand(training_shards))
    held_out = expand(config.retrieval) or ([] if config.suite else sorted(trained))
    if held_out:
        name = ON_TRAINING if trained & set(held_out) else "retrieval"
        if any(task.about.name == name for task in tasks):
            raise BenchmarkDataError(
                f"evaluate.retrieval: the suite has a benchmark {name!r} too; leave one out"
            )
        about = About(name, "shards", kinds.KINDS["shards"].definition)
        tasks.append(shards.read(about, config.retrieval or held_out, **defaults))
    return tasks


def prepared(
    tasks: Sequence[Task], partial: bool = False, exclusions: Exclusions | None = None
) -> list[Task]:
    """Return the tasks without excluded pictures and, with `partial`, without missing pictures. Notes count both.

    Raises BenchmarkDataError if a benchmark has no picture left or, without `partial`, if a picture is missing.
    """
    absent = set(missing(picture for task in tasks for picture in task.pictures()))
    present = [_without(task, absent, dict.fromkeys(absent, "no such file"), partial) for task in tasks]
    if exclusions is None:
        return present
    reasons = excluded((picture for task in present for picture in task.pictures()), exclusions)
    return [_excluding(task, reasons) for task in present]


def _excluding(task: Task, reasons: Mapping[str, str]) -> Task:
    lost = {picture for picture in task.pictures() if picture.image in reasons}
    if not lost:
        return task
    images = Counter(reasons[image] for image in {picture.image for picture in lost})
    counted = sorted(images.items(), key=lambda pair: (-pair[1], pair[0]))
    notes = tuple(f"{count:,} picture{'s' * (count > 1)} {reason}" for reason, count in counted)
    if len(lost) == len(set(task.pictures())):
        raise BenchmarkDataError(f"{task.about.name}: no picture is left ({'; '.join(notes)}); leave it out")
    kept: Any = task.without(lost)  # every task is a frozen dataclass
    about = replace(kept.about, notes=(*notes, *kept.about.notes))  # `left` replaces the last note
    return cast(Task, replace(kept, about=about))


def measure(
    encoder: FeatureEncoder,
    tasks: Sequence[Task],
    model: str,
    facts: Mapping[str, str],
    *,
    partial: bool = False,
    say: Say = lambda *_: None,
    reads_whole: Callable[[str], bool] = lambda _: True,
) -> Evaluation:
    """Encode each picture and caption of all tasks once, and return the evaluation of the model.

    `reads_whole`: whether the model reads a caption to the end; results count the captions that it truncates.
    Raises BenchmarkDataError for unreadable pictures, which `partial` leaves out instead.
    """
    readable: list[Task] = list(tasks)

    def drop(unreadable: Mapping[Picture, str]) -> None:
        for index, task in enumerate(readable):
            readable[index] = _without(task, unreadable.keys(), unreadable, partial)

    encoded = features.encode(
        encoder,
        (picture for task in tasks for picture in task.pictures()),
        (caption for task in readable for caption in task.captions()),
        say,
        drop,
    )
    whole = {caption: reads_whole(caption) for caption in encoded.caption_rows}
    return Evaluation(
        model, dict(facts), [_with_captions(task.result(encoded), task, whole) for task in readable]
    )


def _with_captions(result: Result, task: Task, whole: Mapping[str, bool]) -> Result:
    """Add the digest and a note on truncated captions."""
    captions = set(task.captions())
    content = json.dumps([sorted(result.won), sorted(captions)])
    result = replace(result, digest=hashlib.sha256(content.encode()).hexdigest())
    cut = sum(not whole[caption] for caption in captions)
    if not cut:
        return result
    share = (
        f"{cut:,} of {len(captions):,} captions ({cut / len(captions):.1%}) are longer than the model reads"
    )
    note = f"{share}, and were cut"
    return replace(result, counts=result.counts | {"cut_captions": cut}, notes=[*result.notes, note])


def facts(scorer: Scorer, suite: str) -> dict[str, str]:
    """Return the facts that identify a model and a measurement."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    versions = {name: importlib.metadata.version(name) for name in ("sclip", "torch", "open_clip_torch")}
    named = {"suite": suite} if suite else {}
    return {**scorer.facts(), **named, **versions, "time": now}


def _without(task: Task, gone: Collection[Picture], why: Mapping[Picture, str], partial: bool) -> Task:
    lost = [picture for picture in dict.fromkeys(task.pictures()) if picture in gone]
    if not lost:
        return task
    first = f"{mask(lost[0].image)}: {why[lost[0]]}"
    if task.skips_unreadable:
        for picture in lost:
            _log.warning("%s leaves out %s: %s", task.about.name, mask(picture.image), why[picture])
    elif not partial:
        total = len(set(task.pictures()))
        raise BenchmarkDataError(
            f"{task.about.name}: {len(lost):,} of {total:,} pictures cannot be read, the first is {first}; set its "
            "images to the folder that holds them, or pass --partial to score the others"
        )
    return task.without(lost)
