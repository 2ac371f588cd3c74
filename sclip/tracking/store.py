"""The MLflow store of a run and the run in it: found again, or made; and what is wrong where it cannot be used.

Everything goes through `MlflowClient` with an explicit store, so that nothing depends on the process's active
run, and two runs in one process do not meet.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import socket
import threading
from collections import ChainMap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import sqlalchemy
from mlflow import MlflowClient, environment_variables
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException

from sclip.config import Config, RunConfig
from sclip.storage.masking import mask
from sclip.storage.paths import check_writable, storage_path
from sclip.tracking.moved import ARTIFACTS, TrackingError, follow, same_folder

DATABASE = "mlflow.db"
"""File of the store in a run's storage, where no other store is named."""

RUN_NAME_TAG = "sclip.run_name"
"""Tag by which the MLflow run of a training run is found again."""

_REACH_S = 5
"""Seconds that a store may take to answer at the start."""


@dataclass(frozen=True)
class Store:
    """An MLflow store, and what a run is called there."""

    uri: str
    """With credentials where it has any; `mask` it before it is shown."""
    experiment: str
    run_name: str
    storage: str
    """Folder for artifacts where no server keeps them."""

    @functools.cached_property
    def client(self) -> MlflowClient:
        """Client of the store; for a database it connects."""
        logging.getLogger("mlflow.store").setLevel(logging.WARNING)  # it tells of every new SQLite table
        return MlflowClient(self.uri)

    @property
    def server(self) -> bool:
        """Whether it is an MLflow server, not a database."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def _in_storage(self) -> bool:
        """Whether it is the SQLite file in `storage`, where `tracking.uri` names no other store."""
        return self.uri == f"sqlite:///{self.storage}/{DATABASE}"

    def reach(self) -> str:
        """Return the id of the experiment, made where it is missing.

        Raises TrackingError in about ten seconds where the store cannot be used.
        """
        if self._in_storage:
            try:
                check_writable(Path(self.storage))
            except OSError as error:
                raise TrackingError(str(error)) from error
        with refusals(self.uri), patience():
            if not self.server:
                _check_database(self.uri)
                follow(self.uri)
            return self._experiment()

    def open(self, run_id: str, started_ms: int) -> Run:
        """Return the run: the one with an id, else the one of its name in the experiment, else a new one.

        Raises MlflowException or TrackingError.
        """
        if run := self.find(run_id):
            return run
        experiment = self._experiment()
        found = self.client.search_runs(
            [experiment], f"tags.`{RUN_NAME_TAG}` = '{self.run_name}'", max_results=1
        )
        if found:
            return found[0]
        tags = {RUN_NAME_TAG: self.run_name}
        return self.client.create_run(experiment, started_ms, tags=tags, run_name=self.run_name)

    def find(self, run_id: str) -> Run | None:
        """Return the run with an id, unless there is none or it was deleted. Raises MlflowException."""
        try:
            run = self.client.get_run(run_id) if run_id else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run is not None and run.info.lifecycle_stage == LifecycleStage.ACTIVE else None

    def _experiment(self) -> str:
        """Return the id of the experiment, made where it is missing.

        Its artifacts lie where the server puts them or, without one, in `storage`: MLflow's own default would be
        the working directory.
        """
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            return str(
                self.client.create_experiment(
                    self.experiment, None if self.server else f"{self.storage}/{ARTIFACTS}"
                )
            )
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise TrackingError(
                f"{mask(self.uri)}: experiment {self.experiment!r} is deleted there; restore it (mlflow "
                f"experiments restore -x {found.experiment_id}) or set another tracking.experiment"
            )
        if not self.server:
            self._keep_inside(found.artifact_location)
        return str(found.experiment_id)

    def _keep_inside(self, root: str) -> None:
        """Raise TrackingError where an experiment's artifacts would go into another storage folder.

        A root of another name is not of a run's making, but of someone's who chose it.
        """
        inside = f"{self.storage}/{ARTIFACTS}"
        if not root.startswith("/") or Path(root).name != ARTIFACTS or same_folder(root, inside):
            return
        if self._in_storage and not Path(root).exists():
            follow(self.uri, root)
            return
        raise TrackingError(
            f"{mask(self.uri)}: experiment {self.experiment!r} keeps its artifacts in {root}, outside of "
            f"run.storage={self.storage}; set another tracking.experiment, or run.storage={Path(root).parent}"
        )


def store_uri(config: Config, storage: str) -> str:
    """Return the MLflow store of a run: `tracking.uri`, or a SQLite file in `database_folder`."""
    return config.tracking.uri or f"sqlite:///{database_folder(storage) / DATABASE}"


def database_folder(storage: str) -> Path:
    """Return where MLflow's files go without a server: `run.storage`, for a URI what that is by default.

    SQLite is a file of one machine's disk.
    """
    of = storage_path(storage)
    return of if isinstance(of, Path) else Path(RunConfig().storage).expanduser().absolute()


def local(storage: str) -> Path:
    """Return the folder of this machine that records are written to: `run.storage`, or for a URI one in its stead."""
    of = storage_path(storage)
    if isinstance(of, Path):
        return of
    return database_folder(storage) / "remote" / re.sub(r"[^\w.-]+", "-", str(of))


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
def refusals(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into a TrackingError of one line."""
    try:
        yield
    except MlflowException as error:
        raise TrackingError(
            f"MLflow store {mask(uri)} cannot be used: {first_cause(error)}; "
            "check tracking.uri and its server, or start with tracking.offline=true"
        ) from error


def patience(timeout_s: int | None = None) -> contextlib.AbstractContextManager[None]:
    """Let MLflow wait so long for a server, and ask once: by itself it would try for minutes."""
    timeout_s = _REACH_S if timeout_s is None else timeout_s
    return settings(
        MLFLOW_HTTP_REQUEST_TIMEOUT=timeout_s,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES=0,
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    )


_settings = threading.RLock()


@contextlib.contextmanager
def settings(**values: object) -> Iterator[None]:
    """Let MLflow find other environment variables for a while; it reads its settings from there at every use.

    The variables of the process stay as they are: where one is added while a thread of Ray's reads one, glibc before
    2.41 ends the process with SIGSEGV. One thread at a time: another one waits here for as long, and none takes the
    values of another for its own.
    """
    with _settings:
        before = environment_variables.os
        environ = ChainMap({name: str(value) for name, value in values.items()}, before.environ)
        environment_variables.os = SimpleNamespace(environ=environ)
        try:
            yield
        finally:
            environment_variables.os = before


def first_cause(error: BaseException) -> str:
    """Return the first cause of an error in one line: "Connection refused", not all that was made of it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return mask(" ".join(str(error).split())[:300]) or type(error).__name__
