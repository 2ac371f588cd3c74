"""Measure what tuning forgets: the share of the start row's score that a row keeps, and what the row gains instead.

Generated scenes come in two families (`scenes.family`): `a`, the whole family, with eight colors, and `b`, the narrow
family, with five of these colors.
The start row is trained on the whole family (scores `first/..`). The other rows are tuned from the start row on the
narrow family (scores `relation/..`, `attribute/..`, `second/..`). A row's gain is the mean of relation and attribute
accuracy, minus the start row's mean. Gains are shown as shares of the gain of the plain row (the first tuned row).

A row with `blend: ROW` is not trained: its weights are (1 - a) * start row + a * ROW, with `a` from 0 to 1. `a` is
chosen on the development split; all scores come from the report split. Both hold held-out scenes of both families.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sclip.config import Config, ConfigError
from sclip.config.loader import changed
from sclip.evaluate import runner
from sclip.evaluate.tradeoff import Point, cheapest, point
from sclip.inference.blend import blended
from sclip.prepare import scenes
from sclip.prepare.writing import PackError
from sclip.report.ablation import Forgetting
from sclip.run import evaluate
from sclip.run.sweep import Trial
from sclip.storage.paths import StoragePath, write

if TYPE_CHECKING:
    from sclip.evaluate.benchmarks import Task
    from sclip.evaluate.result import Evaluation
    from sclip.inference.scorer import Scorer
    from sclip.run.ablation import Ablation

__all__ = ["add_blends", "add_shares", "forgetting", "shares", "suite", "write_suites"]

_KEPT = "first/image_to_text_r10+first/text_to_image_r10"
"""Scores that a row should keep. Not R@1: tuning raises it, as it separates scenes that differ in a relation."""
_GAINED = "relation/accuracy+attribute/accuracy"
_REACHED = 0.9
"""A row gets the score `first/kept_at_90` if it gains at least this share of what the first tuned row gains."""
_MARGIN = 0.03
"""Added to `_REACHED` to choose `a` on the development split, because the gain may be lower on the report split."""
_ALPHAS = [n / 10 for n in range(11)]


def suite(config: Config, name: str, seed: int, split: str) -> Path:
    """Return the path of the suite file of a split, `report` or `development`."""
    return _storage(config) / "sweeps" / name / f"{split}-seed-{seed}.yaml"


def write_suites(ablation: Ablation, name: str, config: Config) -> None:
    """Generate the scenes and suites of every seed. Raises ConfigError if data.shards is set or a write fails."""
    if config.data.shards:
        raise ConfigError("data.shards: this ablation trains on generated scenes; leave the key out")
    start = changed(config, ablation.rows[ablation.start].set)
    folder = _storage(config) / "scenes"
    try:
        for seed in ablation.seeds:
            specs = [start.scenes, config.scenes]
            for split, split_seed in (("report", seed), ("development", -1 - seed)):
                if split == "development":  # only its held-out scenes are used
                    specs = [dataclasses.replace(spec, train_samples=1) for spec in specs]
                first, second = (scenes.generate(folder, spec, split_seed).suite.parent for spec in specs)
                benchmarks = {
                    "first": {"kind": "shards", "shards": f"{first}/heldout/*.tar"},
                    "relation": _cases("vg-relation", second, "relation"),
                    "attribute": _cases("vg-attribution", second, "attribute"),
                }
                path = suite(config, name, seed, split)
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, json.dumps(benchmarks, indent=1, ensure_ascii=False) + "\n")
    except (PackError, OSError) as error:
        raise ConfigError(f"run.storage={config.run.storage!r}: {error}") from error


def _cases(kind: str, folder: StoragePath, name: str) -> dict[str, str]:
    return {"kind": kind, "file": f"{folder}/{name}.json", "images": f"{folder}/images"}


def add_blends(
    ablation: Ablation, name: str, config: Config, trials: Sequence[Trial], console: Console
) -> list[Trial]:
    """Return the trials, and one more for each blend row and seed.

    A blend is left out if one of three runs of its seed is not done: the run of the start row, of the row to blend with
    the start row, or of the plain row, whose gain sets the target.
    """
    done = {trial.name: trial for trial in trials if trial.scores}
    blends = []
    for seed in ablation.seeds:
        row_trials = {row: done.get(f"{name}-{row}-seed-{seed}") for row in ablation.rows}
        measured = _Measured(config, name, seed)
        for row, spec in ablation.rows.items():
            ends = [row_trials[end] for end in (ablation.start, ablation.plain, spec.blend or ablation.start)]
            if not spec.blend or None in ends:
                continue
            run_scores = [end.scores for end in ends if end]
            file = _record_of(config, name, seed, row)
            record = json.loads(file.read_text()) if file.is_file() else {}
            label = f"{name}-{row}-seed-{seed}"
            if record.get("ends") != run_scores:  # not measured yet, or the runs have changed since
                start, plain, trained = (end.name for end in ends if end)
                try:
                    record = {"ends": run_scores} | measured.blend(start, plain, trained)
                except (*evaluate.NOT_STARTED, *evaluate.ERRORS) as error:
                    blends.append(Trial(label, {}, {}, str(error)))
                    continue
                write(file, json.dumps(record, indent=1) + "\n")
            console.print(f"{label}: a = {record['a']:g}", highlight=False)
            blends.append(Trial(label, {"a": record["a"]}, record["scores"]))
    return [*trials, *blends]


class _Measured:
    """Cache of one seed's models: each is loaded once, and measured once on the development split."""

    def __init__(self, config: Config, name: str, seed: int) -> None:
        self._config = config
        self._suites = {split: str(suite(config, name, seed, split)) for split in ("development", "report")}
        self._tasks: dict[str, list[Task]] = {}
        self._scorers: dict[str, Scorer] = {}
        self._points: dict[tuple[str, float], Point] = {}

    def blend(self, start: str, plain: str, trained: str) -> dict[str, Any]:
        """Choose the share `a` of the run `trained` in a blend with the run `start`; return all that was measured."""
        first, last = self._point(start, plain, 0.0), self._point(start, plain, 1.0)
        target = first.gained.value + (_REACHED + _MARGIN) * (last.gained.value - first.gained.value)
        points = [self._point(start, trained, a) for a in _ALPHAS]
        a = cheapest(points, target).a
        scorer = blended(self._scorer(start), self._scorer(trained), a)
        shown = [{"a": p.a, "gained": p.gained.value, "kept": p.kept.value} for p in points]
        scores = self._measure("report", trained, scorer).scores()
        return {"a": a, "points": shown, "plain": last.gained.value, "scores": scores}

    def _point(self, start: str, trained: str, a: float) -> Point:
        key = (trained if a else start, a)
        if key not in self._points:
            scorer = blended(self._scorer(start), self._scorer(trained), a)
            measured = self._measure("development", trained, scorer)
            self._points[key] = point(a, measured, _GAINED, _KEPT)
        return self._points[key]

    def _scorer(self, run: str) -> Scorer:
        if run not in self._scorers:
            folder = _storage(self._config) / "runs" / run
            (self._scorers[run],) = evaluate.open_scorers([str(folder)], "cpu", 0, "", "")
        return self._scorers[run]

    def _measure(self, split: str, model: str, scorer: Scorer) -> Evaluation:
        name = self._suites[split]
        if split not in self._tasks:  # the tasks of the runs' own evaluations
            settings = dataclasses.replace(self._config.evaluate, suite=name)
            tasks = runner.tasks_of(settings, (), self._config.data)
            self._tasks[split] = runner.prepared(tasks, exclusions=runner.exclusions_of(settings.exclude))
        batch_size = self._config.evaluate.batch_size
        return evaluate.measure(self._tasks[split], model, scorer, name, False, "cpu", 0, batch_size)


