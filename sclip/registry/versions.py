"""Register an exported model with its evaluation as a version, and download or open a version again.

A version is complete: weights, parser, tokenizer and transform, a copy of this package, pinned libraries, a signature
and an example. The model is logged as code (`sclip.inference.pyfunc_model`); nothing is pickled.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from PIL import Image

from sclip.config import Config
from sclip.evaluate.result import EVALUATION_FILE, Evaluation
from sclip.inference.open_model import open_model
from sclip.inference.scorer import Scorer, read_parser
from sclip.inference.signature import MODEL_CONFIG, SIGNATURE
from sclip.model import ModelError, hub
from sclip.model.weights import WEIGHTS_FILE
from sclip.registry.measured import MODEL_TAG, evaluation_of, tags_of, without_pictures
from sclip.registry.requirements import pip_requirements
from sclip.registry.store import CANDIDATE, RegistryError, fetch, follow_moved, quiet, refusals
from sclip.storage.masking import mask
from sclip.tracking import store_uri

GATES_TAG = "sclip.gates"
"""Tag of a version with the gates of its training config, as JSON."""


def register(
    client: MlflowClient,
    run_id: str,
    directory: str | Path,
    model_name: str,
    evaluation: Evaluation | None = None,
    gates: Sequence[str] = (),
) -> str:
    """Register a model that `Scorer.save` wrote, as a new version with the alias `candidate`; return its number.

    `mlflow.pyfunc.load_model("models:/NAME@candidate")` loads it anywhere. `client` must use the store that holds the
    run. `gates` are stored with the version, for a later call of `promotion.decide`.

    Raises RegistryError if the parser's pipeline is no installed package, or if the store cannot be read or changed.
    """
    from_hub = (Path(directory) / hub.FOLDER).is_dir()
    requirements = pip_requirements(read_parser(directory)["spacy_model"], from_hub)
    tags = tags_of(evaluation) if evaluation else {}
    if gates:
        tags[GATES_TAG] = json.dumps(list(gates))
    failure = f"model {model_name!r} was not registered in {mask(client.tracking_uri)}"
    with refusals(failure, f"the model is in {directory}"), quiet(), tempfile.TemporaryDirectory() as folder:
        experiment = client.get_run(run_id).info.experiment_id
        logged = client.create_logged_model(experiment, model_name, source_run_id=run_id, model_type="sclip")
        status = LoggedModelStatus.FAILED
        try:
            path = _save(Path(folder) / "model", Path(directory), requirements, run_id, logged.model_id)
            if evaluation:
                without_pictures(evaluation).write(path / EVALUATION_FILE)
            client.log_model_artifacts(logged.model_id, str(path))
            status = LoggedModelStatus.READY
        finally:
            client.finalize_logged_model(logged.model_id, status)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        _create(client, model_name)
        version = client.create_model_version(
            model_name, logged.artifact_location, run_id,
            tags=tags | {MODEL_TAG: logged.model_id}, model_id=logged.model_id,
        )  # fmt: skip
        client.set_registered_model_alias(model_name, CANDIDATE, version.version)
    return str(version.version)


def register_once(
    client: MlflowClient,
    run_id: str,
    directory: str | Path,
    model_name: str,
    evaluation: Evaluation,
    gates: Sequence[str],
) -> str:
    """Register a model as `register` does, unless this run has registered these weights; return the version's number.

    The version gets the alias `candidate`, unless a newer version has it.
    """
    with refusals(
        f"{mask(client.tracking_uri)} cannot be searched for versions", f"the model is in {directory}"
    ):
        weights, numbers = evaluation.facts.get("weights"), []
        for version in client.search_model_versions(f"run_id = '{run_id}'"):
            measured = evaluation_of(client, version) if version.name == model_name else None
            if weights and measured and measured.facts.get("weights") == weights:
                numbers.append(int(version.version))
        if numbers:  # the run was killed before it recorded the number
            aliases = client.get_registered_model(model_name).aliases
            if int(aliases.get(CANDIDATE, 0)) < max(numbers):
                client.set_registered_model_alias(model_name, CANDIDATE, str(max(numbers)))
            return str(max(numbers))
    return register(client, run_id, directory, model_name, evaluation, gates)


def download(source: str, uri: str, folder: str | Path) -> Path:
    """Download `models:/NAME@ALIAS` or `models:/NAME/VERSION` into a folder; return the subfolder for `Scorer.load`.

    Raises RegistryError if the version does not exist, or is not a Structure-CLIP model.
    """
    follow_moved(uri)
    with refusals(f"{source} cannot be downloaded from {mask(uri)}"):
        model = fetch(source, uri, folder)
    weights = next(model.glob(f"artifacts/*/{WEIGHTS_FILE}"), None)
    if weights is None:
        raise RegistryError(
            f"{source} is not a Structure-CLIP model: none of its artifacts is {WEIGHTS_FILE}"
        )
    return weights.parent


def open_version(source: str, device: str, tracking_uri: str, storage: str | Path) -> Scorer:
    """Open `models:/NAME@ALIAS` or `models:/NAME/VERSION` with its parser and tokenizer.

    If `tracking_uri` is empty, the version comes from the SQLite store in `storage` (the config's `run.storage`).
    Raises ModelError for another form of `source`, and the errors of `download` and `Scorer.load`.
    """
    if not re.fullmatch(r"models:/[^/@]+[/@][^/@]+", source):
        raise ModelError(f"{mask(source)!r}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    uri = tracking_uri or store_uri(Config(), str(storage))
    with tempfile.TemporaryDirectory() as folder:
        return open_model(download(source, uri, folder), device)


def _create(client: MlflowClient, model_name: str) -> None:
    """Create a registered model unless it exists. Checking first would fail if two runs end at the same time."""
    try:
        client.create_registered_model(model_name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def _save(path: Path, directory: Path, requirements: list[str], run_id: str, model_id: str) -> Path:
    package = Path(__file__).parent.parent
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(picture, "PNG")
    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(package / "inference" / "pyfunc_model.py"),
        code_paths=[str(package)],
        artifacts={"model": str(directory.absolute())},
        signature=SIGNATURE,
        input_example=pd.DataFrame({"image": [picture.getvalue()], "caption": ["a red square on the left"]}),
        model_config=MODEL_CONFIG,
        pip_requirements=requirements,
        mlflow_model=Model(run_id=run_id, model_uuid=model_id, model_id=model_id),
    )
    return path
