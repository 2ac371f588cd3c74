"""MLflow's record of a training run: config and metrics in, one MLflow run out, the same one after a restart.

Everything goes through `MlflowClient` with an explicit store, so that nothing depends on the process's active
run, and two runs in one process do not meet. Metrics that the store does not take at the moment are kept and
sent with the next ones: a server that is away for a while costs a training run neither time nor a metric.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from sclip.config import Config
from sclip.config_loader import flatten, to_tree
from sclip.masking import mask

RUN_NAME_TAG = "sclip.run_name"
"""Tag by which the MLflow run of a training run is found again."""

_METRICS_A_CALL = 1000
_PARAMS_A_CALL = 100
_PARAM_CHARACTERS = 6000
"""MLflow's limits of one log_batch call and of one value."""
_REACH_S = 5
"""Seconds that a store may take to answer at the start, or to take a batch of metrics."""
_RETRY_AFTER_S = 30.0
"""Seconds without a further attempt after the store did not take metrics."""

_log = logging.getLogger(__name__)


class TrackingError(RuntimeError):
    """A store that cannot be used; one line with its address and what to do."""


class Tracker:
    """The MLflow run of one training run. Not thread-safe: one process writes, from one thread."""

    def __init__(self, client: MlflowClient, uri: str, run: Run) -> None:
        """Take over an open run; `open_run` makes it."""
        self.client = client
        self.uri = uri
        """The store, with credentials where it has any; `mask` it before it is shown."""
        self.run_id = run.info.run_id
        # The latest step of each metric; RunData's dictionary has values only, its wire form steps too.
        self._logged = {metric.key: metric.step for metric in run.data.to_proto().metrics}
        self._unsent: list[Metric] = []
        self._tags: dict[str, str] = {}
        self._not_before = 0.0

    def log(self, metrics: Mapping[str, float], step: int, tags: Mapping[str, str] | None = None) -> None:
        """Record metrics at a step, and tags, of which the last value stays.

        A metric that already has this step or a later one is not recorded again. That is the case after a restart
        from a checkpoint: the steps since then are trained again, and the curve keeps the values of the first time.
        Never raises because the store is away; `finish` does.
        """
        now_ms = int(time.time() * 1000)
        for name, value in metrics.items():
            if step > self._logged.get(name, -1):
                self._unsent.append(Metric(name, float(value), now_ms, step))
                self._logged[name] = step
        self._tags |= {name: value for name, value in (tags or {}).items() if value}
        if self._unsent and time.monotonic() >= self._not_before:
            try:
                with _patience(retries=0):
                    self._send()
            except MlflowException as error:
                self._not_before = time.monotonic() + _RETRY_AFTER_S
                _log.warning(
                    "%d metrics wait for %s: %s", len(self._unsent), mask(self.uri), first_cause(error)
                )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run. Raises TrackingError when the store does not take them."""
        with _refusals(self.uri):
            self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def finish(self, status: Literal["FINISHED", "FAILED"] = "FINISHED") -> None:
        """Send what is left and close the run. Raises TrackingError when the store does not take it."""
        with _refusals(self.uri), _patience(retries=3):
            self._send()
            with contextlib.redirect_stdout(io.StringIO()):  # MLflow prints the address of the run
                self.client.set_terminated(self.run_id, status)

    def _send(self) -> None:
        while batch := self._unsent[:_METRICS_A_CALL]:
            tags = [RunTag(name, value) for name, value in self._tags.items()]
            self.client.log_batch(self.run_id, metrics=batch, tags=tags)  # a batch sent twice is stored once
            del self._unsent[: len(batch)]
            self._tags.clear()


def open_run(config: Config, run_name: str, storage: str) -> Tracker:
    """Return the MLflow run of the training run `run_name`: the one of an earlier start, or a new one.

    A new one has the flattened config as params and, where the code is a git checkout, the commit as tag.

    Args:
        config: the resolved config; `config.tracking` says where to record.
        run_name: name of the training run.
        storage: `run.storage`, resolved: a folder or a URI.

    Raises TrackingError in about ten seconds when the store cannot be used, unless `tracking.offline`.
    """
    uri = store_uri(config, storage)
    try:
        return _open(uri, config, run_name, storage)
    except TrackingError as error:
        if not config.tracking.offline:
            raise
        offline = _sqlite(f"{storage}/{run_name}")
        _log.warning("%s; recording offline into %s", error, offline)
        return _open(offline, config, run_name, f"{storage}/{run_name}")


def store_uri(config: Config, storage: str) -> str:
    """Return the MLflow store of a run: `tracking.uri`, or a SQLite file in the storage folder."""
    return config.tracking.uri or _sqlite(storage)


def _sqlite(folder: str) -> str:
    if "://" in folder:
        raise TrackingError(
            f"run.storage={mask(folder)} is no local folder, which MLflow's SQLite store needs: "
            "give tracking.uri (an MLflow server)"
        )
    return f"sqlite:///{Path(folder).expanduser().absolute() / 'mlflow.db'}"


def _open(uri: str, config: Config, run_name: str, storage: str) -> Tracker:
    logging.getLogger("mlflow.store").setLevel(logging.WARNING)  # it tells of every new SQLite table
    with _refusals(uri), _patience(retries=0):
        if not uri.startswith(("http://", "https://")):
            _check_database(uri)
        client = MlflowClient(uri)
        experiment = _experiment(client, uri, config.tracking.experiment, storage)
        tag = f"tags.`{RUN_NAME_TAG}` = '{run_name}'"
        found = client.search_runs([experiment], tag, max_results=1)
        run = found[0] if found else client.create_run(experiment, run_name=run_name, tags=_tags(run_name))
        client.update_run(run.info.run_id, status="RUNNING")
        params = {key: mask(str(value)) for key, value in flatten(to_tree(config)).items()}
        new = [Param(k, v[:_PARAM_CHARACTERS]) for k, v in params.items() if k not in run.data.params]
        for start in range(0, len(new), _PARAMS_A_CALL):
            client.log_batch(run.info.run_id, params=new[start : start + _PARAMS_A_CALL])
    return Tracker(client, uri, run)


def _experiment(client: MlflowClient, uri: str, name: str, storage: str) -> str:
    """Return the id of the experiment, made where it is missing.

    Its artifacts lie where the server puts them or, without one, in `storage`: MLflow's own default would be
    the working directory.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        server = uri.startswith(("http://", "https://"))
        folder = storage if "://" in storage else str(Path(storage).expanduser().absolute())
        return str(client.create_experiment(name, None if server else f"{folder}/mlartifacts"))
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"{mask(uri)}: experiment {name!r} is deleted there; restore it (mlflow experiments restore "
            f"-x {experiment.experiment_id}) or set another tracking.experiment"
        )
    return str(experiment.experiment_id)


