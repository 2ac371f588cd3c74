"""The main job from end to end: a config in, a registered model out.

    shards -> (Ray Data) -> encoded rows -> (Ray Train) -> checkpoints -> exported model -> scores -> registry

Every stage leaves its result in the run's folder before the next begins, so a run that is started again
under its name goes on with the first stage that is not done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from sclip import registry, tracking
from sclip.config import Config, ConfigError
from sclip.config.loader import to_tree
from sclip.data import identity
from sclip.data.reader import Reading
from sclip.data.schedule import Schedule
from sclip.data.shards import ShardError, count_samples, expand
from sclip.data.stream import StreamPlan
from sclip.evaluate.benchmarks import BenchmarkError
from sclip.evaluate.result import EvaluationError
from sclip.evaluate.runner import check_files
from sclip.launch import cluster, trainer
from sclip.launch import plan as planning
from sclip.launch.control import RunControl
from sclip.launch.exporter import Exported
from sclip.launch.sizing import sized
from sclip.model import ModelError, architecture, check_model, image_size
from sclip.model.architecture import pretrained_source, with_quick_gelu
from sclip.model.build import check_fit, resolved
from sclip.model.weights import WEIGHTS_FILE, read, save
from sclip.prepare import annotate, scenes
from sclip.prepare.pack import PackError
from sclip.run import scoring, stopping
from sclip.run.beside import Beside
from sclip.run.finish import Summary, compared_with, finish
from sclip.run.logs import Records, name_run
from sclip.run.progress import Progress
from sclip.run.stopping import Stopped, ends_on_sigterm
from sclip.scenegraph import ParserError, parser_version
from sclip.storage.filesystem import filesystem
from sclip.storage.masking import mask
from sclip.storage.place import address, fetch, place, send, staged
from sclip.storage.remote import StorageError
from sclip.train.manifest import CheckpointError
from sclip.train.run_folder import RunFolder

ERRORS = (
    BenchmarkError, CheckpointError, EvaluationError, ModelError, ParserError, registry.RegistryError, ShardError,
    StorageError, tracking.TrackingError, trainer.TrainingFailed,
)  # fmt: skip
"""What `pretrain` raises beside ConfigError; each message is written for the user."""

LIMIT_TAG = "sclip.limit"
"""Tag of the MLflow run that says in words which stage its rate is limited by."""

_AT_THE_START = (
    BenchmarkError, EvaluationError, ModelError, PackError, ParserError, ShardError, registry.RegistryError,
    tracking.TrackingError, OSError,
)  # fmt: skip


@dataclass(frozen=True)
class _Started:
    """A run of which everything was checked, and nothing is scheduled yet."""

    config: Config
    folder: RunFolder
    plan: StreamPlan
    samples: int
    """Of all epochs together."""
    tracker: tracking.Tracker


@dataclass(frozen=True)
class Told:
    """What the user says for the plan, beside the config."""

    rates: planning.rates.Rates = field(default_factory=dict)
    prices: planning.prices.Prices | None = None


_NOTHING_TOLD = Told()


def plan(config: Config, told: Told = _NOTHING_TOLD) -> planning.Plan:
    """Return the plan of a run without beginning it; nothing is written anywhere. Raises ConfigError."""
    try:
        check_model(config.model)
        capacity = cluster.connect()
        config = sized(config, capacity)
        actors = cluster.actor_bounds(config, capacity)
        if config.data.shards:
            sources = _sources(config)
            stamp = annotate.usable_stamp(config.data, [url for of_source in sources for url in of_source])
        else:
            sources, stamp = [{"scenes": config.scenes.train_samples}], ""
        samples = _schedule(config, sources).samples([list(of_source.values()) for of_source in sources])
        return planning.make(config, capacity, actors, samples, told.rates, told.prices, bool(stamp))
    except _AT_THE_START as error:
        raise ConfigError(str(error)) from error


def pretrain(config: Config, console: Console, told: Told = _NOTHING_TOLD) -> Summary:
    """Train, evaluate and register one run; go on with it where it was begun before.

    Raises ConfigError for what can be found before anything is scheduled, later one of ERRORS, each with a
    message for the user; and Stopped after a signal, with what was trained on in a checkpoint where there is time.
    """
    try:
        run = _start(config, console, told)
    except _AT_THE_START as error:
        raise ConfigError(str(error)) from error
    with ends_on_sigterm():  # in place of Ray's handler, which is there since the run was started
        return _go_on(run, console)


def _go_on(run: _Started, console: Console) -> Summary:
    config = run.config
    try:
        if config.evaluate.before:
            console.print("evaluating the weights that training starts from")
            scoring.measure_before(run.plan.config, run.folder, run.plan.shards)
        if run.folder.complete is None:
            _train(run, console)
        summary = finish(run.plan, run.folder, run.tracker, console)
    except BaseException as error:
        console.print(
            f"go on where it stopped: the same command with run.name={config.run.name}", soft_wrap=True
        )
        _tell(run.tracker.finish("KILLED" if isinstance(error, Stopped) else "FAILED"), console)
        raise
    _tell(run.tracker.finish("FINISHED"), console)
    return summary


def _tell(line: str, console: Console) -> None:
    if line:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _start(config: Config, console: Console, told: Told) -> _Started:
    """Check everything that can be checked, then record the start in the run's folder and in MLflow."""
    check_model(config.model)
    capacity = cluster.connect()
    config = sized(config, capacity)
    actors = cluster.actor_bounds(config, capacity)
    config = _resolved(config, console)
    name_run(config.run.name)
    folder = RunFolder(place(config.run.storage) / "runs" / config.run.name)
    sources = _sources(config)
    schedule = _schedule(config, sources)
    samples = schedule.samples([list(of_source.values()) for of_source in sources])
    shards = [url for of_source in sources for url in of_source]
    stamp = annotate.usable_stamp(config.data, shards)
    made = planning.make(config, capacity, actors, samples, told.rates, told.prices, bool(stamp))
    check_files(config.evaluate)
    if config.evaluate.every and config.evaluate.suite_beside:
        check_files(dataclasses.replace(config.evaluate, suite=config.evaluate.suite_beside))
    if config.run.compare_with:
        compared_with(config, folder.path.parent)
    folder.compare(to_tree(config), sources)
    initialised = _initialised(config, folder, console)
    found = identity.identify(sources, stamp or parser_version(config.data.spacy_model))
    tracker = tracking.open_run(config, config.run.name, config.run.storage)
    folder.start(to_tree(config), sources)
    if not config.tracking.uri and not isinstance(folder.path, Path):
        console.print(
            f"MLflow's store is {tracker.uri}, on this machine alone; name one that stays as tracking.uri",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
    tracker.log_dataset(found.name, found.digest, config.data.shards, found.profile, "training")
    console.print(
        f"run {config.run.name}: {sum(sum(s.values()) for s in sources):,} samples in {len(shards)} shards, "
        f"{config.train.epochs} epochs, {config.model.name}"
        + (", graphs and negatives as annotated" if stamp else ""),
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip
    planning.show(made, console)
    reading, size = Reading(initialised, stamp), image_size(config.model.name)
    stream_plan = StreamPlan(
        reading, schedule, tuple(tuple(of_source) for of_source in sources), size, actors
    )
    return _Started(config, folder, stream_plan, samples, tracker)


def _schedule(config: Config, sources: list[dict[str, int]]) -> Schedule:
    counts = [list(of_source.values()) for of_source in sources]
    return Schedule.weighted(config.run.seed, config.train.epochs, counts, config.data.weights)


def _sources(config: Config) -> list[dict[str, int]]:
    """Return the samples of each shard, by path or URI in their order, of each source."""
    data = config.data
    patterns = [(pattern,) for pattern in data.shards] if data.weights else [data.shards]
    found = [expand(of_source) for of_source in patterns]
    counts = count_samples([url for of_source in found for url in of_source])
    sources = [{url: counts[url] for url in of_source} for of_source in found]
    for of_source in sources:
        if alike := [place for place, n in Counter(map(mask, of_source)).items() if n > 1]:
            raise ConfigError(
                f"data.shards: several shards are {alike[0]} without credentials and query values, by which a run "
                "records its shards; name each by a path of its own, and once"
            )
    if sum(map(len, sources)) > len(counts):
        raise ConfigError(
            f"data.shards={mask(str(list(data.shards)))}: with data.weights, a shard is of one source only"
        )
    for of_pattern, of_source in zip(patterns, sources, strict=True):
        if not sum(of_source.values()):
            raise ConfigError(
                f"data.shards={mask(str(list(of_pattern)))}: {len(of_source)} shards without a sample"
            )
    return sources


def _resolved(config: Config, console: Console) -> Config:
    """Fill in the run's name, a storage folder that is absolute or a URI and, where no shards are given, the scenes."""
    storage = place(config.run.storage)
    _check_storage(config.run.storage)
    name = config.run.name or f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
    config = dataclasses.replace(
        config, run=dataclasses.replace(config.run, name=name, storage=address(storage))
    )
    if config.data.shards:
        return config
    console.print(
        "no data.shards given: training on generated scenes (yours: data.shards='/data/*.tar')",
        soft_wrap=True,
    )
    made = scenes.generate(storage / "scenes", config.scenes, config.run.seed)
    found = dataclasses.replace(config.evaluate, suite=config.evaluate.suite or address(made.suite))
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, shards=(str(made.train),)), evaluate=found
    )


