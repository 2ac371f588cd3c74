"""Convert a model, given by any name that `sclip.load` opens, to an export or to the format of another tool.

The formats of transformers and onnxruntime get a model card. The card's training settings and scores come from the
origin of the model: a run's folder, or the registry.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sclip
from sclip.config import Config
from sclip.config.loader import flatten
from sclip.evaluate.result import EVALUATION_FILE, Evaluation, EvaluationError
from sclip.inference import convert as conversion
from sclip.inference.convert import Form
from sclip.inference.open_model import located, open_source
from sclip.model import ModelError, StructureCLIP, context_length, image_size
from sclip.model.architecture import open_clip_config
from sclip.model.hub import hub_name
from sclip.registry import connect, download, evaluation_of, find
from sclip.registry.store import refusals
from sclip.report.model_card import CardModel, model_card
from sclip.storage.masking import mask, mask_tree
from sclip.storage.paths import StoragePath
from sclip.tracking import store_uri

__all__ = ["convert"]


@dataclass(frozen=True)
class _Origin:
    source: str
    settings: dict[str, str] = field(default_factory=dict)
    """Config of the model's run, by dotted key."""
    evaluation: Evaluation | None = None


def convert(
    source: str,
    folder: Path,
    form: Form = "export",
    architecture: str = "",
    quick_gelu: Literal["auto", "on", "off"] = "auto",
    tracking_uri: str = "",
    storage: str = "~/sclip",
) -> str:
    """Write the model that `sclip.load(source)` opens into a new folder; return one line about the result.

    `form` is the output's format (`sclip.inference.convert.convert`). `architecture` and `quick_gelu` describe the
    model if `source` is a file of weights that does not record them. Raises ModelError, CheckpointError, ParserError,
    RegistryError or OSError if the model cannot be read or written; the message is one line for the user.
    """
    conversion.require_new(folder)
    card = ""
    with _opened(source, tracking_uri, storage, has_card=form in ("transformers", "onnx")) as origin:
        model = open_source(origin.source, architecture, quick_gelu, storage)
        if form == "transformers" or form == "onnx":
            card = model_card(
                mask(source), form, _sizes(model.model), origin.settings, origin.evaluation, sclip.__version__
            )
        return conversion.convert(model, folder, form, card)


def _sizes(model: StructureCLIP) -> CardModel:
    architecture = open_clip_config(model.config.name)
    sizes = image_size(model.config.name), context_length(model.config), architecture["embed_dim"]
    return CardModel(model.config, *sizes, has_bpe=not hub_name(architecture["text_cfg"]))


@contextlib.contextmanager
def _opened(source: str, tracking_uri: str, storage: str, has_card: bool) -> Iterator[_Origin]:
    """Yield the model's origin, with settings and scores only if `has_card`."""
    if not source.startswith("models:/"):
        path = located(source, storage)
        yield _path_origin(source, path) if has_card and path is not None else _Origin(source)
        return
    uri = tracking_uri or store_uri(Config(), storage)
    with tempfile.TemporaryDirectory() as folder:
        exported = str(download(source, uri, folder))
        yield _registered(source, exported, uri) if has_card else _Origin(exported)


def _registered(source: str, exported: str, uri: str) -> _Origin:
    client = connect(uri)
    name, _, version = source.removeprefix("models:/").replace("@", "/").partition("/")
    registered = find(client, name, version)
    with refusals(f"the run of {source} cannot be read from {mask(uri)}"):
        settings = dict(client.get_run(registered.run_id).data.params)
    return _Origin(exported, settings, evaluation_of(client, registered))


def _path_origin(source: str, path: StoragePath) -> _Origin:
    """Return the origin of a model at a path. Settings and scores are those of its run; a checkpoint has no scores."""
    is_step = path.name.startswith("step-")
    run = path.parent if is_step or path.name == "model" else path
    settings: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):  # not a run's folder
        tree = json.loads((run / "config.json").read_text())
        settings = flatten(mask_tree(tree)) if "data" in tree else {}
    evaluation = None
    if settings and not is_step and (run / EVALUATION_FILE).is_file():
        try:
            evaluation = Evaluation.read(run / EVALUATION_FILE)
        except EvaluationError as error:
            raise ModelError(str(error)) from error
    return _Origin(source, {key: str(value) for key, value in settings.items()}, evaluation)