def add_shares(ablation: Ablation, name: str, trials: Sequence[Trial]) -> list[Trial]:
    """Add the scores of `shares` to the trials of each seed for which the start row and the plain row are done."""
    done = {trial.name: trial.scores for trial in trials if trial.scores}
    added: dict[str, dict[str, float]] = {}
    for row in ablation.rows:
        names = [f"{name}-{row}-seed-{seed}" for seed in ablation.seeds]
        row_shares = {}
        for run, seed in zip(names, ablation.seeds, strict=True):
            start, plain = (done.get(f"{name}-{end}-seed-{seed}") for end in (ablation.start, ablation.plain))
            if start and plain and run in done:
                row_shares[run] = shares(start, plain, done[run])
        # If one seed gained too little, remove the score from all: their mean would hide it.
        if not all("first/kept_at_90" in run_shares for run_shares in row_shares.values()):
            row_shares = {
                run: {score: value for score, value in run_shares.items() if score != "first/kept_at_90"}
                for run, run_shares in row_shares.items()
            }
        added |= row_shares
    return [dataclasses.replace(t, scores=t.scores | added.get(t.name, {})) for t in trials]


def forgetting(ablation: Ablation, name: str, config: Config, trials: Sequence[Trial]) -> Forgetting:
    """Return the plot's data: a point (`second/gain`, `first/kept`) for each run, and a line for each blend row."""
    done = {trial.name: trial.scores for trial in trials}
    points: dict[str, list[tuple[float, float]]] = {}
    lines: dict[str, list[tuple[float, tuple[float, float]]]] = {}
    for row, spec in ablation.rows.items():
        seed_scores = {seed: done.get(f"{name}-{row}-seed-{seed}") for seed in ablation.seeds}
        points[row] = [
            (run_scores["second/gain"], run_scores["first/kept"])
            for run_scores in seed_scores.values()
            if run_scores and {"second/gain", "first/kept"} <= run_scores.keys()
        ]
        if spec.blend:
            files = [_record_of(config, name, seed, row) for seed, scores in seed_scores.items() if scores]
            sweeps = filter(None, (_line(json.loads(file.read_text())) for file in files))
            lines[row] = [
                (a, (fmean(gain), fmean(kept)))
                for (a, *_), gain, kept in (zip(*group, strict=True) for group in zip(*sweeps, strict=True))
            ]
    return Forgetting(points, lines, _REACHED)


