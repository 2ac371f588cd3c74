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
    """Return the `Scorer` of a model: `encode_image`, `encode_text`, `score`.

    `model` is a run, a checkpoint, an export, a file of weights, `ViT-B-32:openai`, or `models:/NAME@ALIAS`, looked
    up in `tracking_uri`; `sclip.inference.open_model.open_model` says it in full, and what is raised. The import is
    inside, so that the packages that need neither torch nor spaCy stay free of them.
    """
    if str(model).startswith("models:/"):
        from sclip.registry import open_version

        return open_version(str(model), device, tracking_uri, storage)
    from sclip.inference.open_model import open_model

    return open_model(model, device, storage)
