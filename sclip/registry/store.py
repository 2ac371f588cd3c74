"""The MLflow store behind the registry: its address in, a client, versions and files out, and how it refuses."""

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
"""Alias of the version that is in use."""


class RegistryError(RuntimeError):
    """What could not be registered, found or promoted; one line with the reason and what to do."""


@contextlib.contextmanager
def refusals(what: str, remedy: str = "") -> Iterator[None]:
    """Turn what MLflow raises into a RegistryError of one line: what was to be done, the first cause, the remedy."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise RegistryError(f"{what}: {first_cause(error)}{remedy and f'; {remedy}'}") from error


def connect(uri: str) -> MlflowClient:
    """Return a client of an existing store. Raises RegistryError for a file that is none: MLflow would make it."""
    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).is_file():
        raise RegistryError(
            f"no MLflow store {mask(uri)}: give its address (--tracking-uri, MLFLOW_TRACKING_URI)"
        )
    follow_moved(uri)
    with refusals(f"MLflow store {mask(uri)} cannot be used"):
        return MlflowClient(uri, uri)


def follow_moved(uri: str) -> None:
    """Let the records of a store that was moved follow it. Raises RegistryError where they cannot."""
    try:
        follow(uri)
    except TrackingError as error:
        raise RegistryError(str(error)) from error


def find(client: MlflowClient, model_name: str, version: str) -> ModelVersion:
    """Return a version by its number or alias.

    Raises RegistryError where there is no such model or version, or the store cannot be reached.
    """
    named = find_alias(client, model_name, version)
    if named is None:
        raise RegistryError(f"no version of {model_name} has the alias {version!r}")
    return named


def find_alias(client: MlflowClient, model_name: str, version: str) -> ModelVersion | None:
    """Return a version as `find` does; None where it is named by an alias that is not set."""
    store = mask(client.tracking_uri)
    with refusals(f"{model_name} is no registered model of {store}"):
        aliases = client.get_registered_model(model_name).aliases
    if not version.isdecimal() and version not in aliases:
        return None
    with refusals(f"models:/{model_name}/{version} is not in {store}"):
        return client.get_model_version(model_name, aliases.get(version, version))


def fetch(source: str, uri: str, folder: str | Path) -> Path:
    """Download a file or folder of `models:/..` below `folder`; return where it lies. Raises what MLflow raises."""
    # By settings: for models:/ URIs the function's own arguments do not reach the registry.
    with quiet(), settings(MLFLOW_TRACKING_URI=uri, MLFLOW_REGISTRY_URI=uri):
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(folder)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's progress bars and its notes on each step of saving out of the training's output."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with settings(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"):
            yield
    finally:
        logger.setLevel(level)
