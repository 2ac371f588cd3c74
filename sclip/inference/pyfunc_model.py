"""Define the registered model: an MLflow pyfunc over an exported directory.

MLflow runs this file when it loads a version (models-from-code), and uses the object given to `set_model`. The file
imports the copy of sclip that is stored with the version, not the installed one.

Text in the image column is the path of a file, with or without `file:` before it. In a scoring server (`mlflow models
serve`) it must be base64: with paths, every client could probe the server's disk.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from sclip.data.images import ImageError
from sclip.inference.scorer import Scorer
from sclip.inference.signature import CAPTION, IMAGE, MODEL_CONFIG, OUTPUTS


class StructureCLIPModel(PythonModel):  # type: ignore[misc]  # mlflow is untyped
    """Map rows of images and captions to scores, embeddings or scene graphs; safe to call from several threads."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights, parser and tokenizer from the artifact `model`, once."""
        config = MODEL_CONFIG | (context.model_config or {})
        self._batch_size = int(config["batch_size"])
        self._scorer = Scorer.load(context.artifacts["model"], config["device"])

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return the output that `params["output"]` names, one row for each input row, in the same order.

        Raises MlflowException (a server answers with HTTP status 400) for an unknown output, a missing column, an
        unreadable image, or a caption that is not text. For the last two, the message names the row, from 0.
        """
        output = (params or {}).get("output", "score")
        if output not in OUTPUTS:
            raise _invalid(f"output={output!r}: must be one of {', '.join(OUTPUTS)}")
        if missing := [name for name in OUTPUTS[output] if name not in model_input]:
            raise _invalid(f"output={output!r} needs the column {missing[0]!r}, which is missing")
        captions = _captions(model_input[CAPTION]) if CAPTION in OUTPUTS[output] else []
        images: list[Any] = list(model_input[IMAGE]) if IMAGE in OUTPUTS[output] else []
        if output == "scene_graph":
            return self._graphs(captions, model_input.index)
        try:
            if output == "text_embedding":
                values: Any = self._scorer.encode_text(captions, self._batch_size).tolist()
            else:
                features = self._scorer.encode_image(_encoded(images), self._batch_size)
                values = features.tolist()
                if output == "score":
                    texts = self._scorer.encode_text(captions, self._batch_size)
                    values = (features * texts).sum(dim=1).double().numpy()
        except ImageError as error:
            raise _invalid(str(error)) from error
        return pd.DataFrame({output: values}, index=model_input.index)

    def _graphs(self, captions: Sequence[str], index: pd.Index) -> pd.DataFrame:
        graphs = self._scorer.scene_graph(captions)
        return pd.DataFrame(
            {
                "scene_graph": [graph.to_json() for graph in graphs],
                "triples": [[list(triple) for triple in graph.triples()] for graph in graphs],
            },
            index=index,
        )


def _captions(values: pd.Series) -> list[str]:
    for row, caption in enumerate(values):
        if not isinstance(caption, str):
            raise _invalid(f"caption in row {row}: must be text, not {type(caption).__name__}")
    return list(values)


def _encoded(values: Sequence[Any]) -> Iterator[Any]:
    """Read or decode one image at a time, so that memory holds the files of one batch only."""
    served = _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get()
    for row, value in enumerate(values):
        try:
            value = bytes(value) if isinstance(value, bytearray) else value  # from Spark
            yield _from_base64(value) if served else _from_path(value)
        except (OSError, ValueError) as error:
            raise ImageError(f"image in row {row}: {error}") from error


def _from_path(value: Any) -> Any:
    if not isinstance(value, str | Path):
        return value
    path = str(value)
    if path.startswith("file:"):
        path = unquote(path.removeprefix("file:").removeprefix("//"))
    return Path(path).read_bytes()


def _from_base64(value: Any) -> Any:
    """Decode an image in base64; return bytes that are not base64 unchanged."""
    # MLflow leaves images in base64 if a request holds `inputs`, `instances` or CSV.
    if isinstance(value, str):
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("the text must be base64; a scoring server reads no files by path") from error
    if isinstance(value, bytes):
        with contextlib.suppress(binascii.Error):
            return base64.b64decode(b"".join(value.split()), validate=True)
    return value


def _invalid(message: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(message)


set_model(StructureCLIPModel())
