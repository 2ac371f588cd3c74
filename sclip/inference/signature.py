"""Define the signature of the registered model: its inputs, outputs and parameters.

A client chooses the output by `params`; `OUTPUTS` says which input columns each output needs. The host sets device and
batch size in `model_config`, which a client cannot change.
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
"""Values of the parameter `output`, with the columns that each needs."""

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

MODEL_CONFIG = {"device": "cpu", "batch_size": BATCH_SIZE}
"""Device and rows per forward pass; `load_model(URI, model_config={"device": "cuda"})` overrides them."""
