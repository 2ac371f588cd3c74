"""How much a false caption reads like a real one, as a small linear model over word n-grams sees it.

An exchange often leaves its trace in the text alone ("a beach on a man"), and a model that learns the trace
learns nothing about the image (SugarCrepe, Hsieh et al., NeurIPS 2023, section 3). The model here was trained to
tell captions from their exchanges (`sclip naturalness`); candidates that it tells easily are not drawn.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

BUCKETS = 1 << 17
"""Weights of the model; an n-gram's is found by its CRC-32, and one never seen weighs (nearly always) nothing."""

PATH = Path(__file__).with_name("naturalness.safetensors")
"""Its weights, float16 [BUCKETS]."""

_MASK = BUCKETS - 1
_START = (crc32(b"<s>"), crc32(b"<s>", crc32(b"<s>")))


def buckets(text: str) -> list[int]:
    """Return the buckets of a text's words, pairs and triples of words; its start and end are words too."""
    found: list[int] = []
    one, two = _START
    for word in _words(text):
        code, pair, triple = crc32(word), crc32(word, one), crc32(word, two)
        found += (code & _MASK, pair & _MASK, triple & _MASK)
        one, two = code, pair
    return found


def strangeness(text: str) -> float:
    """Return how strange a text is, in log-odds that it is an exchange; only differences mean something."""
    one, two = _START
    total = 0.0
    for word in _words(text):
        weight, one, two = _step(one, two, word)
        total += weight
    return total


@lru_cache(maxsize=1 << 18)
def _step(one: int, two: int, word: bytes) -> tuple[float, int, int]:
    """Return the weight of a word behind two others, and what the next word needs (`buckets`)."""
    weights = _weights()
    code, pair = crc32(word), crc32(word, one)
    return weights[code & _MASK] + weights[pair & _MASK] + weights[crc32(word, two) & _MASK], code, pair


def _words(text: str) -> list[bytes]:
    words = text.lower().replace(".", " ").replace(",", " , ").encode(errors="replace").split()
    words.append(b"</s>")
    return words


@lru_cache(maxsize=1)
def _weights() -> list[float]:
    table: NDArray[np.float16] = load_file(PATH)["weights"]
    if table.shape != (BUCKETS,):
        raise ValueError(f"{PATH}: weights of shape {table.shape}, not ({BUCKETS},)")
    values: list[float] = table.astype(np.float64).tolist()
    return values