def _check_storage(storage: str) -> None:
    """Raise ConfigError for a URI that nothing can be written to."""
    if "://" in storage:
        try:
            filesystem(storage)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"run.storage={mask(storage)!r}: {mask(str(error), storage)}") from None
        if storage.startswith("http"):
            raise ConfigError(f"run.storage={mask(storage)!r}: nothing can be written there; s3:// or gs://")


def _initialised(config: Config, folder: RunFolder, console: Console) -> Config:
    """Bring the weights that the run starts from into its folder, whatever their layout, and name them so.

    Workers then read one safetensors file, whose header says which activation it needs; the model's name becomes
    the one with that activation.
    """
    source = config.run.init_from
    path, _ = pretrained_source(config.model)
    if (source or path) and not folder.init.exists():
        with tempfile.TemporaryDirectory() as fetched:
            if source:
                weights = read(_weights(config, Path(fetched)), f"run.init_from={mask(source)!r}")
            else:
                weights = read(path or source, f"model.pretrained={mask(config.model.pretrained)!r}")
            notes = "".join(f"; {note}" for note in check_fit(config.model, weights))
            folder.path.mkdir(parents=True, exist_ok=True)
            with staged(folder.path) as written:
                partial = written / f".{folder.init.name}"
                save(weights.tensors, partial, with_quick_gelu(architecture(config.model, weights)))
                partial.replace(written / folder.init.name)
                send(written, folder.path, [folder.init.name])
        line = f"starting from {weights.source}: {len(weights.tensors)} tensors{notes}"
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    with folder.starting(config.model) as model:
        return dataclasses.replace(config, model=resolved(model))