def _line(record: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Return (a, `second/gain`, `first/kept`) for each `a` on the development split."""
    start = record["points"][0]
    rise = record["plain"] - start["gained"]
    if rise <= 0 or start["kept"] <= 0:
        return []
    return [
        (p["a"], (p["gained"] - start["gained"]) / rise, p["kept"] / start["kept"]) for p in record["points"]
    ]


def shares(
    start: Mapping[str, float], plain: Mapping[str, float], scores: Mapping[str, float]
) -> dict[str, float]:
    """Return what a tuned run kept and gained, given the scores of the start run, of the plain run and of itself.

        first/r10           R@10 on scenes like those of the start run's training, the mean of both directions
        first/kept          `first/r10`, divided by the start run's `first/r10`
        second/gain         gain (rise above the start run's accuracies), divided by the plain run's gain
        first/kept_at_90    equal to `first/kept`, but absent if `second/gain` is below 0.9

    A quotient is absent if its divisor is not positive.
    """
    r10, start_r10 = _mean(scores, _KEPT), _mean(start, _KEPT)
    result = {"first/r10": r10}
    if start_r10 > 0:
        result["first/kept"] = r10 / start_r10
    plain_gain = _mean(plain, _GAINED) - _mean(start, _GAINED)
    if plain_gain > 0:
        result["second/gain"] = (_mean(scores, _GAINED) - _mean(start, _GAINED)) / plain_gain
    if result.get("second/gain", 0) >= _REACHED and "first/kept" in result:
        result["first/kept_at_90"] = result["first/kept"]
    return result


def _record_of(config: Config, name: str, seed: int, row: str) -> Path:
    return suite(config, name, seed, row).with_suffix(".json")


def _mean(scores: Mapping[str, float], names: str) -> float:
    return fmean(scores[name] for name in names.split("+"))


def _storage(config: Config) -> Path:
    return Path(config.run.storage).expanduser().absolute()
