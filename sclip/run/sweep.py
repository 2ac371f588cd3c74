"""Run the main job at every point of a search space of config keys, and collect the scores.

Ray Tune draws the points and runs them, as many at a time as the cluster holds. Each point is an ordinary run with its
own name and folder, and a child of one MLflow run. The same command resumes a stopped sweep with the same points.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator
from rich.console import Console

from sclip import tracking
from sclip.config import Config, ConfigError
from sclip.config.loader import changed
from sclip.evaluate.compare import compare
from sclip.evaluate.result import EVALUATION_FILE, Evaluation
from sclip.launch import cluster
from sclip.launch.capacity import Capacity, encoder_bounds, most_encoders, runs_at_once, sized
from sclip.launch.plan import rates, with_streams
from sclip.report import comparison
from sclip.run import finish, lease, pretrain
from sclip.run.stopping import Stopped
from sclip.run.summary import show
from sclip.storage.masking import mask, mask_tree
from sclip.storage.paths import check_writable, shown

__all__ = ["COMPARED", "POINT", "Sweep", "Trial", "pages", "run", "storage_of"]

COMPARED = 8
"""Maximum runs on the page of a sweep, one per color."""

_DRIVER_CPUS = 0.01
"""CPUs that a trial's driver reserves; its workers and actors reserve their own."""


@dataclass(frozen=True)
class Sweep:
    """Settings of a sweep."""

    name: str
    """Name of the sweep; its runs are called NAME-00000 and so on."""
    config: Config
    space: Mapping[str, Any]
    """Ray Tune domain or grid of each dotted config key, or a grid of points under the single key `POINT`."""
    samples: int = 1
    """Number of random draws; each draw runs with every point of the grid."""
    at_once: int = 0
    """Maximum concurrent trials; 0 means as many as the cluster holds."""


POINT = "point"
"""Key of a grid of points. Each point is {"name": ending of the run's name, "set": {dotted key: value}}."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    name: str
    point: dict[str, Any]
    """Settings of this run, by dotted key."""
    scores: dict[str, float]
    """Scores by name; empty if the run failed."""
    error: str = ""


def run(sweep: Sweep, console: Console) -> list[Trial]:
    """Run every point; return the trials in order, including failed ones.

    Raises ConfigError for errors found before anything is scheduled and if another process runs the sweep,
    TrackingError if MLflow cannot be used, and KeyboardInterrupt or Stopped after the running trials have ended.
    """
    capacity = cluster.connect()
    config = changed(sweep.config, {"run.storage": storage_of(sweep.config), "tracking.parent": ""})
    config = sized(config, capacity)  # once, for all trials
    config = with_streams(config, capacity, rates.find(config, capacity, {}, annotated=True))
    encoder_bounds(config, capacity)
    at_once = sweep.at_once or runs_at_once(config, capacity, _DRIVER_CPUS)
    folder = Path(config.run.storage) / "sweeps" / sweep.name
    with lease.held(folder, lambda line: console.print(line, soft_wrap=True, markup=False, highlight=False)):
        parent = tracking.open_parent(config, sweep.name, config.run.storage)
        try:
            trials = _tune(sweep, config, capacity, at_once, parent.run_id, console)
        except (KeyboardInterrupt, Stopped):
            parent.finish("KILLED")
            raise
        record = [{"name": t.name, "point": t.point, "scores": t.scores, "error": t.error} for t in trials]
        (folder / "sweep.json").write_text(json.dumps(mask_tree(record), indent=1) + "\n")
        parent.log_artifact(folder / "sweep.json")
        parent.finish("FAILED" if all(trial.error for trial in trials) else "FINISHED")
        return trials


def _tune(
    sweep: Sweep, config: Config, capacity: Capacity, at_once: int, parent: str, console: Console
) -> list[Trial]:
    """Run every point as a child of the MLflow run `parent`."""
    folder = Path(config.run.storage) / "sweeps" / sweep.name
    config = changed(config, {"tracking.parent": parent} | _bound(config, capacity.cpus, at_once))
    console.print(
        f"sweep {sweep.name}: {at_once} runs at a time, logs in {shown(folder)}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # turn off Tune's own tables, which say less than ours
    trainable = tune.with_parameters(_trial, sweep=sweep.name, config=config, logs=folder)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": _DRIVER_CPUS}),
        param_space=dict(sweep.space),
        tune_config=tune.TuneConfig(
            num_samples=sweep.samples,
            search_alg=BasicVariantGenerator(random_state=config.run.seed, max_concurrent=at_once),
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder), verbose=0, callbacks=[_TrialReporter(console)]
        ),
    )
    results = tuner.fit()
    if any(not result.error and "scores" not in (result.metrics or {}) for result in results):
        # Ray Tune handles the first Ctrl-C itself: it ends its trials and returns the results so far.
        raise KeyboardInterrupt
    return [_ended(sweep.name, number, result) for number, result in enumerate(results)]


def _ended(sweep: str, number: int, result: tune.Result) -> Trial:
    scores = dict((result.metrics or {}).get("scores", {}))
    return Trial(_name(sweep, result.config, number), _point(result.config), scores, _reason(result.error))


def storage_of(config: Config) -> str:
    """Return the absolute folder of a sweep's runs. Raises ConfigError for a URI or a folder that is not writable."""
    if "://" in config.run.storage:
        raise ConfigError(
            f"run.storage={mask(config.run.storage)!r}: a sweep needs a folder that every node reaches, for logs and "
            "state; a URI is for single runs (sclip pretrain)"
        )
    folder = Path(config.run.storage).expanduser().absolute()
    try:
        check_writable(folder)
    except OSError as error:
        raise ConfigError(str(error)) from error
    return str(folder)


