"""Blend two models: measure every blend on one split, choose one, report it on another split, save and register it.

A blend has the weights (1 - a) * start model + a * trained model. All output goes to STORAGE/sweeps/NAME: blend.json,
the pages, the model for `sclip.load`, and the journal that is sent to MLflow.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from sclip import registry, tracking
from sclip.config import Config, ConfigError, parse_gate
from sclip.config.loader import changed
from sclip.evaluate import table
from sclip.evaluate.benchmarks import BenchmarkDataError, Task
from sclip.evaluate.result import EVALUATION_FILE, Evaluation
from sclip.evaluate.tradeoff import Tradeoff, choose, point
from sclip.inference.blend import blended, check
from sclip.inference.scorer import Scorer
from sclip.report import blend as report
from sclip.run import evaluate
from sclip.storage.masking import mask, mask_tree
from sclip.storage.paths import shown

__all__ = ["ERRORS", "NOT_STARTED", "Blend", "Ready", "alphas", "prepare", "run"]

NOT_STARTED = (*evaluate.NOT_STARTED, tracking.TrackingError)
"""Errors that `alphas` and `prepare` raise."""
ERRORS = (*evaluate.ERRORS, registry.RegistryError)
"""Errors that `run` raises."""

STEPS = 1000
"""A blend with share `a` is logged at the MLflow step `STEPS * a`, because MLflow's steps are integers."""


@dataclass(frozen=True)
class Blend:
    """Settings of a blend."""

    start: str
    trained: str
    suite: str
    """Suite of the development split, on which the blend is chosen."""
    report: str
    """Suite of the reported split, on which the chosen blend is measured."""
    gained: str
    """Score that should rise on the development split: BENCHMARK/SCORE. `A/B+C/D` stands for the mean of two scores."""
    kept: str
    """Score that should not fall on the development split, written like `gained`."""
    keep: float
    alphas: list[float]
    name: str = ""
    """Name of the folder and the MLflow run; empty means a name made from the time."""
    register: str = ""
    """Registered model that gets the chosen blend as a new version; empty means that none does."""
    gates: tuple[str, ...] = ()
    device: str = "cpu"
    actors: int = 0
    batch_size: int = 128

    def called(self, a: float) -> str:
        """Return the display name of the blend with share `a` of the trained model."""
        return {0.0: self.start, 1.0: self.trained}.get(a, f"blend, a = {a:g}")


@dataclass(frozen=True)
class Ready:
    """Models, benchmarks and tracker, opened and checked before anything is encoded."""

    start: Scorer
    trained: Scorer
    development: list[Task]
    reported: list[Task]
    notes: list[str]
    folder: Path
    tracker: tracking.Tracker


def alphas(texts: Sequence[str]) -> list[float]:
    """Parse numbers and comma-separated lists into sorted shares; add 0 and 1. Without texts, return 0, 0.1, ..., 1.

    Raises ConfigError for a value that is not a number from 0 to 1 or has more than three decimals.
    """
    shares = {0.0, 1.0}
    for text in (part for argument in texts for part in argument.split(",")):
        try:
            a = float(text)
        except ValueError:
            a = -1.0
        if not 0 <= a <= 1 or round(a, 3) != a:
            raise ConfigError(f"--alpha {text}: a number from 0 to 1 with at most three decimals")
        shares.add(a)
    return sorted(shares) if texts else [n / 10 for n in range(11)]


def prepare(blend: Blend, root: str, exclude: Sequence[str], tracking_uri: str, storage: str) -> Ready:
    """Open the models, the splits and the tracker. Raises one of NOT_STARTED before anything is written."""
    if "://" in storage:
        raise ConfigError(f"--storage {mask(storage)}: a blend is written to a folder; models may be URIs")
    if not 0 <= blend.keep <= 1:
        raise ConfigError(f"--keep {blend.keep:g}: a share from 0 to 1")
    for gate in blend.gates:
        parse_gate(gate, "--gate")
    name = blend.name or f"blend-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    storage = str(Path(storage).expanduser().absolute())
    folder = Path(storage) / "sweeps" / name
    config = changed(Config(), {"run.name": name, "run.storage": storage, "tracking.uri": tracking_uri})
    if folder.exists():
        raise ConfigError(f"{folder}: already exists; choose another --name")
    suites = (blend.suite, blend.report)
    development, reported = (
        evaluate.read_tasks(evaluate.read_entries(suite, root, (), (), config.data), exclude, False)
        for suite in suites
    )
    notes = _check_splits(blend, development, reported)
    models = [blend.start, blend.trained]
    start, trained = evaluate.open_scorers(models, blend.device, blend.actors, tracking_uri, storage)
    notes += [f"Of the trained model alone: a {part}." for part in check(start, trained)]
    params = {key: str(value) for key, value in asdict(blend).items()}
    tracker = tracking.open_parent(config, name, storage, params)
    return Ready(start, trained, development, reported, notes, folder, tracker)


