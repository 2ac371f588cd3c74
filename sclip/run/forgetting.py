"""Measure what tuning forgets: an ablation tuned from one start goes in, shares kept and gained come out.

The start has learned one family of scenes, the other rows are tuned on another. A row with `blend: ROW` trains nothing:
it lies between the start and that row. Of each seed there are two splits of both families' held-out scenes.
One serves to choose `a`; all scores come from the other.

Its table may also show the scores that `shares` returns.
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

_KEPT = "first/image_to_text_r1+first/text_to_image_r1"
_GAINED = "relation/accuracy+attribute/accuracy"
_REACHED = 0.9
"""Share of the plain row's gain at which rows are compared."""
_MARGIN = 0.03
"""What a blend must reach more on the development split, since a share of the gain is another on the reported one."""
_ALPHAS = [n / 10 for n in range(11)]


def suite(config: Config, name: str, seed: int, split: str) -> Path:
    """Return the suite of a split, `report` or `development`."""
    return _storage(config) / "sweeps" / name / f"{split}-seed-{seed}.yaml"


def write_suites(ablation: Ablation, name: str, config: Config) -> None:
    """Generate the scenes of every seed and write the suites of both splits.

    Raises ConfigError where the rows train on shards of the user's, or the storage cannot be written to.
    """
    if config.data.shards:
        raise ConfigError("data.shards: this ablation is one of generated scenes; leave it out")
    start = changed(config, ablation.rows[ablation.start].set)
    folder = _storage(config) / "scenes"
    try:
        for seed in ablation.seeds:
            specs = [start.scenes, config.scenes]
            for split, of_split in (("report", seed), ("development", -1 - seed)):
                if split == "development":  # held-out scenes alone
                    specs = [dataclasses.replace(spec, train_samples=1) for spec in specs]
                first, second = (scenes.generate(folder, spec, of_split).suite.parent for spec in specs)
                of = {
                    "first": {"kind": "shards", "shards": f"{first}/heldout/*.tar"},
                    "relation": _cases("vg-relation", second, "relation"),
                    "attribute": _cases("vg-attribution", second, "attribute"),
                }
                path = suite(config, name, seed, split)
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, json.dumps(of, indent=1, ensure_ascii=False) + "\n")
    except (PackError, OSError) as error:
        raise ConfigError(f"run.storage={config.run.storage!r}: {error}") from error


def _cases(kind: str, scenes_of: StoragePath, called: str) -> dict[str, str]:
    return {"kind": kind, "file": f"{scenes_of}/{called}.json", "images": f"{scenes_of}/images"}


def add_blends(
    ablation: Ablation, name: str, config: Config, trials: Sequence[Trial], console: Console
) -> list[Trial]:
    """Return the trials and, for every row that is one, a blend of each seed whose runs are done.

    What was found before of the same runs is not measured again.
    """
    done = {trial.name: trial for trial in trials if trial.scores}
    blends = []
    for seed in ablation.seeds:
        of_seed = {row: done.get(f"{name}-{row}-seed-{seed}") for row in ablation.rows}
        measured = _Measured(config, name, seed)
        for row, what in ablation.rows.items():
            ends = [of_seed[end] for end in (ablation.start, ablation.plain, what.blend or ablation.start)]
            if not what.blend or None in ends:
                continue
            of_runs = [end.scores for end in ends if end]
            file = _record_of(config, name, seed, row)
            record = json.loads(file.read_text()) if file.is_file() else {}
            label = f"{name}-{row}-seed-{seed}"
            if record.get("ends") != of_runs:
                start, plain, trained = (end.name for end in ends if end)
                try:
                    record = {"ends": of_runs} | measured.blend(start, plain, trained)
                except (*evaluate.NOT_STARTED, *evaluate.ERRORS) as error:
                    blends.append(Trial(label, {}, {}, str(error)))
                    continue
                write(file, json.dumps(record, indent=1) + "\n")
            console.print(f"{label}: a = {record['a']:g}", highlight=False)
            blends.append(Trial(label, {"a": record["a"]}, record["scores"]))
    return [*trials, *blends]


class _Measured:
    """Models of one seed on its two splits; each is loaded, and measured on the development split, once."""

    def __init__(self, config: Config, name: str, seed: int) -> None:
        self._config = config
        self._suites = {split: str(suite(config, name, seed, split)) for split in ("development", "report")}
        self._tasks: dict[str, list[Task]] = {}
        self._scorers: dict[str, Scorer] = {}
        self._points: dict[tuple[str, float], Point] = {}

    def blend(self, start: str, plain: str, trained: str) -> dict[str, Any]:
        """Return `a`, points and plain's gained score (development split), and scores of the report split."""
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
        if split not in self._tasks:  # as the runs are measured
            asked = dataclasses.replace(self._config.evaluate, suite=name)
            tasks = runner.tasks_of(asked, (), self._config.data)
            self._tasks[split] = runner.prepared(tasks, exclusions=runner.exclusions_of(asked.exclude))
        batch_size = self._config.evaluate.batch_size
        return evaluate.measure(self._tasks[split], model, scorer, name, False, "cpu", 0, batch_size)