def _weights(config: Config, fetched: Path) -> Path:
    """Return the file or folder that `run.init_from` means: of the registry, a run's model, or as it is named."""
    source = config.run.init_from
    if source.startswith("models:/"):
        return registry.download(source, tracking.store_uri(config, config.run.storage), fetched)
    path = place(source)
    models = (run / "model" for run in (path, place(config.run.storage) / "runs" / source))
    found = next((model for model in models if (model / WEIGHTS_FILE).is_file()), path)
    if not found.exists():
        raise ConfigError(
            f"run.init_from={mask(source)!r}: no file or folder of weights, no finished run, and no models:/NAME@alias"
        )
    if isinstance(found, Path):
        return found
    if found.is_file():
        fetch(found.parent, fetched, [found.name])
        return fetched / found.name
    fetch(found, fetched)
    return fetched


def _train(run: _Started, console: Console) -> None:
    config, tracker = run.config, run.tracker
    control, is_training = RunControl(), threading.Event()

    def ask() -> bool:
        if is_training.is_set():
            progress.say("asked to stop: writing a checkpoint first (a second signal ends it at once)")
            control.request("stop")
        return is_training.is_set()

    shown: Progress | Records = Records()
    if config.run.log_format == "text":
        shown = Progress(run.samples, config.train.batch_size, config.run.progress_every_s, console)
    with (
        contextlib.closing(control),
        shown as progress,
        _beside(run, console) as beside,
        Exported(config.run.name, run.samples) as exported,
    ):

        def on_report(report: dict[str, Any]) -> None:
            progress.report(report)
            exported.report(report)
            if report["kind"] == "start":
                is_training.set()
            elif report["kind"] == "lost":
                is_training.clear()
                tracker.keep()
            if beside:
                beside.poll()
            if report["kind"] == "metrics":
                of_step = {f"train/{k}": v for k, v in report["metrics"].items()}
                of_step |= {f"stream/{k}": v for k, v in report["stream"].items()}
                tracker.log(of_step, report["step"], {LIMIT_TAG: report["limit"]})
            elif report["kind"] == "checkpoint":
                tracker.log({"train/checkpoint_stall_s": report["seconds"]}, report["step"])
                tracker.keep()
                if beside:
                    beside.checkpoint(Path(report["path"]).name, report["step"])

        stopping.run(lambda: trainer.fit(run.plan, run.folder, run.samples, on_report, control), ask)
    if run.folder.complete is None:
        latest = run.folder.latest()
        raise Stopped(f"stopped after a checkpoint at step {latest[1] if latest else 0}")


@contextlib.contextmanager
def _beside(run: _Started, console: Console) -> Iterator[Beside | None]:
    """Evaluate beside the block, where `evaluate.every` asks for it; what goes on at its end is waited for."""
    if not run.config.evaluate.every:
        yield None
        return
    score = scoring.beside(run.plan.config, run.folder, run.plan.shards)
    found = Beside(run.config.evaluate, run.folder, score, run.tracker.log, lambda line: _tell(line, console))
    try:
        yield found
    except BaseException:
        found.abandon()
        raise
    found.close()
