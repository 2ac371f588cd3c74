"""Finish a run: export, evaluate and register its trained checkpoint, and write its pages.

The last step records the result in the run's folder. If a run with a result is started again, it skips these steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sclip import registry, tracking
from sclip.config import Config
from sclip.data.caption_text import clean_caption
from sclip.data.stream import StreamPlan
from sclip.evaluate.compare import compare
from sclip.evaluate.result import EVALUATION_FILE, Evaluation
from sclip.launch.trainer import TrainingFailed
from sclip.model import most_words
from sclip.report import comparison, evaluation
from sclip.run import evaluation_tasks
from sclip.run.summary import COUNTS, Summary, compared_with
from sclip.scenegraph import Parser
from sclip.storage.paths import StoragePath, fetch, local_copy, send
from sclip.train.run_folder import RunFolder

__all__ = ["curves", "finish"]


def finish(plan: StreamPlan, folder: RunFolder, tracker: tracking.Tracker, console: Console) -> Summary:
    """Export, evaluate and register the trained model; return the run's summary.

    If the run's folder already holds a result, only the summary is made. Raises TrainingFailed if not every sample was
    trained on, and the errors of the evaluation and the registry.
    """
    trained = folder.complete
    if trained is None:
        raise TrainingFailed("training ended without an error, but not every sample was trained on")
    result = folder.result
    if result is None:
        console.print("evaluating the trained model")
        # The plan's config names the architecture with the activation of the starting weights.
        measured = evaluation_tasks.measure_trained(plan.config, folder, trained["checkpoint"], plan.shards)
        before = _before(folder)
        scores = measured.scores() | (evaluation_tasks.retention(before, measured) if before else {})
        tracker.log(scores, trained["step"])
        version, promotion = _registered(plan.config, folder, tracker, measured)
        pages = _pages(plan.config, folder, tracker.folder, measured, before, promotion)
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
    config: Config, folder: RunFolder, tracker: tracking.Tracker, measured: Evaluation
) -> tuple[str, registry.Promotion | None]:
    if not tracker.flush():  # `sclip sync` registers the model later
        return "", None
    name, gates = config.tracking.model_name, config.tracking.gates
    with local_copy(folder.model) as exported:
        version = registry.register_once(tracker.client, tracker.run_id, exported, name, measured, gates)
    return version, registry.decide(tracker.client, name, version) if gates else None


def _pages(
    config: Config,
    folder: RunFolder,
    written: Path,
    measured: Evaluation,
    before: Evaluation | None,
    promotion: registry.Promotion | None,
) -> list[Path]:
    """Write the evaluation page and, if another evaluation has the same cases, a comparison page into `written`."""
    decision = None
    if promotion and promotion.decision:
        gates = [(check.line(), check.holds) for check in promotion.decision.checks]
        decision = evaluation.GateVerdict(promotion.lines()[-1], promotion.promoted, gates)
    parser = Parser(config.data.spacy_model, most_words(config.model))
    pages = [
        evaluation.write(
            measured,
            written,
            graphs=lambda texts: parser.parse(list(map(clean_caption, texts))),
            decision=decision,
        )
    ]
    candidates = [before] if before else []
    folders: list[StoragePath] = [written]
    if config.run.compare_with:
        other = folder.path.parent / config.run.compare_with
        candidates.append(compared_with(config, folder.path.parent))
        folders.append(other)
    comparable = [other for other in candidates if _cases(other) == _cases(measured)]
    if comparable:
        compared = compare([*comparable, measured])
        pages.append(
            comparison.write(compared, written, curves(folders), title=f"{config.run.name}, compared")
        )
    return pages


def _cases(measured: Evaluation) -> dict[str, set[str]]:
    return {result.name: set(result.won) for result in measured.results}


def curves(folders: Sequence[StoragePath]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return curves by metric and run: losses, learning rate, and every score measured during training."""
    curves_by_metric: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for folder in folders:
        for metric, points in tracking.history(folder).items():
            is_training_curve = metric in (
                "train/loss",
                "train/loss_contrastive",
                "train/loss_hinge",
                "train/loss_positives",
                "train/loss_distil",
                "train/loss_units",
                "train/learning_rate",
            )
            is_series = len(points) > 1 and not metric.startswith(("train/", "stream/", "system/"))
            if is_training_curve or (is_series and metric.rpartition("/")[2] not in COUNTS):
                curves_by_metric.setdefault(metric, {})[folder.name] = points
    return curves_by_metric
