"""Run the main job from end to end: from a config to a registered model.

    shards -> (Ray Data) -> encoded rows -> (Ray Train) -> checkpoints -> exported model -> scores -> registry

Every stage stores its result in the run's folder before the next begins, so a run that is started again
under the same name continues with the first unfinished stage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from sclip import registry, tracking
from sclip.config import Config, ConfigError
from sclip.config.loader import to_tree
from sclip.data.reader import ReadSettings
from sclip.data.shards import ShardError
from sclip.data.stream import StreamPlan
from sclip.evaluate.benchmarks import BenchmarkDataError
from sclip.evaluate.result import EvaluationError
from sclip.evaluate.runner import check_files
from sclip.launch import cluster, trainer
from sclip.launch import plan as planning
from sclip.launch.capacity import Capacity, encoder_bounds, sized
from sclip.launch.control import RunControl
from sclip.launch.exporter import RunMetrics
from sclip.launch.node_types import NodeType
from sclip.model import ModelError, check_trainable, image_size, most_words
from sclip.prepare.writing import PackError
from sclip.run import evaluation_tasks, lease, stopping
from sclip.run.checkpoint_evaluator import CheckpointEvaluator
from sclip.run.fingerprint import fingerprint
from sclip.run.finish import finish
from sclip.run.logs import JsonProgress, name_run
from sclip.run.progress import Progress
from sclip.run.resolve import TrainingData, bring_initial_weights, read_data, resolve_config
from sclip.run.shard_losses import LOSSES_FILE
from sclip.run.stopping import Stopped
from sclip.run.summary import Summary, compared_with
from sclip.scenegraph import ParserError, parser_version
from sclip.storage.masking import mask
from sclip.storage.paths import storage_path
from sclip.storage.retries import StorageError
from sclip.train.manifest import CheckpointError
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import compare_inputs, record_inputs

ERRORS = (
    BenchmarkDataError, CheckpointError, EvaluationError, ModelError, ParserError, registry.RegistryError, ShardError,
    StorageError, tracking.TrackingError, trainer.TrainingFailed,
)  # fmt: skip
"""Errors that `pretrain` raises besides ConfigError; each message is written for the user."""

LIMIT_TAG = "sclip.limit"
"""MLflow tag that names the slowest stage of the run, such as reading or training."""

_START_ERRORS = (
    BenchmarkDataError, EvaluationError, ModelError, PackError, ParserError, ShardError, registry.RegistryError,
    tracking.TrackingError, OSError,
)  # fmt: skip


@dataclass(frozen=True)
class PlanOptions:
    """Rates, prices and node types that the user gives for the plan."""

    rates: planning.rates.Rates = field(default_factory=dict)
    prices: planning.price_table.Prices | None = None
    nodes: tuple[NodeType, ...] = ()
    """Node types to plan for; empty means those of this machine's cluster."""


_DEFAULTS = PlanOptions()


@dataclass(frozen=True)
class _Checked:
    """A run that passed all checks; nothing is written yet."""

    config: Config
    folder: RunFolder
    data: TrainingData
    plan: planning.Plan


@dataclass(frozen=True)
class _Started:
    """A run whose start is recorded in the run's folder and in MLflow. No worker or actor is scheduled yet."""

    stream: StreamPlan
    folder: RunFolder
    tracker: tracking.Tracker

    @property
    def samples(self) -> int:
        """Number of samples in all epochs together."""
        return self.stream.order.recorded

    @property
    def config(self) -> Config:
        return self.stream.config


def plan(config: Config, options: PlanOptions = _DEFAULTS) -> planning.Plan:
    """Return the plan of a run; nothing is started or written. Raises ConfigError if the run could not start."""
    try:
        config, capacity = _fit_to_cluster(config, options.nodes)
        run_plan = _plan(config, capacity, read_data(config), options)
        return dataclasses.replace(run_plan, memory=planning.check_memory(run_plan.config, capacity))
    except _START_ERRORS as error:
        raise ConfigError(str(error)) from error


