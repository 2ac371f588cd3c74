"""What the registered model takes and gives: the contract between who registers it, who runs it and who asks it.

Both columns of the input are optional, for each output needs only some of them. A client chooses the output by
`params`; what the host decides (device, memory) is `model_config` and out of a client's reach.
"""

from __future__ import annotations

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array

from sclip.inference.scorer import BATCH_SIZE

__all__ = ["CAPTION", "IMAGE", "MODEL_CONFIG", "OUTPUTS", "SIGNATURE"]

IMAGE, CAPTION = "image", "caption"

OUTPUTS = {
    "score": (IMAGE, CAPTION),
    "image_embedding": (IMAGE,),
    "text_embedding": (CAPTION,),
    "scene_graph": (CAPTION,),
}
"""Values of the parameter `output`, and the columns that each needs."""

SIGNATURE = ModelSignature(
    Schema([ColSpec(DataType.binary, IMAGE, False), ColSpec(DataType.string, CAPTION, False)]),
    Schema(
        [
            ColSpec(DataType.double, "score", False),
            ColSpec(Array(DataType.float), "image_embedding", False),
            ColSpec(Array(DataType.float), "text_embedding", False),
            ColSpec(AnyType(), "scene_graph", False),
            ColSpec(Array(Array(DataType.string)), "triples", False),
        ]
    ),
    ParamSchema([ParamSpec("output", DataType.string, "score")]),
)
"""Rows of an image and a caption, to rows of what was asked for: cosine, unit vector, or graph and its triples."""

MODEL_CONFIG = {"device": "cpu", "batch_size": BATCH_SIZE}
"""Device of the model, and rows that pass it at a time; `load_model(URI, model_config={"device": "cuda"})`."""
