"""Parts of captions and their foils as columns of a batch (`loss.units`); without the key there are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.window import window_of
from sclip.model import Tokenizer
from sclip.negatives import UnitPair

__all__ = ["unit_columns"]


def unit_columns(pairs: Sequence[UnitPair | None], tokenizer: Tokenizer) -> dict[str, NDArray[Any]]:
    """Return the columns of one pair or none for each row, the unit before its foil.

    Each has the triples of its own graph, those of a foil at the places of its unit's.
    """
    has_unit = np.array([pair is not None for pair in pairs])
    texts, triples = [], []
    for pair in pairs:
        if pair is None:
            texts += ["", ""]
            triples += [[], []]
            continue
        window = window_of(pair.unit, tokenizer)
        texts += [pair.unit.caption, pair.foil.caption]
        triples += [window.triples, window.triples_of(pair.foil)]
    text = tokenizer.text(texts).reshape(len(pairs), 2, -1)
    text[~has_unit] = 0
    ids = tokenizer.triples(triples)
    return {
        col.UNIT_TEXT: text,
        col.UNIT_TRIPLES: ids.reshape(len(pairs), 2, *ids.shape[1:]),
        col.HAS_UNIT: has_unit,
    }
