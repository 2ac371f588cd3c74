"""Open the MLflow store of the registry, and find versions and files in it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from sclip.storage.masking import mask
from sclip.tracking import TrackingError, first_cause, follow, settings

CANDIDATE = "candidate"
"""Alias of the newest registered version, which the gates judge."""
CHAMPION = "champion"
"""Alias of the version in use."""


class RegistryError(RuntimeError):
    """Error for a version that cannot be registered, found or promoted. The message is one line: reason and remedy."""


@contextlib.contextmanager
def refusals(failure: str, remedy: str = "") -> Iterator[None]:
    """Turn MLflow's errors into a RegistryError of one line: what failed, the first cause, the remedy."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise RegistryError(f"{failure}: {first_cause(error)}{remedy and f'; {remedy}'}") from error


def connect(uri: str) -> MlflowClient:
    """Return a client of a store. Raises RegistryError if the store's file is missing, or the store cannot be used."""
    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).is_file():  # MLflow would create a new one
        raise RegistryError(
            f"MLflow store {mask(uri)} does not exist: give its address (--tracking-uri, MLFLOW_TRACKING_URI)"
        )
    follow_moved(uri)
    with refusals(f"MLflow store {mask(uri)} cannot be used"):
        return MlflowClient(uri, uri)


def follow_moved(uri: str) -> None:
    """Update the paths recorded in a store that was moved (`sclip.tracking.moved`). Raises RegistryError on failure."""
    try:
        follow(uri)
    except TrackingError as error:
        raise RegistryError(str(error)) from error


def find(client: MlflowClient, model_name: str, version: str) -> ModelVersion:
    """Return a version by its number or alias. Raises RegistryError if there is none, or the store does not answer."""
    model_version = find_alias(client, model_name, version)
    if model_version is None:
        raise RegistryError(f"no version of {model_name} has the alias {version!r}")
    return model_version


def find_alias(client: MlflowClient, model_name: str, version: str) -> ModelVersion | None:
    """Return a version as `find` does; None if `version` is an alias that is not set."""
    store = mask(client.tracking_uri)
    with refusals(f"registered model {model_name} cannot be read from {store}"):
        aliases = client.get_registered_model(model_name).aliases
    if not version.isdecimal() and version not in aliases:
        return None
    with refusals(f"models:/{model_name}/{version} cannot be read from {store}"):
        return client.get_model_version(model_name, aliases.get(version, version))


def fetch(source: str, uri: str, folder: str | Path) -> Path:
    """Download a file or folder of `models:/..` into `folder`, and return its path. Raises MLflow's errors."""
    # For models:/ URIs, download_artifacts ignores its address arguments. MLflow reads these settings instead.
    with quiet(), settings(MLFLOW_TRACKING_URI=uri, MLFLOW_REGISTRY_URI=uri):
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(folder)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's progress bars and log lines out of the training's output."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with settings(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"):
            yield
    finally:
        logger.setLevel(level)
