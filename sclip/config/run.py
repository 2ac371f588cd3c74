"""What a run is called and kept as, how it is measured and where it is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sclip.config.checks import OFF_OR_MORE, POSITIVE, Limit, Section, at_least, between
from sclip.config.gates import parse_gate

_NAME = Limit(
    "letters, digits, '-', '_' and '.' only, no leading '.'",
    lambda name: not name.startswith(".") and all(c.isalnum() or c in "-_." for c in name),
)


@dataclass(frozen=True)
class RunConfig(Section, key="run"):
    """What the run is called and where it is kept."""

    name: Annotated[str, _NAME] = ""
    """Name of the run; the same name with the same config resumes. Empty: generated from the time."""
    storage: str = "~/sclip"
    """Folder that every node reaches, or `s3://..`, `gs://..`: runs, generated scenes, by default MLflow's store."""
    seed: int = 0
    """Seed from which, with epoch, shard and key, every random choice is derived."""
    init_from: str = ""
    """Start from a finished run (name or folder), `models:/NAME@alias`, or weights as model.pretrained reads."""
    compare_with: str = ""
    """Name of a finished run of this storage, whose scores the closing table shows beside the own ones."""
    max_failures: Annotated[int, at_least(-1, "-1, 0 or a positive number")] = 3
    """Times that a lost worker restarts the worker group from the last checkpoint; -1: without limit."""
    progress_every_s: Annotated[float, POSITIVE] = 10.0
    """Seconds between two progress lines where the output is no terminal."""
    log_format: Literal["text", "json"] = "text"
    """What the job prints: lines for people, or JSON objects with run and step, as workers' logs have them always."""


@dataclass(frozen=True)
class EvaluateConfig(Section, key="evaluate"):
    """What the trained model is measured on."""

    suite: str = ""
    """Benchmarks: a YAML file, or aro, sugarcrepe, winoground, retrieval, zero-shot, paper, all. Empty: none."""
    root: Annotated[str, Limit("name a folder", bool)] = "~/sclip/benchmarks"
    """Folder of the named suites' files; sclip fetch says what belongs there."""
    retrieval: tuple[str, ...] = ()
    """Shards for image-text retrieval. Empty: the training shards (labelled so), or none where there is a suite."""
    retrieval_images: Annotated[int, at_least(1)] = 1000
    """Most images of retrieval on shards."""
    exclude: tuple[str, ...] = ()
    """Exclusion lists (sclip exclude), of what was trained on: pictures that are left out of the benchmarks."""
    batch_size: Annotated[int, at_least(1)] = 128
    """Images or captions encoded at a time."""
    before: bool = False
    """Measure the weights that training starts from too: what retrieval and zero-shot keep is the retention."""
    every: Annotated[int, OFF_OR_MORE] = 0
    """Steps between evaluations beside the training, each of a checkpoint written then; 0: only at the end."""
    suite_beside: str = ""
    """Suite of those evaluations, logged as beside/...; empty: `suite`."""
    cpus: Annotated[float, POSITIVE] = 1.0
    """CPUs set aside for them while training goes on."""
    gpus: Annotated[float, between(0, 1, "0 (on CPUs) to 1")] = 0.0
    """GPUs set aside for them; 0: they run on the CPUs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_separate("retrieval")


@dataclass(frozen=True)
class TrackingConfig(Section, key="tracking"):
    """Where the run and the model are recorded: in MLflow, and the metrics elsewhere too."""

    uri: str = ""
    """Tracking server or store (`http://mlflow:5000`, `sqlite:///FILE`). Empty: SQLite in run.storage, or ~/sclip."""
    experiment: str = "sclip"
    """Experiment that the runs are listed under."""
    model_name: str = "structure-clip"
    """Registered model that a new version is added to."""
    offline: bool = False
    """Record in the run's folder alone while the server cannot be reached, instead of not starting."""
    parent: str = ""
    """Id of the MLflow run that this one is shown below, as the runs of a sweep are. Empty: none."""
    also: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Beside MLflow, metrics go to: tensorboard (a file in the run's folder), wandb (Weights & Biases), or both."""
    gates: tuple[str, ...] = ()
    """What makes a new version champion: `vg_relation/macro >= champion - interval`, for instance. Empty: nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for gate in self.gates:
            parse_gate(gate)
