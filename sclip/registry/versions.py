"""Versions of the registered model: an exported model and what was measured of it in, and the same out again.

A version is whole: weights, parser, tokenizer and transform, with a copy of this package, the pinned
libraries, a signature and an example. It is logged as code (`sclip.pyfunc_model`): nothing is pickled. Its
evaluation lies beside it, so that the gates of later versions have its intervals and its cases.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow.artifacts
import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model
from PIL import Image

from sclip.evaluate.result import EVALUATION_FILE, Evaluation, EvaluationError
from sclip.masking import mask
from sclip.model.weights import WEIGHTS_FILE
from sclip.registry.errors import RegistryError, refusals
from sclip.registry.requirements import pip_requirements
from sclip.scorer import read_parser
from sclip.signature import MODEL_CONFIG, SIGNATURE
from sclip.tracking import environment

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "GATES_TAG",
    "connect",
    "download",
    "evaluation_of",
    "find",
    "find_alias",
    "record",
    "register",
]

CANDIDATE = "candidate"
"""Alias of the newest registered version, which the gates judge."""
CHAMPION = "champion"
"""Alias of the version that is in use."""
GATES_TAG = "sclip.gates"
"""The gates of the config that a version was trained with, as JSON."""
MODEL_TAG = "sclip.model_id"
"""The logged model of a version, where its files are; MLflow's databases do not keep it."""


def register(
    client: MlflowClient,
    run_id: str,
    directory: str | Path,
    model_name: str,
    evaluation: Evaluation | None = None,
    gates: Sequence[str] = (),
) -> str:
    """Return the new version of a registered model, which then has the alias `candidate`.

    Load it anywhere with `mlflow.pyfunc.load_model("models:/NAME@candidate")`.

    Args:
        client: of the store that holds the run; `Tracker.client`.
        run_id: the MLflow run that trained the model.
        directory: what `Scorer.save` wrote.
        model_name: the registered model, made where it is missing (`tracking.model_name`).
        evaluation: what was measured of the model: its scores become tags of the version.
        gates: what `promotion.decide` will judge it by (`tracking.gates`).

    Raises RegistryError where the parser's pipeline is no installed package or the store refuses.
    """
    requirements = pip_requirements(read_parser(directory)["spacy_model"])
    tags = (_tags(evaluation) if evaluation else {}) | ({GATES_TAG: json.dumps(list(gates))} if gates else {})
    what = f"model {model_name!r} was not registered in {mask(client.tracking_uri)}"
    with refusals(what, f"it stands in {directory}"), _quiet(), tempfile.TemporaryDirectory() as folder:
        logged = client.create_logged_model(
            client.get_run(run_id).info.experiment_id,
            model_name,
            source_run_id=run_id,
            model_type="sclip",
        )
        status = LoggedModelStatus.FAILED
        try:
            path = _save(Path(folder) / "model", Path(directory), requirements, run_id, logged.model_id)
            if evaluation:
                _without_pictures(evaluation).write(path / EVALUATION_FILE)
            client.log_model_artifacts(logged.model_id, str(path))
            status = LoggedModelStatus.READY
        finally:
            client.finalize_logged_model(logged.model_id, status)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        if not client.search_registered_models(f"name = '{model_name}'"):
            client.create_registered_model(model_name)
        version = client.create_model_version(
            model_name,
            source=logged.artifact_location,
            run_id=run_id,
            model_id=logged.model_id,
            tags=tags | {MODEL_TAG: logged.model_id},
        )
        client.set_registered_model_alias(model_name, CANDIDATE, version.version)
    return str(version.version)


def connect(uri: str) -> MlflowClient:
    """Return a client of an existing store. Raises RegistryError for a file that is none: MLflow would make it."""
    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).is_file():
        raise RegistryError(f"no MLflow store {mask(uri)}: give its address (--uri, MLFLOW_TRACKING_URI)")
    with refusals(f"MLflow store {mask(uri)} cannot be used"):
        return MlflowClient(uri, uri)