def _bound(config: Config, cpus: float, at_once: int) -> dict[str, Any]:
    """Return settings that limit a run's number of encoders, so that concurrent runs fit into the cluster's CPUs."""
    if config.data.actors_max or at_once == 1:
        return {}
    return {"data.actors_max": most_encoders(config, cpus / at_once - _DRIVER_CPUS)}


def _trial(settings: dict[str, Any], *, sweep: str, config: Config, logs: Path) -> dict[str, Any]:
    """Train one point, in a process that Ray Tune starts."""
    number = int(tune.get_context().get_trial_id().rpartition("_")[2])
    name = _name(sweep, settings, number)
    os.environ["OMP_NUM_THREADS"] = str(config.train.worker_threads)
    with (logs / f"{name}.log").open("a") as log:
        console = Console(file=log, width=120)
        config = changed(config, _point(settings) | {"run.name": name})
        try:
            trained = pretrain.pretrain(config, console)
        except (ConfigError, *pretrain.ERRORS) as error:
            console.print(str(error), markup=False)
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        show(trained, config, console)
    return {"scores": trained.scores}


def _name(sweep: str, settings: Mapping[str, Any], number: int) -> str:
    return f"{sweep}-{settings[POINT]['name'] if POINT in settings else f'{number:05d}'}"


def _point(settings: Mapping[str, Any]) -> dict[str, Any]:
    return dict(settings[POINT]["set"]) if POINT in settings else dict(settings)


def _reason(error: Exception | None) -> str:
    if error is None:
        return ""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


class _TrialReporter(tune.Callback):  # type: ignore[misc]
    def __init__(self, console: Console) -> None:
        self._console, self._ended = console, 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks to restore them; consoles cannot be pickled, and runs resume themselves

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
        self._say(trial, "done")

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
        self._say(trial, "failed")

    def _say(self, trial: Any, how: str) -> None:
        self._ended += 1
        number = trial.trial_id.rpartition("_")[2]
        self._console.print(f"trial {number} {how}, {self._ended} ended", highlight=False)


def pages(trials: Sequence[Trial], storage: Path, folder: Path, title: str) -> list[Path]:
    """Write a page that compares the successful trials; if there are fewer than two, write nothing."""
    runs = [storage / "runs" / trial.name for trial in trials if trial.scores]
    measured = [dataclasses.replace(Evaluation.read(run / EVALUATION_FILE), model=run.name) for run in runs]
    if len(measured) < 2:
        return []
    return [comparison.write(compare(measured), folder, finish.curves(runs), title)]
