"""Find or create a run's MLflow store and the run in it. Errors say in one line why a store cannot be used.

All calls use the `MlflowClient` of an explicit store. They ignore MLflow's active run, so that two runs in one process
do not mix.
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
from filelock import FileLock
from mlflow import MlflowClient, environment_variables
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException

from sclip.config import Config, RunConfig
from sclip.storage.masking import mask
from sclip.storage.paths import check_writable, storage_path
from sclip.tracking.moved import ARTIFACTS, TrackingError, follow, same_folder

DATABASE = "mlflow.db"
"""Name of the default store's SQLite file in a run's storage."""

RUN_NAME_TAG = "sclip.run_name"
"""Tag with the training run's name; a restarted run finds its MLflow run by this tag."""

_SQLITE = "sqlite:///"
_REACH_S = 5
"""Seconds that a store may take to answer when a run starts."""


@dataclass(frozen=True)
class Store:
    """An MLflow store, and the experiment and name of a run in it."""

    uri: str
    """The store's address, including credentials; `mask` it before showing it."""
    experiment: str
    run_name: str
    storage: str
    """Local folder for artifacts, used if the store is not a server."""

    @functools.cached_property
    def client(self) -> MlflowClient:
        """MLflow's client for the store. For a database, creating the client opens a connection."""
        logging.getLogger("mlflow.store").setLevel(logging.WARNING)  # MLflow logs every new SQLite table
        return MlflowClient(self.uri)

    @property
    def server(self) -> bool:
        """Whether the store is an MLflow server, not a database."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def _in_storage(self) -> bool:
        return self.uri == f"sqlite:///{self.storage}/{DATABASE}"

    def reach(self) -> str:
        """Return the experiment's id; create a missing one. Raises TrackingError in about 10 s if that fails."""
        if self._in_storage:
            try:
                check_writable(Path(self.storage))
            except OSError as error:
                raise TrackingError(str(error)) from error
        with refusals(self.uri), patience():
            if not self.server:
                _check_database(self.uri)
                follow(self.uri)
            with self._alone():
                return self._experiment()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock a SQLite store, because two processes that create MLflow's tables at the same time would both fail."""
        if not self.uri.startswith(_SQLITE):
            yield
            return
        with FileLock(f"{self.uri.removeprefix(_SQLITE)}.lock"):
            yield

    def open(self, run_id: str, started_ms: int) -> Run:
        """Return the run `run_id`, else the run `run_name`, else a new run. Raises MlflowException or TrackingError."""
        if run := self.find(run_id):
            return run
        experiment, query = self._experiment(), f"tags.`{RUN_NAME_TAG}` = '{self.run_name}'"
        if runs := self.client.search_runs([experiment], query, max_results=1):
            return runs[0]
        tags = {RUN_NAME_TAG: self.run_name}
        return self.client.create_run(experiment, started_ms, tags=tags, run_name=self.run_name)

    def find(self, run_id: str) -> Run | None:
        """Return the run with this id; None if missing or deleted. Raises MlflowException if the request fails."""
        if not run_id:
            return None
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None

    def _experiment(self) -> str:
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            # A server chooses where it keeps artifacts; MLflow's default for others is the working directory.
            root = None if self.server else f"{self.storage}/{ARTIFACTS}"
            return str(self.client.create_experiment(self.experiment, root))
        if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            raise TrackingError(
                f"{mask(self.uri)}: experiment {self.experiment!r} is deleted; restore it (mlflow "
                f"experiments restore -x {experiment.experiment_id}) or set another tracking.experiment"
            )
        if not self.server:
            self._check_root(experiment.artifact_location)
        return str(experiment.experiment_id)

    def _check_root(self, root: str) -> None:
        """Raise TrackingError if the experiment's artifact folder `root` belongs to another storage folder."""
        own_root = f"{self.storage}/{ARTIFACTS}"
        # Accept a folder whose name the user chose, and this storage's own folder.
        if not root.startswith("/") or Path(root).name != ARTIFACTS or same_folder(root, own_root):
            return
        if self._in_storage and not Path(root).exists():  # the store was moved
            follow(self.uri, root)
            return
        raise TrackingError(
            f"{mask(self.uri)}: experiment {self.experiment!r} keeps its artifacts in {root}, outside of "
            f"run.storage={self.storage}; set another tracking.experiment, or run.storage={Path(root).parent}"
        )


