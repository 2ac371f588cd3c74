"""Train the weights of `sclip.negatives.naturalness`: captions in, a table of n-gram weights out.

Two logistic regressions over hashed n-grams are added: one that tells captions from all of their exchanges, then
one that tells them from those that are drawn with the first, so that what the first draws gladly is weighed too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix, vstack
from sklearn.linear_model import LogisticRegression

from sclip.negatives.drawing import TEMPERATURE, candidates
from sclip.negatives.naturalness import BUCKETS, buckets
from sclip.scenegraph.parser import Parser

_ROUNDS = (1.0, 0.1)
"""Inverse regularisation of each round."""


def fit(captions: Sequence[str], parser: Parser, seed: int = 0) -> NDArray[np.float16]:
    """Return the weights [BUCKETS]; the same captions and seed give the same ones."""
    pairs = []
    for graph in parser.stream(captions):
        false = [negative.caption for negative in candidates(graph) if negative.certain]
        if false:
            pairs.append((graph.caption, false))
    own = _features([caption for caption, _ in pairs])
    texts = _features([text for _, false in pairs for text in false])
    caption_of = np.repeat(np.arange(len(pairs)), [len(false) for _, false in pairs])
    share = 1.0 / np.bincount(caption_of)[caption_of]
    weights = np.zeros(BUCKETS)
    rng = np.random.default_rng(seed)
    for strength in _ROUNDS:
        chosen = np.arange(len(caption_of))
        if weights.any():
            strangeness = texts @ weights - (own @ weights)[caption_of]
            chosen = _drawn(strangeness, caption_of, rng)
        data = vstack([own, texts[chosen]])
        labels = np.r_[np.zeros(len(pairs)), np.ones(len(chosen))]
        importance = np.r_[
            np.ones(len(pairs)), share[chosen] if len(chosen) == len(caption_of) else np.ones(len(chosen))
        ]
        model = LogisticRegression(C=strength, solver="liblinear", max_iter=200)
        model.fit(data, labels, sample_weight=importance)
        weights += model.coef_[0]
    return weights.astype(np.float16)


def save(weights: NDArray[np.float16], path: Path, source: str) -> None:
    """Write the weights with the name of the captions that they come from."""
    save_file({"weights": weights}, path, metadata={"captions": source})


def _drawn(strangeness: NDArray[Any], caption_of: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return one exchange of each caption, drawn by its strangeness (Gumbel's trick)."""
    keys = -strangeness / TEMPERATURE + rng.gumbel(size=len(strangeness))
    order = np.lexsort((-keys, caption_of))
    _, first = np.unique(caption_of[order], return_index=True)
    found: NDArray[Any] = order[first]
    return found


def _features(texts: Iterable[str]) -> Any:
    indices: list[int] = []
    ends = [0]
    for text in texts:
        indices.extend(buckets(text))
        ends.append(len(indices))
    return csr_matrix((np.ones(len(indices), np.float32), indices, ends), shape=(len(ends) - 1, BUCKETS))
