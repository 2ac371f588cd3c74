"""Batch columns for other wordings of captions. They exist only if `loss.positives` is set.

The graph of a wording is parsed from the wording itself, as in evaluation, unless the data set supplies the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.window import window_of
from sclip.model import Tokenizer
from sclip.scenegraph import SceneGraph

__all__ = ["positive_columns"]


def positive_columns(graphs: Sequence[SceneGraph | None], tokenizer: Tokenizer) -> dict[str, NDArray[Any]]:
    """Return the columns for one wording per row. `graphs` holds each wording's graph; None if a row has no wording."""
    has_positive = np.array([graph is not None for graph in graphs])
    text = tokenizer.text([graph.caption if graph else "" for graph in graphs])
    text[~has_positive] = 0
    triples = tokenizer.triples([window_of(graph, tokenizer).triples if graph else [] for graph in graphs])
    return {
        col.POSITIVE_TEXT: text[:, None], col.POSITIVE_TRIPLES: triples[:, None], col.HAS_POSITIVE: has_positive,
    }  # fmt: skip