def _fit_to_cluster(config: Config, nodes: tuple[NodeType, ...] = ()) -> tuple[Config, Capacity]:
    check_trainable(config.model, has_start=bool(config.run.init_from))
    capacity = Capacity.of(*nodes) if nodes else cluster.connect()
    config = sized(config, capacity)
    encoder_bounds(config, capacity)  # refuse what does not fit before counting shards
    return config, capacity


def _plan(config: Config, capacity: Capacity, data: TrainingData, options: PlanOptions) -> planning.Plan:
    return planning.make(
        config, capacity, len(data.shards), data.samples, options.rates, options.prices, annotated=bool(data.stamp)
    )  # fmt: skip


def pretrain(config: Config, console: Console, options: PlanOptions = _DEFAULTS) -> Summary:
    """Train, evaluate and register one run; resume it if it was begun before.

    Raises ConfigError for errors found before anything is scheduled, and if another process owns the run. Later errors
    are one of ERRORS, each with a message for the user. After a signal, writes a checkpoint if there is time, and
    raises Stopped or KeyboardInterrupt.
    """
    with _as_config_error(config):
        checked = _check(config, console, options)
    name = checked.config.run.name
    with contextlib.ExitStack() as stack:
        with _as_config_error(config):
            stack.enter_context(stopping.answered())
            stack.enter_context(lease.held(checked.folder.path, lambda line: _say(line, console)))
            run = _start(checked, console, stack)
        try:
            if run.config.evaluate.before:
                console.print("evaluating the weights that training starts from")
                evaluation_tasks.measure_before(run.config, run.folder, run.stream.shards)
            if run.folder.complete is None:
                _train(run, console)
            return finish(run.stream, run.folder, run.tracker, console)
        except BaseException:
            console.print(f"to continue this run, use the same command with run.name={name}", soft_wrap=True)
            raise


@contextlib.contextmanager
def _as_config_error(config: Config) -> Iterator[None]:
    """Convert `_START_ERRORS` in the block into ConfigError, because the user can fix their cause."""
    try:
        yield
    except _START_ERRORS as error:
        raise ConfigError(_with_key(error, config)) from error


@contextlib.contextmanager
def _recorded(config: Config, console: Console) -> Iterator[tracking.Tracker]:
    """Record the run in MLflow with its final status: FINISHED, FAILED, or KILLED by a signal."""
    tracker = None
    try:
        with stopping.deferred():  # a signal during open_run would leave an MLflow run that nobody ends
            tracker = tracking.open_run(config, config.run.name, config.run.storage)
        yield tracker
    except BaseException as error:
        if tracker is not None:
            is_killed = isinstance(error, Stopped | KeyboardInterrupt)
            in_a_hurry = isinstance(error, Stopped) and error.work_goes_on
            _say(tracker.finish("KILLED" if is_killed else "FAILED", in_a_hurry), console)
        raise
    _say(tracker.finish("FINISHED"), console)


def _with_key(error: Exception, config: Config) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    prefix = f"{error.filename}: " if error.filename else ""
    return f"run.storage={mask(config.run.storage)!r}: {prefix}{error.strerror}"


def _say(line: str, console: Console) -> None:
    if line:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _check(config: Config, console: Console, options: PlanOptions) -> _Checked:
    tracking.check_installed(config.tracking.also)
    config, capacity = _fit_to_cluster(config)
    config = resolve_config(config, console)
    name_run(config.run.name)
    folder = RunFolder(storage_path(config.run.storage) / "runs" / config.run.name)
    data = read_data(config)
    run_plan = _plan(config, capacity, data, options)
    config = run_plan.config
    check_files(config.evaluate, config.data)
    if config.evaluate.every and config.evaluate.suite_beside:
        check_files(dataclasses.replace(config.evaluate, suite=config.evaluate.suite_beside), config.data)
    if config.run.compare_with:
        compared_with(config, folder.path.parent)
    return _Checked(config, folder, data, run_plan)