def add_shares(ablation: Ablation, name: str, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials with their `shares` among the scores, where the start and the plain row of a seed are done.

    A row that misses the plain row's gain at one seed has no `kept_at_90` at any: a mean of the others would flatter.
    """
    done = {trial.name: trial.scores for trial in trials if trial.scores}
    found: dict[str, dict[str, float]] = {}
    for row in ablation.rows:
        names = [f"{name}-{row}-seed-{seed}" for seed in ablation.seeds]
        of_row = {}
        for run, seed in zip(names, ablation.seeds, strict=True):
            start, plain = (done.get(f"{name}-{end}-seed-{seed}") for end in (ablation.start, ablation.plain))
            if start and plain and run in done:
                of_row[run] = shares(start, plain, done[run])
        if not all("first/kept_at_90" in of_run for of_run in of_row.values()):
            of_row = {
                run: {score: value for score, value in of_run.items() if score != "first/kept_at_90"}
                for run, of_run in of_row.items()
            }
        found |= of_row
    return [dataclasses.replace(t, scores=t.scores | found.get(t.name, {})) for t in trials]


def forgetting(ablation: Ablation, name: str, config: Config, trials: Sequence[Trial]) -> Forgetting:
    """Return what the page draws: a point for each run that has shares, a line for each row that is a blend."""
    done = {trial.name: trial.scores for trial in trials}
    points: dict[str, list[tuple[float, float]]] = {}
    lines: dict[str, list[tuple[float, tuple[float, float]]]] = {}
    for row, what in ablation.rows.items():
        by_seed = {seed: done.get(f"{name}-{row}-seed-{seed}") for seed in ablation.seeds}
        points[row] = [
            (of["second/gain"], of["first/kept"])
            for of in by_seed.values()
            if of and {"second/gain", "first/kept"} <= of.keys()
        ]
        if what.blend:
            files = [_record_of(config, name, seed, row) for seed, scores in by_seed.items() if scores]
            sweeps = filter(None, (_line(json.loads(file.read_text())) for file in files))
            lines[row] = [
                (a, (fmean(gain), fmean(kept)))
                for (a, *_), gain, kept in (zip(*at, strict=True) for at in zip(*sweeps, strict=True))
            ]
    return Forgetting(points, lines, _REACHED)


def _line(record: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Return (a, share of plain's gain, share kept) on the development split.

    The list is empty if plain gained or start kept nothing.
    """
    start = record["points"][0]
    risen = record["plain"] - start["gained"]
    if risen <= 0 or start["kept"] <= 0:
        return []
    return [
        (p["a"], (p["gained"] - start["gained"]) / risen, p["kept"] / start["kept"]) for p in record["points"]
    ]


def shares(
    start: Mapping[str, float], plain: Mapping[str, float], scores: Mapping[str, float]
) -> dict[str, float]:
    """Return what a run kept and gained, of the scores of the start, of plain tuning and its own.

    first/r1 is R@1 of the first family, the mean of both directions; first/kept its share of the start's;
    second/gain what relation and attribute accuracy rose, as a share of what they rose in the plain row (none where
    they did not); first/kept_at_90 is first/kept, where that share is 0.9 or more.
    """
    r1, of_start = _mean(scores, _KEPT), _mean(start, _KEPT)
    found = {"first/r1": r1}
    if of_start > 0:
        found["first/kept"] = r1 / of_start
    risen = _mean(plain, _GAINED) - _mean(start, _GAINED)
    if risen > 0:
        found["second/gain"] = (_mean(scores, _GAINED) - _mean(start, _GAINED)) / risen
    if found.get("second/gain", 0) >= _REACHED and "first/kept" in found:
        found["first/kept_at_90"] = found["first/kept"]
    return found


def _record_of(config: Config, name: str, seed: int, row: str) -> Path:
    """Return the file of what was measured of a blend."""
    return suite(config, name, seed, row).with_suffix(".json")


def _mean(scores: Mapping[str, float], names: str) -> float:
    return fmean(scores[name] for name in names.split("+"))


def _storage(config: Config) -> Path:
    return Path(config.run.storage).expanduser().absolute()
