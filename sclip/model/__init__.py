"""Structure-CLIP as torch modules: towers, knowledge-enhanced encoder, losses, tokens and files."""

from sclip.model.architecture import (
    ModelError,
    architecture,
    check_model,
    context_length,
    image_size,
    most_words,
)
from sclip.model.build import build_model, check_trainable
from sclip.model.losses import structure_loss
from sclip.model.structure_clip import StructureCLIP
from sclip.model.tokenizer import Tokenizer

__all__ = [
    "ModelError",
    "StructureCLIP",
    "Tokenizer",
    "architecture",
    "build_model",
    "check_model",
    "check_trainable",
    "context_length",
    "image_size",
    "most_words",
    "structure_loss",
]
