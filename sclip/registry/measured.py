"""Store the evaluation of a version in the registry: as a file for the gates of later versions, as tags for people."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from sclip.evaluate.result import EVALUATION_FILE, Evaluation, EvaluationError
from sclip.registry.store import RegistryError, fetch, quiet, refusals
from sclip.storage.masking import mask

MODEL_TAG = "sclip.model_id"
"""Tag with the id of the logged model that holds a version's files. MLflow's databases do not keep this id."""


def evaluation_of(client: MlflowClient, version: ModelVersion) -> Evaluation | None:
    """Return a version's evaluation; None if it has none. Raises RegistryError if it cannot be downloaded or read."""
    name = f"models:/{version.name}/{version.version}"
    model_id = version.tags.get(MODEL_TAG)
    if not model_id:
        return None
    refused = refusals(f"the evaluation of {name} cannot be downloaded from {mask(client.tracking_uri)}")
    with refused, tempfile.TemporaryDirectory() as folder:
        if EVALUATION_FILE not in [entry.path for entry in client.list_logged_model_artifacts(model_id)]:
            return None
        try:
            return Evaluation.read(fetch(f"{name}/{EVALUATION_FILE}", client.tracking_uri, folder))
        except EvaluationError as error:
            raise RegistryError(f"the evaluation of {name}: {error}") from error


def record(client: MlflowClient, version: ModelVersion, evaluation: Evaluation) -> None:
    """Replace the evaluation of a version, both the file and the tags.

    Raises RegistryError if the store cannot be read or changed, if sclip did not register the version, or if the old
    evaluation measured other weights; EvaluationError if the new evaluation is empty.
    """
    evaluation.require_results()
    name = f"models:/{version.name}/{version.version}"
    model_id = version.tags.get(MODEL_TAG)
    if not model_id:
        raise RegistryError(f"sclip did not register {name}, so no evaluation can be recorded with it")
    before = evaluation_of(client, version)
    weights = {e.facts["weights"] for e in (before, evaluation) if e and "weights" in e.facts}
    if len(weights) > 1:
        raise RegistryError(f"the evaluation of {evaluation.model} measured other weights than {name} has")
    refused = refusals(f"the evaluation of {name} was not recorded")
    with refused, quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / EVALUATION_FILE
        without_pictures(evaluation).write(path)
        client.log_model_artifact(model_id, str(path))
        tags = tags_of(evaluation)
        for tag in tags_of(before).keys() - tags if before else ():
            client.delete_model_version_tag(version.name, version.version, tag)
        for tag, value in tags.items():
            client.set_model_version_tag(version.name, version.version, tag, value)


def tags_of(evaluation: Evaluation) -> dict[str, str]:
    """Return the scores as tags of a version."""
    return {name: f"{value:.6g}" for name, value in evaluation.scores().items()}


def without_pictures(evaluation: Evaluation) -> Evaluation:
    """Return an evaluation without examples: their pictures take 100 times the space of the rest."""
    results = [dataclasses.replace(result, examples=[]) for result in evaluation.results]
    return dataclasses.replace(evaluation, results=results)
