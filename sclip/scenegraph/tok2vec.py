"""Compute the vectors of spaCy's tok2vec, equal up to rounding, in less than half of its time.

The network of the small English pipelines looks up six features of a word, mixes them, and passes the result
through four convolutions over a word and its two neighbors. The first convolution adds three products, one for each
of the three words. Everything before this sum depends on one word alone, so it is computed once for each distinct
word of a batch. Distinct words are a quarter of all words of captions. The later convolutions skip rows of padding
that no word's vector needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_BLOCK = 256  # rows that pass through a layer at once, so that they stay in the core's cache
_LAYERS = frozenset(
    """extract_features list2ragged ragged2list ints-getitem hashembed maxout layernorm dropout expand_window
    with_array concatenate residual""".split()
)
"""Layers that this module can compute; spaCy computes networks with any other layer."""


def speed_up(nlp: Language) -> None:
    """Replace `predict` of a pipeline's tok2vec by a faster one, if its layers are known and run on the CPU."""
    pipe: Any = nlp.get_pipe("tok2vec") if "tok2vec" in nlp.pipe_names else None
    if pipe is not None and pipe.model.ops.name == "numpy" and _is_known(pipe.model):
        pipe.predict = Tok2Vec(pipe.model).predict


def _nodes(model: Any, name: str) -> list[Any]:
    return [node for node in model.walk() if node.name == name]


def _is_known(model: Any) -> bool:
    names = {
        part for node in model.walk() for part in node.name.replace("(", ">>").replace(")", "").split(">>")
    }
    names = {name for part in names for name in part.split("|")}
    windows = _nodes(model, "expand_window")
    return (
        names <= _LAYERS
        and len(_nodes(model, "maxout")) == len(_nodes(model, "layernorm")) == len(windows) + 1 > 1
        and all(node.attrs["window_size"] == 1 for node in windows)
    )


class _Layer:
    """A maxout layer with layer normalization. Each output is the largest of `pieces` weighted sums."""

    def __init__(self, maxout: Any, norm: Any) -> None:
        weights, bias = maxout.get_param("W"), maxout.get_param("b")
        self.width, self.pieces = bias.shape
        # [inputs, pieces * outputs]: the first piece of all outputs, then the second piece, ..
        self.weights = np.ascontiguousarray(weights.transpose(2, 1, 0).reshape(weights.shape[2], -1))
        self.bias = bias.T.reshape(-1).copy()
        self.gain, self.shift = norm.get_param("G"), norm.get_param("b")
        self.mean = np.full(self.width, 1 / self.width, np.float32)

    def finish(self, summed: np.ndarray) -> np.ndarray:
        """Return the outputs [words, outputs] for weighted sums [words, pieces * outputs], which are overwritten."""
        summed += self.bias
        best = summed[:, : self.width]
        for piece in range(1, self.pieces):
            np.maximum(best, summed[:, piece * self.width : (piece + 1) * self.width], out=best)
        best -= (best @ self.mean)[:, None]
        best *= ((best * best) @ self.mean + np.float32(1e-8))[:, None] ** np.float32(-0.5)
        best *= self.gain
        best += self.shift
        return best


class Tok2Vec:
    """The weights of spaCy's tok2vec, laid out for `predict`."""

    def __init__(self, model: Any) -> None:
        self._ops = model.ops
        self._columns = _nodes(model, "extract_features")[0].attrs["columns"]
        self._tables = [
            (node.get_param("E"), node.attrs["seed"], node.attrs["column"])
            for node in _nodes(model, "hashembed")
        ]
        layers = [
            _Layer(*pair) for pair in zip(_nodes(model, "maxout"), _nodes(model, "layernorm"), strict=True)
        ]
        self._mix, self._first, *self._later = layers
        width = self._mix.width
        # Weights of the previous word, the word, and the next word.
        self._sides = np.hstack(np.split(self._first.weights, 3))
        self._width = width
        self._key = np.random.default_rng(0).integers(
            1 << 62, size=len(self._columns), dtype=np.uint64
        ) | np.uint64(1)

    def predict(self, docs: Sequence[Doc]) -> list[np.ndarray]:
        """Return the word vectors [words, width] of each text, in context."""
        features = np.concatenate([doc.to_array(self._columns) for doc in docs])
        lengths = np.array([len(doc) for doc in docs])
        if not len(features):
            return [np.zeros((0, self._width), np.float32) for _ in docs]
        _, first, word = np.unique((features * self._key).sum(axis=1), return_index=True, return_inverse=True)
        depth = len(self._later) + 1
        text = np.repeat(np.arange(len(docs)), lengths)
        rows = np.arange(len(features)) + depth * (text + 1)
        count = len(features) + depth * (len(docs) + 1)
        vectors = self._convolve(self._words(features[first]), word, rows, count)
        return np.split(vectors, np.cumsum(lengths)[:-1])

    def _words(self, features: np.ndarray) -> np.ndarray:
        """Return the vectors that words have before the convolutions, without context."""
        embeddings = []
        for table, seed, column in self._tables:
            ids = np.ascontiguousarray(features[:, column])
            embeddings.append(self._ops.gather_add(table, self._ops.hash(ids, seed) % table.shape[0]))
        return self._mix.finish(np.hstack(embeddings) @ self._mix.weights)

    def _convolve(self, words: np.ndarray, word: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
        """Return the vectors in context of all words of the batch.

        Word i has the vector `words[word[i]]` without context, and the row `rows[i]` of the `count` rows with padding.
        """
        index = np.full(count, len(words))
        index[rows] = word
        words = np.vstack((words, np.zeros((1, self._width), np.float32)))
        previous, current, following = np.split(words @ self._sides, 3, axis=1)
        read = np.arange(1, count - 1)
        x = np.zeros((count, self._width), np.float32)
        for block in _blocks(read):
            summed = previous[index[block - 1]]
            summed += current[index[block]]
            summed += following[index[block + 1]]
            x[block] = words[index[block]] + self._first.finish(summed)
        for reach, layer in zip(range(len(self._later) - 1, -1, -1), self._later, strict=True):
            near = np.zeros(count, bool)  # rows that the later layers read
            for offset in range(-reach, reach + 1):
                near[rows + offset] = True
            y = x.copy()
            for block in _blocks(np.flatnonzero(near)):
                window = x[block[:, None] + _WINDOW].reshape(len(block), -1)
                y[block] += layer.finish(window @ layer.weights)
            x = y
        vectors: np.ndarray = x[rows]
        return vectors


_WINDOW = np.array([-1, 0, 1])


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
