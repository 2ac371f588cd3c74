"""Structure-CLIP pretraining on Ray: shards in, a registered model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sclip.inference.scorer import Scorer

__version__ = "0.1.0"


def load(
    model: str | Path, device: str = "cpu", tracking_uri: str = "", storage: str | Path = "~/sclip"
) -> Scorer:
    """Load a model and return its `Scorer`, which has `encode_image`, `encode_text` and `score`.

    `model` is a run, a checkpoint, an export, a weights file, `ViT-B-32:openai`, or a registered `models:/NAME@ALIAS`.
    The module `sclip.inference.open_model` lists all forms and errors. Runs are looked up in `storage`, registered
    models in the MLflow store `tracking_uri`; "" means the SQLite store in `storage`.
    """
    # Both modules are imported here, because `import sclip` must be fast and need neither torch nor spaCy.
    if str(model).startswith("models:/"):
        from sclip.registry import open_version

        return open_version(str(model), device, tracking_uri, storage)
    from sclip.inference.open_model import open_model

    return open_model(model, device, storage)
