"""Summarize a finished run for the user: scores, model, folder and pages."""

from __future__ import annotations

import dataclasses
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from sclip.config import Config, ConfigError
from sclip.evaluate.result import EVALUATION_FILE, Evaluation
from sclip.run.shard_losses import closing_lines
from sclip.storage.masking import mask
from sclip.storage.paths import StoragePath, shown
from sclip.train.run_folder import RunFolder

__all__ = ["COUNTS", "Summary", "compared_with", "show"]

_log = logging.getLogger("sclip")

COUNTS = ("cases", "images", "captions")
"""Endings of the names of metrics that are no scores, but count the evaluated data, such as `NAME/cases`."""


@dataclass(frozen=True)
class Summary:
    """Results of a finished run."""

    folder: StoragePath
    trained: dict[str, Any]
    """The run's `RunCounters`, and the name of its last checkpoint."""
    scores: dict[str, float]
    version: str
    """Registered version; empty if the store was unreachable."""
    decision: list[str]
    """Lines about the decision of the gates (lower bounds on scores); empty if no gates were applied."""
    pages: list[StoragePath]
    tracking_uri: str


def compared_with(config: Config, runs: StoragePath) -> Evaluation:
    """Return the evaluation of the run that `run.compare_with` names. Raises ConfigError if no such run is finished."""
    folder = RunFolder(runs / config.run.compare_with)
    if folder.result is None:
        raise ConfigError(
            f"run.compare_with={config.run.compare_with!r}: no finished run of this name in {runs}"
        )
    evaluation = Evaluation.read(folder.path / EVALUATION_FILE)
    return dataclasses.replace(evaluation, model=config.run.compare_with)


def show(summary: Summary, config: Config, console: Console) -> None:
    """Print the closing table: samples trained on, scores, the run's folder, and how to view the results."""
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
        if name.rpartition("/")[2] not in COUNTS:
            table.add_row(name, _bar(score), *([_bar(other[name])] if name in other else []))
    console.print(table)
    lines = [f"trained     {trained['samples']:,} samples in {trained['step']:,} steps"]
    if trained["filtered"]:
        lines.append(f"left out    {trained['filtered']:,} samples without a caption that passes data.min_*")
    lines += closing_lines(summary.folder, trained)
    if trained.get("skipped"):
        lines.append(f"skipped     {trained['skipped']:,} steps whose loss or gradient was not finite")
    lines += [f"gate        {line}" for line in summary.decision]
    mlflow = Path(sys.executable).with_name("mlflow")
    champion = bool(summary.decision) and "is champion" in summary.decision[-1]
    alias = "champion and candidate" if champion else "candidate"
    model = f"models:/{config.tracking.model_name}/{summary.version}, alias {alias}"
    lines += [
        f"model       {model if summary.version else f'not registered yet: sclip sync {shown(summary.folder)}'}",
        f"run folder  {shown(summary.folder)}",
        f"look at it  {shown(mlflow)} ui --backend-store-uri {shown(mask(summary.tracking_uri))}",
        *(f"            {shown(page)}" for page in summary.pages),
    ]
    for line in lines:  # not in the table, which would wrap a path or a command
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _bar(score: float) -> str:
    filled = round(20 * min(1.0, max(0.0, score)))
    return f"{score:.3f} {'█' * filled}{'░' * (20 - filled)}"
