"""Settings of a run: name and storage, evaluation, tracking, and the gates that a model version must pass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from sclip.config.checks import OFF_OR_MORE, POSITIVE, ConfigError, Limit, Section, at_least, between

__all__ = ["EvaluateConfig", "Gate", "RunConfig", "TrackingConfig", "parse_gate"]

_NAME = Limit(
    "letters, digits, '-', '_' and '.' only, no leading '.'",
    lambda name: not name.startswith(".") and all(c.isalnum() or c in "-_." for c in name),
)
_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE]-?[0-9]+)?"
_GATE = re.compile(
    rf"(?P<score>[^\s<>=/]+/[^\s<>=/]+)\s*>=\s*(?:(?P<least>{_NUMBER})"
    rf"|champion(?:\s*-\s*(?:(?P<margin>{_NUMBER})|(?P<interval>interval)))?)"
)
_GATE_FORMS = (
    "a gate is BENCHMARK/SCORE >= BOUND; BOUND is NUMBER, champion, champion - NUMBER or champion - interval "
    "(vg_relation/macro >= champion - interval)"
)


@dataclass(frozen=True)
class RunConfig(Section, key="run"):
    """Name, storage, start and output of the run."""

    name: Annotated[str, _NAME] = ""
    """Name of the run; a start with the same name and config resumes it. Empty: generated from the time."""
    storage: str = "~/sclip"
    """Folder that every node reaches, or `s3://..`, `gs://..`, for runs, generated scenes and, by default, MLflow."""
    seed: int = 0
    """Seed of every random choice. A choice about a sample also depends on epoch, shard and the sample's key."""
    init_from: str = ""
    """Starting weights: a finished run (name or folder), `models:/NAME@alias`, or any value of model.pretrained."""
    compare_with: str = ""
    """Name of a finished run in run.storage. The closing table shows its scores next to this run's."""
    max_failures: Annotated[int, at_least(-1, "-1, 0 or a positive number")] = 3
    """Maximum restarts from the last checkpoint after a worker is lost; -1: no limit."""
    progress_every_s: Annotated[float, POSITIVE] = 10.0
    """Seconds between progress lines if the output is not a terminal."""
    log_format: Literal["text", "json"] = "text"
    """Output of the job: lines for people, or JSON objects with run and step. Workers always log JSON objects."""


@dataclass(frozen=True)
class EvaluateConfig(Section, key="evaluate"):
    """Benchmarks of the trained model, and evaluations during training."""

    suite: str = ""
    """Suite of benchmarks: a YAML file, or aro, sugarcrepe, sugarcrepe-pp, winoground, whatsup, pairs, negbench,
    hard-positives, retrieval, long-captions, zero-shot, paper, field, all. Empty: none."""
    root: Annotated[str, Limit("name a folder", bool)] = "~/sclip/benchmarks"
    """Folder with the files of the named suites. sclip fetch says which files belong there."""
    retrieval: tuple[str, ...] = ()
    """Shards for image-text retrieval. Empty: none if a suite is set, else the training shards, labeled as such."""
    retrieval_images: Annotated[int, at_least(1)] = 1000
    """Maximum images for retrieval on shards."""
    exclude: tuple[str, ...] = ()
    """Lists of training pictures to leave out of the benchmarks; sclip exclude writes them."""
    batch_size: Annotated[int, at_least(1)] = 128
    """Images or captions encoded at a time."""
    before: bool = False
    """Also evaluate the starting weights. For each retrieval and zero-shot benchmark, the metric retention/... is then
    the score after training divided by the score before."""
    every: Annotated[int, OFF_OR_MORE] = 0
    """Steps between evaluations during training. Each uses the checkpoint of its step. 0: evaluate only at the end."""
    suite_beside: str = ""
    """Suite for evaluations during training; scores are logged as beside/... Empty: evaluate.suite."""
    cpus: Annotated[float, POSITIVE] = 1.0
    """CPUs reserved for evaluations during training."""
    gpus: Annotated[float, between(0, 1, "0 (on CPUs) to 1")] = 0.0
    """GPUs reserved for evaluations during training; 0: they run on CPUs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_separate("retrieval")


@dataclass(frozen=True)
class TrackingConfig(Section, key="tracking"):
    """Where the run, its metrics and the model are recorded."""

    uri: str = ""
    """Tracking server or store (`http://mlflow:5000`, `sqlite:///FILE`). Empty: SQLite in run.storage, or in
    ~/sclip if run.storage is a URI."""
    experiment: str = "sclip"
    """MLflow experiment that lists the run."""
    model_name: str = "structure-clip"
    """Registered model that gets the new version."""
    offline: bool = False
    """Start even if the server cannot be reached, and record only in the run's folder until it answers."""
    parent: str = ""
    """Id of the parent run in MLflow, such as the sweep that started this run. Empty: none."""
    also: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Further targets of the metrics: tensorboard (a file in the run's folder), wandb (Weights & Biases), or both."""
    gates: tuple[str, ...] = ()
    """Conditions that make a new version champion: `vg_relation/macro >= champion - interval`. Empty: no promotion."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for gate in self.gates:
            parse_gate(gate)


@dataclass(frozen=True, slots=True)
class Gate:
    """A lower bound on one score.

    coco/text_to_image_r1 >= 0.35                  at least this value
    vg_relation/macro >= champion                  at least the champion's score
    coco/text_to_image_r1 >= champion - 0.01       at most one point below the champion
    vg_relation/macro >= champion - interval       not below the champion's 95 % interval
    """

    text: str
    """The gate as the user wrote it, with single spaces."""
    score: str
    """Name of the benchmark and of its score, such as coco/text_to_image_r1."""
    least: float | None = None
    """The bound; None if it depends on the champion."""
    margin: float = 0.0
    """The NUMBER of `champion - NUMBER`; 0 for all other gates."""
    interval: bool = False
    """Whether the bound is the lower end of the 95 % interval of the champion's score."""

    def bound(self, champion: float, low: float) -> float:
        """Return the lowest score that passes. `low` is the lower end of the interval of the score `champion`."""
        if self.least is not None:
            return self.least
        return low if self.interval else champion - self.margin


def parse_gate(text: str, key: str = "tracking.gates") -> Gate:
    """Parse the text of a gate. Raises ConfigError that names the key and the allowed forms."""
    text = " ".join(text.split())
    match = _GATE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{key}={text!r}: {_GATE_FORMS}")
    least, margin = (float(match[name]) if match[name] else None for name in ("least", "margin"))
    if max(least or 0, margin or 0) > 1:
        raise ConfigError(f"{key}={text!r}: scores are shares between 0 and 1, not percentages")
    return Gate(text, match["score"], least, margin or 0.0, bool(match["interval"]))