def find(client: MlflowClient, model_name: str, version: str) -> ModelVersion:
    """Return a version by its number or alias.

    Raises RegistryError where there is no such model or version, or the store cannot be reached.
    """
    found = find_alias(client, model_name, version)
    if found is None:
        raise RegistryError(f"no version of {model_name} has the alias {version!r}")
    return found


def find_alias(client: MlflowClient, model_name: str, version: str) -> ModelVersion | None:
    """Return a version as `find` does; None where it is named by an alias that is not set."""
    store = mask(client.tracking_uri)
    with refusals(f"{model_name} is no registered model of {store}"):
        aliases = client.get_registered_model(model_name).aliases
    if not version.isdecimal() and version not in aliases:
        return None
    with refusals(f"models:/{model_name}/{version} is not in {store}"):
        return client.get_model_version(model_name, aliases.get(version, version))


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
        path = _fetch(source, client.tracking_uri, folder)
        try:
            return Evaluation.read(path)
        except EvaluationError as error:
            raise RegistryError(f"{named}: {error}") from error


def record(client: MlflowClient, version: ModelVersion, evaluation: Evaluation) -> None:
    """Replace what was measured of a version: the file beside the model, and the tags.

    Raises RegistryError where the store refuses, the version was not registered by `register`, or the evaluation is
    of other weights than the one recorded before.
    """
    named = f"models:/{version.name}/{version.version}"
    model_id = version.tags.get(MODEL_TAG)
    if not model_id:
        raise RegistryError(f"{named} was registered by something else: it has no place for an evaluation")
    before = evaluation_of(client, version)
    weights = {found.facts["weights"] for found in (before, evaluation) if found and "weights" in found.facts}
    if len(weights) > 1:
        raise RegistryError(f"the evaluation of {evaluation.model} is of other weights than {named} has")
    with (
        refusals(f"the evaluation of {named} was not recorded"),
        _quiet(),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / EVALUATION_FILE
        _without_pictures(evaluation).write(path)
        client.log_model_artifact(model_id, str(path))
        for name, value in _tags(evaluation).items():
            client.set_model_version_tag(version.name, version.version, name, value)


def download(source: str, uri: str, folder: str | Path) -> Path:
    """Fetch a registered model below `folder`; return the exported directory in it, which `Scorer.load` reads.

    Args:
        source: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        uri: the MLflow store, as `Tracker.uri`.
        folder: an existing folder.

    Raises RegistryError where there is no such version, or one that this project did not register.
    """
    with refusals(f"{source} cannot be had from {mask(uri)}"):
        model = _fetch(source, uri, folder)
    weights = next(model.glob(f"artifacts/*/{WEIGHTS_FILE}"), None)
    if weights is None:
        raise RegistryError(f"{source} is no Structure-CLIP model: no artifact of it holds {WEIGHTS_FILE}")
    return weights.parent


def _fetch(source: str, uri: str, folder: str | Path) -> Path:
    # By the environment: for models:/ URIs the function's own arguments do not reach the registry.
    with _quiet(), environment(MLFLOW_TRACKING_URI=uri, MLFLOW_REGISTRY_URI=uri):
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(folder)))


def _save(path: Path, directory: Path, requirements: list[str], run_id: str, model_id: str) -> Path:
    package = Path(__file__).parent.parent
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(picture, "PNG")
    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(package / "pyfunc_model.py"),
        code_paths=[str(package)],
        artifacts={"model": str(directory.absolute())},
        signature=SIGNATURE,
        input_example=pd.DataFrame({"image": [picture.getvalue()], "caption": ["a red square on the left"]}),
        model_config=MODEL_CONFIG,
        pip_requirements=requirements,
        mlflow_model=Model(run_id=run_id, model_uuid=model_id, model_id=model_id),
    )
    return path


def _tags(evaluation: Evaluation) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in evaluation.scores().items()}


def _without_pictures(evaluation: Evaluation) -> Evaluation:
    """Leave the examples to the report: the pictures are a hundred times the rest."""
    results = [dataclasses.replace(result, examples=[]) for result in evaluation.results]
    return dataclasses.replace(evaluation, results=results)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's progress bars and its notes on each step of saving out of the training's output."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with environment(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"):
            yield
    finally:
        logger.setLevel(level)
