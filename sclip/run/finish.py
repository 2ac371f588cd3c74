"""The end of a run: a trained checkpoint in; export, evaluation, pages and a registered version out.

Every step leaves its result in the run's folder, so that a run that is started again goes on with the first that is
not done. `show` tells the user what came out.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from sclip import registry, tracking
from sclip.config import Config, ConfigError
from sclip.data.stream import StreamPlan
from sclip.evaluate.compare import compare
from sclip.evaluate.result import EVALUATION_FILE, Evaluation
from sclip.launch.trainer import TrainingFailed
from sclip.report import comparison, evaluation
from sclip.run import evaluation_tasks
from sclip.scenegraph import Parser
from sclip.storage.masking import mask
from sclip.storage.place import Place, fetch, here, send
from sclip.train.run_folder import RunFolder

__all__ = ["Summary", "compared_with", "finish", "show"]

_log = logging.getLogger("sclip")

_NO_SCORES = ("cases", "images", "captions")


@dataclass(frozen=True)
class Summary:
    """What a finished run left behind."""

    folder: Place
    trained: dict[str, Any]
    """step, samples, quarantined, filtered, skipped, checkpoint."""
    scores: dict[str, float]
    version: str
    """Registered; empty where the store was away."""
    decision: list[str]
    """What the gates made of it, a line each; empty where there are none."""
    pages: list[Place]
    tracking_uri: str


def finish(plan: StreamPlan, folder: RunFolder, tracker: tracking.Tracker, console: Console) -> Summary:
    """Export, measure and register the trained model, unless that was done before; return what the run left.

    Raises TrainingFailed where not everything was trained on, or what an evaluation or the registry raises.
    """
    trained = folder.complete
    if trained is None:
        raise TrainingFailed("training ended without an error, but not every sample was trained on")
    result = folder.result
    if result is None:
        console.print("evaluating the trained model")
        # The plan's config: its model has the name with the activation of the weights that it started from.
        found = evaluation_tasks.measure_trained(plan.config, folder, trained["checkpoint"], plan.shards)
        before = _before(folder)
        scores = found.scores() | (evaluation_tasks.retention(before, found) if before else {})
        tracker.log(scores, trained["step"])
        version, promotion = _registered(plan.config, folder, tracker, found)
        pages = _pages(plan.config, folder, tracker.folder, found, before, promotion)
        send(tracker.folder, folder.path, [page.name for page in pages])
        fetch(folder.path, tracker.folder, [EVALUATION_FILE])
        for file in (tracker.folder / EVALUATION_FILE, *pages):
            tracker.log_artifact(file, "evaluation")
        result = {
            "scores": scores,
            "version": version,
            "decision": promotion.lines() if promotion else [],
            "pages": [page.name for page in pages],
        }
        folder.record_result(result)
    return Summary(
        folder.path, trained, result["scores"], result["version"], result["decision"],
        [folder.path / name for name in result["pages"]], tracker.uri,
    )  # fmt: skip


def _before(folder: RunFolder) -> Evaluation | None:
    path = folder.path / evaluation_tasks.EVALUATION_BEFORE
    return Evaluation.read(path) if path.exists() else None


def _registered(
    config: Config, folder: RunFolder, tracker: tracking.Tracker, found: Evaluation
) -> tuple[str, registry.Promotion | None]:
    """Return the new version, and what its gates made of it; both are left to jobs/sync.py where the store is away."""
    if not tracker.flush():
        return "", None
    name, gates = config.tracking.model_name, config.tracking.gates
    with here(folder.model) as exported:
        version = registry.register(tracker.client, tracker.run_id, exported, name, found, gates)
    return version, registry.decide(tracker.client, name, version) if gates else None


def _pages(
    config: Config,
    folder: RunFolder,
    written: Path,
    found: Evaluation,
    before: Evaluation | None,
    promotion: registry.Promotion | None,
) -> list[Path]:
    """Write the page of the evaluation, and the one that compares it, where there is something to compare it with.

    They go to the folder `written`, of this machine.
    """
    decision = None
    if promotion and promotion.decision:
        gates = [(check.line(), check.holds) for check in promotion.decision.checks]
        decision = evaluation.Decision(promotion.lines()[-1], promotion.promoted, gates)
    graphs = Parser(config.data.spacy_model).parse
    pages = [evaluation.write(found, written, graphs=graphs, decision=decision)]
    others = [before] if before else []
    folders: list[Place] = [written]
    if config.run.compare_with:
        other = folder.path.parent / config.run.compare_with
        others.append(compared_with(config, folder.path.parent))
        folders.append(other)
    comparable = [other for other in others if _cases(other) == _cases(found)]
    if comparable:
        compared = compare([*comparable, found])
        pages.append(
            comparison.write(compared, written, curves(folders), title=f"{config.run.name}, compared")
        )
    return pages


def _cases(found: Evaluation) -> dict[str, set[str]]:
    return {result.name: set(result.won) for result in found.results}


def curves(folders: Sequence[Place]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the curves of runs, by metric and run: the losses, and every score that was measured beside training."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for folder in folders:
        for metric, points in tracking.history(folder).items():
            of_loss = metric in (
                "train/loss",
                "train/loss_contrastive",
                "train/loss_hinge",
                "train/learning_rate",
            )
            beside = len(points) > 1 and not metric.startswith(("train/", "stream/", "system/"))
            if of_loss or (beside and metric.rpartition("/")[2] not in _NO_SCORES):
                found.setdefault(metric, {})[folder.name] = points
    return found


def compared_with(config: Config, runs: Place) -> Evaluation:
    """Return the evaluation of the run that `run.compare_with` names. Raises ConfigError where it is not finished."""
    folder = RunFolder(runs / config.run.compare_with)
    if folder.result is None:
        raise ConfigError(
            f"run.compare_with={config.run.compare_with!r}: no finished run of this name in {runs}"
        )
    found = Evaluation.read(folder.path / EVALUATION_FILE)
    return dataclasses.replace(found, model=config.run.compare_with)


def show(summary: Summary, config: Config, console: Console) -> None:
    """Print the closing table: what was trained, the scores, where the run is, how to look at it."""
    trained = summary.trained
    if config.run.log_format == "json":
        result = {"scores": summary.scores, "model_version": summary.version, "decision": summary.decision}
        _log.info("finished", extra={"step": trained["step"], "trained": trained} | result)
        return
    table = Table("score", Column(summary.folder.name, no_wrap=True))
    other: dict[str, float] = {}
    if config.run.compare_with:
        other = compared_with(config, summary.folder.parent).scores()
        table.add_column(config.run.compare_with, no_wrap=True)
    for name, score in summary.scores.items():
        if name.rpartition("/")[2] not in _NO_SCORES:
            table.add_row(name, _bar(score), *([_bar(other[name])] if name in other else []))
    console.print(table)
    lines = [f"trained     {trained['samples']:,} samples in {trained['step']:,} steps"]
    if trained["filtered"]:
        lines.append(f"left out    {trained['filtered']:,} samples without a caption that passes data.min_*")
    if trained["quarantined"]:
        where = summary.folder / "quarantine.jsonl"
        lines.append(f"set aside   {trained['quarantined']:,} samples could not be trained on: {where}")
    if trained.get("skipped"):
        lines.append(f"skipped     {trained['skipped']:,} steps, their loss or gradient being not finite")
    lines += [f"gate        {line}" for line in summary.decision]
    mlflow = Path(sys.executable).with_name("mlflow")
    champion = bool(summary.decision) and "is champion" in summary.decision[-1]
    alias = "champion and candidate" if champion else "candidate"
    model = f"models:/{config.tracking.model_name}/{summary.version}, alias {alias}"
    lines += [
        f"model       {model if summary.version else f'not registered yet: python jobs/sync.py {summary.folder}'}",
        f"run folder  {summary.folder}",
        f"look at it  {mlflow} ui --backend-store-uri {mask(summary.tracking_uri)}",
        *(f"            {page}" for page in summary.pages),
    ]
    for line in lines:  # outside of the table, which would break a path or a command in two
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _bar(score: float) -> str:
    filled = round(20 * min(1.0, max(0.0, score)))
    return f"{score:.3f} {'█' * filled}{'░' * (20 - filled)}"
