"""The registered model as code: what MLflow runs to make a pyfunc of an exported directory.

MLflow executes this file when a version is loaded (models-from-code) and calls `set_model`'s object; nothing
is pickled. The sclip that it imports is the copy stored with the version, not the one that is installed.
"""

from __future__ import annotations

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from sclip.scorer import Scorer


class StructureCLIPModel(PythonModel):  # type: ignore[misc]  # mlflow is untyped
    """Rows of (image bytes, caption) to rows of score, the cosine of the two."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights, parser and tokenizer from the artifact `model`, once."""
        self._scorer = Scorer.load(context.artifacts["model"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Return a frame with the column `score`; raises ValueError naming the row of a broken image.

        Unannotated: MLflow would take annotations for the signature, which is declared in `sclip.registry`.
        """
        scores = self._scorer.score(list(model_input["image"]), list(model_input["caption"]))
        return pd.DataFrame({"score": scores.double().numpy()})


set_model(StructureCLIPModel())
