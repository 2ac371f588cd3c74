"""Make the columns of a typical batch for a config, to count operations and memory of a step before any run.

A caption has `caption_tokens` tokens, two triples, and as many negatives as the loss asks for. A unit (caption part) is
half as long and has one triple. One caption in three has a positive (another wording).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.config import Config, ModelConfig
from sclip.model.architecture import context_length

__all__ = ["TOKENS", "caption_tokens", "typical_columns"]

TOKENS = 13
"""Average number of tokens of a COCO caption, start and end included."""
_TRIPLES = 2


def caption_tokens(config: Config) -> int:
    """Return the tokens in a caption: COCO's average, or `model.context_length` if above the architecture's own."""
    length, own = context_length(config.model), context_length(ModelConfig(name=config.model.name))
    return length if length > own else min(TOKENS, length)


def typical_columns(config: Config, rows: int) -> dict[str, NDArray[Any]]:
    """Return the columns of a batch of `rows` samples, before packing and without images (`sclip.data.columns`)."""
    loss, kee = config.loss, config.model.kee
    length, tokens = context_length(config.model), caption_tokens(config)
    text = np.zeros((rows, length), np.int32)
    text[:, tokens - 1] = 1
    triples = np.full((rows, max(_TRIPLES, kee.triples), 3, kee.phrase_tokens), -1, np.int32)
    triples[:, :_TRIPLES] = 0
    columns: dict[str, NDArray[Any]] = {
        "image_digest": np.arange(rows), "valid": np.ones(rows, bool), "text": text, "triples": triples
    }  # fmt: skip
    if loss.negatives != "none":
        several = loss.negatives_per_caption
        columns |= {
            "negative_text": np.repeat(text[:, None], several, 1),
            "has_negative": np.ones((rows, several), bool),
            "negative_triples": np.repeat(triples[:, None], several, 1),
        }
    if loss.units:
        units = np.zeros((rows, 2, length), np.int32)
        units[:, :, (tokens - 1) // 2] = 1
        unit_triples = np.repeat(triples[:, None], 2, 1)
        unit_triples[:, :, 1:] = -1
        columns |= {"unit_text": units, "has_unit": np.ones(rows, bool), "unit_triples": unit_triples}
    if loss.positives:
        columns |= {
            "positive_text": text[:, None],
            "has_positive": np.arange(rows) % 3 == 0,
            "positive_triples": triples[:, None],
        }
    if not kee.enabled:
        columns = {name: values for name, values in columns.items() if not name.endswith("triples")}
    return columns
