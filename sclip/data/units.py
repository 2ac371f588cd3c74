"""Batch columns for parts of captions and their foils. They exist only if `loss.units` is set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclip.data import columns as col
from sclip.data.window import window_of
from sclip.model import Tokenizer
from sclip.negatives import UnitPair
from sclip.scenegraph.graph import Triple

__all__ = ["unit_columns"]


def unit_columns(pairs: Sequence[UnitPair | None], tokenizer: Tokenizer) -> dict[str, NDArray[Any]]:
    """Return the columns. `pairs` has for each row its unit (a true part of the caption) and the unit's foil, or None.

    Triple k of the foil corresponds to triple k of the unit.
    """
    has_unit = np.array([pair is not None for pair in pairs])
    texts: list[str] = []
    triples: list[list[Triple]] = []
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
