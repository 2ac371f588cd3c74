"""What was measured of a version, kept beside it: an evaluation in, the same out when later versions are judged.

The file lies among the version's own, so that the gates have intervals and cases; the scores are tags, for people.
"""

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
"""The logged model of a version, where its files are; MLflow's databases do not keep it."""


def evaluation_of(client: MlflowClient, version: ModelVersion) -> Evaluation | None:
    """Return what was measured of a version; None where nothing is recorded.

    Raises RegistryError where the record cannot be had or read.
    """
    named = f"the evaluation of models:/{version.name}/{version.version}"
    model_id = version.tags.get(MODEL_TAG)
    if not model_id:
        return None
    with (
        refusals(f"{named} cannot be had from {mask(client.tracking_uri)}"),
        tempfile.TemporaryDirectory() as folder,
    ):
        files = [entry.path for entry in client.list_logged_model_artifacts(model_id)]
        if EVALUATION_FILE not in files:
            return None
        source = f"models:/{version.name}/{version.version}/{EVALUATION_FILE}"
        path = fetch(source, client.tracking_uri, folder)
        try:
            return Evaluation.read(path)
        except EvaluationError as error:
            raise RegistryError(f"{named}: {error}") from error


def record(client: MlflowClient, version: ModelVersion, evaluation: Evaluation) -> None:
    """Replace what was measured of a version: the file beside the model, and the tags.

    Raises RegistryError where the store refuses, the version was not registered by `register`, or the evaluation is
    of other weights than the one recorded before; EvaluationError where it is of no benchmark.
    """
    evaluation.require_results()
    named = f"models:/{version.name}/{version.version}"
    model_id = version.tags.get(MODEL_TAG)
    if not model_id:
        raise RegistryError(f"{named} was registered by something else: it has no place for an evaluation")
    before = evaluation_of(client, version)
    weights = {known.facts["weights"] for known in (before, evaluation) if known and "weights" in known.facts}
    if len(weights) > 1:
        raise RegistryError(f"the evaluation of {evaluation.model} is of other weights than {named} has")
    with (
        refusals(f"the evaluation of {named} was not recorded"),
        quiet(),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / EVALUATION_FILE
        without_pictures(evaluation).write(path)
        client.log_model_artifact(model_id, str(path))
        tags = tags_of(evaluation)
        for name in tags_of(before).keys() - tags if before else ():
            client.delete_model_version_tag(version.name, version.version, name)
        for name, value in tags.items():
            client.set_model_version_tag(version.name, version.version, name, value)


def tags_of(evaluation: Evaluation) -> dict[str, str]:
    """Return the scores as tags of a version."""
    return {name: f"{value:.6g}" for name, value in evaluation.scores().items()}


def without_pictures(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation without its examples, whose pictures are a hundred times the rest: the report has them."""
    results = [dataclasses.replace(result, examples=[]) for result in evaluation.results]
    return dataclasses.replace(evaluation, results=results)