def _tags(run_name: str) -> dict[str, str]:
    commit = _git_commit()
    return {RUN_NAME_TAG: run_name} | ({"mlflow.source.git.commit": commit} if commit else {})


def _git_commit() -> str:
    """Return the commit that this file is tracked in; empty for an installed package or without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return ""


def _check_database(uri: str) -> None:
    """Connect to a database once: MLflow itself would try again for minutes before it gives up."""
    place = urlsplit(uri)
    try:
        if place.hostname and place.port:
            socket.create_connection((place.hostname, place.port), timeout=_REACH_S).close()
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        engine = sqlalchemy.create_engine(uri)
        sqlalchemy.inspect(engine).get_table_names()
        engine.dispose()
    except (OSError, ValueError, ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise TrackingError(
            f"MLflow store {mask(uri)} cannot be used: {first_cause(error)}; tracking.uri is a server "
            "(http://HOST:PORT) or a database (sqlite:///FILE)"
        ) from error


@contextlib.contextmanager
def _refusals(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into a TrackingError of one line."""
    try:
        yield
    except MlflowException as error:
        raise TrackingError(
            f"MLflow store {mask(uri)} cannot be used: {first_cause(error)}; "
            "check tracking.uri and its server, or start with tracking.offline=true"
        ) from error


def _patience(retries: int) -> contextlib.AbstractContextManager[None]:
    """Limit MLflow's waiting for a server, minutes by default, while a start or metrics wait for it."""
    return environment(MLFLOW_HTTP_REQUEST_TIMEOUT=_REACH_S, MLFLOW_HTTP_REQUEST_MAX_RETRIES=retries)


@contextlib.contextmanager
def environment(**values: object) -> Iterator[None]:
    """Set environment variables for a while; MLflow reads its settings from there at every use."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def first_cause(error: BaseException) -> str:
    """Return the first cause of an error in one line: "Connection refused", not all that was made of it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return mask(" ".join(str(error).split())[:300]) or type(error).__name__
