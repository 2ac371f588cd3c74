"""Train the model of `sclip.negatives.naturalness` on captions.

Words with similar neighbors in captions get one class: k-means over singular vectors of positive pointwise mutual
information. Then a logistic regression over n-grams learns to tell captions from some of their negatives. A second one
learns from the negatives that the first would draw. The model is the sum of their weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, zip_longest
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix, hstack, vstack
from scipy.sparse.linalg import svds
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

from sclip.negatives.drawing import TEMPERATURE, candidates
from sclip.negatives.naturalness import (
    BUCKETS,
    CLASS_BUCKETS,
    FITTED_BITS,
    ITSELF,
    START,
    fitted_bits,
    step,
    suffix,
    word_class,
    words,
)
from sclip.scenegraph.lexicon import AUXILIARIES, CONNECTIVES, COPULAS
from sclip.scenegraph.parser import Parser

MOST_CAPTIONS = 12_000
"""Maximum captions per source: a large source must not outweigh the others."""
_MOST_OF_A_KIND = 6  # exchanges, and as many replacements, of one caption
_FIRST = 4  # of these negatives per caption in the first regression; each later one uses one per caption
_ROUNDS = (0.1, 0.05)  # inverse regularization strength of each regression

_CLASSES = 96
_LEAST = 4  # minimum count of a word in the captions; a rarer word is replaced by its `suffix`
_NEIGHBOURS = 1500  # most frequent words; only these count as neighbors
_DIMENSIONS = 40
_OWN_CLASS = frozenset(
    """a an the this that these those his her its their my your our one two three four some any several many few
    each every all both if so because when where which who whose what how than then not no he she it they him them i
    you we us me there here s , ; : - -- ( ) ' ? ! & / </s> <s>""".split()
).union(CONNECTIVES, COPULAS, AUXILIARIES)