def _check_splits(blend: Blend, development: Sequence[Task], reported: Sequence[Task]) -> list[str]:
    """Raise BenchmarkDataError if both splits have the same cases or a score is missing; note common pictures."""
    for one in development:
        for other in reported:
            if _asks(one, other) or _asks(other, one):
                raise BenchmarkDataError(
                    f"{one.about.name} of --suite {blend.suite} and {other.about.name} of --report {blend.report} are "
                    "the same cases, which must not both choose a and report on it; name another file or split"
                )
    names = [task.about.name for task in development]
    for score in f"{blend.gained}+{blend.kept}".split("+"):
        if score.partition("/")[0] not in names:
            raise BenchmarkDataError(
                f"{score}: --suite {blend.suite} has no such benchmark; it has {', '.join(names)}"
            )
    images = [{p.image for task in split for p in task.pictures()} for split in (development, reported)]
    common = len(images[0] & images[1])
    shared = f"{common:,} of the {len(images[1]):,} pictures of the reported split are also in the development split."
    return [shared] if common else []


def _asks(one: Task, other: Task) -> bool:
    return set(one.pictures()) <= set(other.pictures()) and set(one.captions()) <= set(other.captions())


def run(blend: Blend, ready: Ready, console: Console) -> list[str]:
    """Measure every blend; choose, report, save and register one. Return lines for the user. Raises one of ERRORS."""
    status: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
    try:
        tradeoff = _development(blend, ready, console)
        chosen = _report(blend, ready, tradeoff, console)
        lines = [*ready.notes, f"the model: {shown(ready.folder / 'model')}"]
        lines += _registered(blend, ready, chosen) if blend.register else []
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        unsent = ready.tracker.finish(status)
    return [*lines, f"look at it: {shown(ready.folder / report.PAGE)}", *([unsent] if unsent else [])]


def _development(blend: Blend, ready: Ready, console: Console) -> Tradeoff:
    points = []
    for a in blend.alphas:
        scorer, name = blended(ready.start, ready.trained, a), blend.called(a)
        measured = evaluate.measure(
            ready.development, name, scorer, blend.suite, False, blend.device, blend.actors, blend.batch_size
        )
        points.append(point(a, measured, blend.gained, blend.kept))
        tradeoff = choose(points, blend.gained, blend.kept, blend.keep)
        console.print(f"a = {a:g}: {report.line(tradeoff, points[-1])}", soft_wrap=True, markup=False)
        scores = {f"development/{name}": value for name, value in measured.scores().items()}
        ready.tracker.log(scores, round(STEPS * a))
    console.print(report.told(tradeoff), soft_wrap=True, markup=False)
    return tradeoff


def _report(blend: Blend, ready: Ready, tradeoff: Tradeoff, console: Console) -> Evaluation:
    """Evaluate both models and the chosen blend on the reported split; save all; return the blend's evaluation."""
    a, folder, tracker = tradeoff.chosen.a, ready.folder, ready.tracker
    ends = sorted({0.0, a, 1.0})
    names, scorers = [blend.called(a) for a in ends], [blended(ready.start, ready.trained, a) for a in ends]
    done = evaluate.evaluate(
        ready.reported, names, scorers, folder / "report", blend.report,
        partial=False, device=blend.device, actors=blend.actors, batch_size=blend.batch_size, known={},
    )  # fmt: skip
    table.show(done.evaluations, done.comparison, console)
    chosen = done.evaluations[ends.index(a)]
    chosen.write(folder / EVALUATION_FILE)
    scorers[ends.index(a)].save(folder / "model")
    record = mask_tree({"asked": asdict(blend), "found": asdict(tradeoff)})
    (folder / "blend.json").write_text(json.dumps(record, indent=1) + "\n")
    report.write(tradeoff, done.evaluations, folder, ready.notes)
    tracker.log(chosen.scores(), round(STEPS * a))
    for name in (report.PAGE, "report", "blend.json", EVALUATION_FILE):
        tracker.log_artifact(folder / name, "report" if name == "report" else "")
    return chosen


def _registered(blend: Blend, ready: Ready, chosen: Evaluation) -> list[str]:
    tracker, model = ready.tracker, ready.folder / "model"
    if not tracker.flush():
        raise registry.RegistryError(
            f"{mask(tracker.uri)} cannot be reached: the model in {model} was not registered"
        )
    client, name = tracker.client, blend.register
    version = registry.register(client, tracker.run_id, model, name, chosen, blend.gates)
    decision = registry.decide(client, name, version).lines() if blend.gates else []
    return [f"registered: models:/{name}/{version}", *decision]