def try_store(config: Config) -> str:
    """Create and delete a run to check a config's store; return the masked address. Raises TrackingError on failure."""
    storage = config.run.storage
    store = Store(store_uri(config, storage), config.tracking.experiment, "doctor", str(local(storage)))
    experiment = store.reach()
    with refusals(store.uri), patience():
        run = store.client.create_run(experiment, run_name="doctor")
        store.client.log_metric(run.info.run_id, "doctor", 1.0)
        store.client.delete_run(run.info.run_id)
    return mask(store.uri)


def store_uri(config: Config, storage: str) -> str:
    """Return the address of a run's MLflow store: `tracking.uri`, or a SQLite file in `database_folder`."""
    return config.tracking.uri or f"sqlite:///{database_folder(storage) / DATABASE}"


def database_folder(storage: str) -> Path:
    """Return the folder of MLflow's local files: `storage`, or the default of run.storage if `storage` is a URI."""
    path = storage_path(storage)
    return path if isinstance(path, Path) else Path(RunConfig().storage).expanduser().absolute()


def local(storage: str) -> Path:
    """Return the local folder for records: `storage`, or a folder in `database_folder` if `storage` is a URI."""
    path = storage_path(storage)
    if isinstance(path, Path):
        return path
    return database_folder(storage) / "remote" / re.sub(r"[^\w.-]+", "-", str(path))


def _check_database(uri: str) -> None:
    """Connect to a database once, because MLflow itself would retry for minutes. Raises TrackingError on failure."""
    parts = urlsplit(uri)
    try:
        if parts.hostname and parts.port:
            socket.create_connection((parts.hostname, parts.port), timeout=_REACH_S).close()
        if uri.startswith(_SQLITE):
            Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        engine = sqlalchemy.create_engine(uri)
        sqlalchemy.inspect(engine).get_table_names()
        engine.dispose()
    except (OSError, ValueError, ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise TrackingError(
            f"MLflow store {mask(uri)} cannot be used: {first_cause(error)}; tracking.uri must be a server "
            "(http://HOST:PORT) or a database (sqlite:///FILE)"
        ) from error


@contextlib.contextmanager
def refusals(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into a TrackingError of one line."""
    try:
        yield
    except MlflowException as error:
        raise TrackingError(
            f"MLflow store {mask(uri)} cannot be used: {first_cause(error)}; "
            "check tracking.uri and its server, or start with tracking.offline=true"
        ) from error


def patience(timeout_s: int | None = None) -> contextlib.AbstractContextManager[None]:
    """Make MLflow ask a server only once and wait `timeout_s` for the answer; by default MLflow retries for minutes."""
    return settings(
        MLFLOW_HTTP_REQUEST_TIMEOUT=timeout_s or _REACH_S,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES=0,
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    )


_settings = threading.RLock()


@contextlib.contextmanager
def settings(**values: object) -> Iterator[None]:
    """Override environment variables for MLflow during the block. Only one thread at a time enters such a block."""
    with _settings:
        before = environment_variables.os
        environ = ChainMap({name: str(value) for name, value in values.items()}, before.environ)
        # Not os.environ itself: glibc before 2.41 crashes if a variable is added while a Ray thread reads one.
        environment_variables.os = SimpleNamespace(environ=environ)
        try:
            yield
        finally:
            environment_variables.os = before


def first_cause(error: BaseException) -> str:
    """Return the first cause of an error in one line, such as "Connection refused", without its wrappers."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return mask(" ".join(str(error).split())[:300]) or type(error).__name__