def fit(sources: Sequence[Sequence[str]], parser: Parser, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the tables of `naturalness.PATH` by name, trained on the captions of all sources.

    The same captions and seed give the same tables. Needs scikit-learn. Raises ValueError if fewer than two captions
    have negatives.
    """
    random = Random(seed)
    captions = [
        caption
        for source in map(list, sources)
        for caption in (random.sample(source, MOST_CAPTIONS) if len(source) > MOST_CAPTIONS else source)
    ]
    classes = _classes(captions, seed)
    fitted = np.zeros(FITTED_BITS // 8, np.uint8)
    for caption in captions:
        for bit in fitted_bits(caption):
            fitted[bit >> 3] |= 1 << (bit & 7)
    pairs = []
    for graph in parser.stream(captions):
        kinds: tuple[list[str], list[str]] = ([], [])
        for negative in candidates(graph):
            if negative.certain:
                kinds[negative.is_replacement].append(negative.caption)
        chosen = [random.sample(false, min(len(false), _MOST_OF_A_KIND)) for false in kinds]
        if any(chosen):
            in_turns = chain.from_iterable(zip_longest(*chosen))
            pairs.append((graph.caption, [false for false in in_turns if false]))
    if len(pairs) < 2:
        raise ValueError(
            f"{len(captions)} captions are too few to learn from: {len(pairs)} of them have a negative"
        )
    return {"weights": _weights(pairs, classes.tobytes(), seed), "classes": classes, "fitted": fitted}


def save(tables: Mapping[str, NDArray[Any]], path: Path, source: str) -> None:
    """Write the tables to a file; `source` names the captions' files."""
    save_file(dict(tables), path, metadata={"captions": source})


def _weights(pairs: Sequence[tuple[str, Sequence[str]]], classes: bytes, seed: int) -> NDArray[np.float16]:
    own = _features([caption for caption, _ in pairs], classes)
    texts = _features([text for _, false in pairs for text in false], classes)
    caption_rows = np.repeat(np.arange(len(pairs)), [len(false) for _, false in pairs])
    starts = np.r_[0, np.cumsum(np.bincount(caption_rows))[:-1]]
    chosen = np.flatnonzero(np.arange(len(caption_rows)) - starts[caption_rows] < _FIRST)
    weights = np.zeros(BUCKETS)
    rng = np.random.default_rng(seed)
    for strength in _ROUNDS:
        if weights.any():
            strangeness = texts @ weights - (own @ weights)[caption_rows]
            chosen = _drawn(strangeness, caption_rows, rng)
        labels = np.r_[np.zeros(len(pairs)), np.ones(len(chosen))]
        share = 1.0 / np.bincount(caption_rows[chosen])[caption_rows[chosen]]
        model = LogisticRegression(C=strength, solver="liblinear", max_iter=200)
        model.fit(vstack([own, texts[chosen]]), labels, sample_weight=np.r_[np.ones(len(pairs)), share])
        weights += model.coef_[0]
    return weights.astype(np.float16)


def _drawn(strangeness: NDArray[Any], caption_rows: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return the index of one random negative per caption; less strange ones are likelier."""
    keys = -np.maximum(strangeness, 0) / TEMPERATURE + rng.gumbel(size=len(strangeness))  # Gumbel's trick
    order = np.lexsort((-keys, caption_rows))
    _, first = np.unique(caption_rows[order], return_index=True)
    drawn: NDArray[Any] = order[first]
    return drawn


def _features(texts: Sequence[str], classes: bytes) -> Any:
    indices: list[int] = []
    ends = [0]
    class_of = lru_cache(maxsize=None)(lambda word: word_class(word, classes))
    for text in texts:
        state = START
        for word in words(text):
            buckets, state = step(state, word, class_of(word))
            indices += buckets
        ends.append(len(indices))
    return csr_matrix((np.ones(len(indices), np.float32), indices, ends), shape=(len(ends) - 1, BUCKETS))


def _classes(captions: Sequence[str], seed: int) -> NDArray[np.uint8]:
    """Return word classes, uint8 [CLASS_BUCKETS], at the words' hashes; 0 means that no word has this hash."""
    texts = [[b"<s>", *words(caption)] for caption in captions]
    counts = Counter(word for text in texts for word in text)
    texts = [[word if counts[word] >= _LEAST else suffix(word) for word in text] for text in texts]
    vocabulary = [word for word, _ in Counter(word for text in texts for word in text).most_common()]
    number = {word: k for k, word in enumerate(vocabulary)}
    ids = np.array([number[word] for text in texts for word in text])
    text_rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    blocks = []
    for offset in (1, 2):
        same = text_rows[offset:] == text_rows[:-offset]
        left, right = ids[:-offset][same], ids[offset:][same]
        for word, neighbor in ((left, right), (right, left)):
            near = neighbor < _NEIGHBOURS
            blocks.append(_counts(word[near], neighbor[near], len(vocabulary)))
    vectors = _vectors(blocks, seed)
    table = np.zeros(CLASS_BUCKETS, np.uint8)
    size = min(_CLASSES, len(vectors))
    weights = np.sqrt(np.bincount(ids, minlength=len(vocabulary)))
    labels = (
        KMeans(size, n_init=1, max_iter=30, random_state=seed).fit(vectors, sample_weight=weights).labels_
    )
    for word, label in zip(
        reversed(vocabulary), labels[::-1], strict=True
    ):  # the more frequent word keeps a shared bucket
        own = word.decode(errors="replace") in _OWN_CLASS
        table[crc32(word) & CLASS_BUCKETS - 1] = ITSELF if own else label + 1
    return table


def _counts(word: NDArray[Any], neighbor: NDArray[Any], size: int) -> csr_matrix:
    return csr_matrix((np.ones(len(word)), (word, neighbor)), shape=(size, _NEIGHBOURS))


def _vectors(blocks: Sequence[csr_matrix], seed: int) -> NDArray[Any]:
    table = hstack(blocks).tocoo()
    word_sums, neighbor_sums = np.asarray(table.sum(1)).ravel(), np.asarray(table.sum(0)).ravel() ** 0.75
    gain = np.log(table.data * neighbor_sums.sum() / (word_sums[table.row] * neighbor_sums[table.col]))
    kept = gain > 0
    positive = csr_matrix((gain[kept], (table.row[kept], table.col[kept])), shape=table.shape)
    size = min(_DIMENSIONS, min(table.shape) - 1)
    start = np.random.default_rng(seed).normal(size=min(table.shape))
    left, strength, _ = svds(positive, k=size, v0=start)
    vectors = left * np.sqrt(strength)
    unit: NDArray[Any] = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)
    return unit