def _start(run: _Checked, console: Console, stack: contextlib.ExitStack) -> _Started:
    """Copy the starting weights into the run's folder, record the start there and in MLflow, and show the plan."""
    config, folder, data = run.config, run.folder, run.data
    for note in compare_inputs(folder, to_tree(config), data.sources):
        _say(note, console)
    with_weights = bring_initial_weights(config, folder, console)
    version = data.stamp or parser_version(config.data.spacy_model, most_words(config.model))
    dataset = fingerprint(data.sources, version)
    tracker = stack.enter_context(_recorded(config, console))
    record_inputs(folder, to_tree(config), data.sources)
    if not config.tracking.uri and not isinstance(folder.path, Path):
        _say(
            f"MLflow's store {tracker.uri} is only on this machine; set tracking.uri to a permanent one",
            console,
        )
    tracker.log_dataset(dataset.name, dataset.digest, config.data.shards, dataset.profile, "training")
    _say(
        f"run {config.run.name}: {sum(sum(s.values()) for s in data.sources):,} samples in {len(data.shards)} shards, "
        f"{config.train.epochs} epochs, {config.model.name}"
        + (", graphs and negatives as annotated" if data.stamp else ""),
        console,
    )
    if lines := data.losses.lines():
        folder.write(LOSSES_FILE, dataclasses.asdict(data.losses))
        for line in lines:
            _say(line, console)
    planning.show(run.plan, console)
    stream = StreamPlan(
        ReadSettings(with_weights, data.stamp), data.order, tuple(tuple(source) for source in data.sources),
        image_size(config.model.name), run.plan.encoders, data.expected,
    )  # fmt: skip
    return _Started(stream, folder, tracker)


def _train(run: _Started, console: Console) -> None:
    config, tracker = run.config, run.tracker
    control, has_trained = RunControl(), threading.Event()  # set once the current workers report a step

    def ask() -> bool:
        if not has_trained.is_set():
            progress.say(
                "asked to stop: the workers have reported no step since they started, so there is nothing to save"
            )
            return False
        progress.say("asked to stop: writing a checkpoint first (a second signal ends the run at once)")
        control.request("stop")
        return True

    shown: Progress | JsonProgress = JsonProgress()
    if config.run.log_format == "text":
        shown = Progress(run.samples, config.train.batch_size, config.run.progress_every_s, console)
    with (
        contextlib.closing(control),
        shown as progress,
        _evaluated(run, console) as evaluator,
        RunMetrics(config.run.name, run.samples) as exported,
    ):

        def on_report(report: dict[str, Any]) -> None:
            if report["kind"] in ("metrics", "checkpoint"):
                has_trained.set()  # before the step is shown: a user who sees it may stop the run
            elif report["kind"] in ("start", "lost"):
                has_trained.clear()
            progress.report(report)
            exported.report(report)
            if report["kind"] == "lost":
                tracker.keep()
            if evaluator:
                evaluator.poll()
            if report["kind"] == "metrics":
                step_metrics = {f"train/{k}": v for k, v in report["metrics"].items()}
                step_metrics |= {f"stream/{k}": v for k, v in report["stream"].items()}
                tracker.log(step_metrics, report["step"], {LIMIT_TAG: report["limit"]})
            elif report["kind"] == "checkpoint":
                tracker.log({"train/checkpoint_stall_s": report["seconds"]}, report["step"])
                tracker.keep()
                if evaluator:
                    evaluator.checkpoint(Path(report["path"]).name, report["step"])

        number = stopping.run(lambda: trainer.fit(run.stream, run.folder, on_report, control), ask)
    if run.folder.complete is None and number:
        latest = run.folder.latest()
        raise Stopped(f"stopped after a checkpoint at step {latest[1] if latest else 0}", number)


@contextlib.contextmanager
def _evaluated(run: _Started, console: Console) -> Iterator[CheckpointEvaluator | None]:
    if not run.config.evaluate.every:
        yield None
        return
    score = evaluation_tasks.checkpoint_scorer(run.config, run.folder, run.stream.shards)
    evaluator = CheckpointEvaluator(
        run.config.evaluate, run.folder, score, run.tracker.log, lambda line: _say(line, console)
    )
    try:
        yield evaluator
    except BaseException:
        evaluator.abandon()
        raise
    evaluator.close()
