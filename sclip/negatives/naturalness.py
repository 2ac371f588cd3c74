"""How much a false caption reads like a real one, as a small linear model over n-grams of words and their classes says.

An exchange often leaves its trace in the text alone ("a beach on a man"), and a model that learns the trace
learns nothing about the image (SugarCrepe, Hsieh et al., NeurIPS 2023, section 3). The model here was trained to
tell captions from their exchanges (`sclip naturalness`); candidates that it tells easily are not drawn.

A caption of other things has few n-grams of words that the model was trained on. Its words fall into classes, learnt
from the words that stand around them; a word that is new has the class of rare words with its last three letters.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from sclip.seeding import digest64

BUCKETS = 1 << 17
"""Weights of the model; an n-gram's is found by its CRC-32, and one never seen weighs (nearly always) nothing."""
CLASS_BUCKETS = 1 << 18
"""Places of the classes of words, likewise; 0: the word is not known."""
ITSELF = 255
"""The class of a word that is a class of its own, as articles and prepositions are."""
FITTED_BITS = 1 << 20
"""Size of the Bloom filter of the captions that the model was trained on."""

PATH = Path(__file__).with_name("naturalness.safetensors")
"""Weights float16 [BUCKETS], classes uint8 [CLASS_BUCKETS], filter uint8 [FITTED_BITS / 8]."""

State = tuple[int, int, int, int, int]
"""CRCs of the last word, of the last two, and of the last one, two and three classes."""
_MASK = BUCKETS - 1


def _start() -> State:
    word, kind = crc32(b"<s>"), crc32(b"<s>", 1)
    return word, crc32(b"<s>", word), kind, crc32(b"<s>", kind), crc32(b"<s>", crc32(b"<s>", kind))


START = _start()


def strangeness(text: str) -> float:
    """Return how strange a text is, in log-odds that it is an exchange; only differences mean something."""
    total, first, second, third = 0.0, b"", b"", b""
    for word in words(text):
        total += _weight(first, second, third, word)
        first, second, third = second, third, word
    return total


def words(text: str) -> list[bytes]:
    """Return the words that n-grams are made of; the end of the text is one too."""
    found = text.lower().replace(".", " ").replace(",", " , ").encode(errors="replace").split()
    found.append(b"</s>")
    return found


def suffix(word: bytes) -> bytes:
    """Return what stands for a word that is rare or new."""
    return b"-#" if any(48 <= sign < 58 for sign in word) else b"-" + word[-3:]


def word_class(word: bytes, classes: bytes) -> bytes:
    """Return the class of a word as one that n-grams can be made of."""
    found = classes[crc32(word) & CLASS_BUCKETS - 1]
    if not found:
        word = suffix(word)
        found = classes[crc32(word) & CLASS_BUCKETS - 1]
    return word if found in (0, ITSELF) else bytes((0, found))


def step(state: State, word: bytes, kind: bytes) -> tuple[tuple[int, ...], State]:
    """Return the buckets of the n-grams that end in a word of a class, and the state behind it."""
    one, two, kind_one, kind_two, kind_three = state
    code, pair = crc32(word), crc32(word, one)
    kind_pair, kind_triple = crc32(kind, kind_one), crc32(kind, kind_two)
    found = (
        code & _MASK, pair & _MASK, crc32(word, two) & _MASK,
        kind_pair & _MASK, kind_triple & _MASK, crc32(kind, kind_three) & _MASK,
        crc32(word, kind_one) & _MASK, crc32(kind, one) & _MASK,
    )  # fmt: skip
    return found, (code, pair, crc32(kind, 1), kind_pair, kind_triple)


def is_fitted(caption: str) -> bool:
    """Return True for every caption that the model was trained on, and for at most 2 % of others (a Bloom filter)."""
    filled = _table()["fitted"]
    return all(filled[bit >> 3] >> (bit & 7) & 1 for bit in fitted_bits(caption))


def fitted_bits(caption: str) -> list[int]:
    """Return the places of a caption in the filter, three of FITTED_BITS."""
    digest = digest64("fitted", caption.casefold())
    return [digest >> shift & FITTED_BITS - 1 for shift in (0, 20, 40)]


def use(path: Path) -> None:
    """Judge by the model in another file from here on; raises OSError, or ValueError where it holds none."""
    global _path
    _path = path
    for cache in (_table, _lists, _word, _pair, _weight):
        cache.cache_clear()
    _table()


_path = PATH


@lru_cache(maxsize=1 << 14)  # the edits of one caption share most of its words
def _weight(first: bytes, second: bytes, third: bytes, word: bytes) -> float:
    """Return the weight of the n-grams that end in a word behind three others (`step`); of none the text's start."""
    weights, _ = _lists()
    weight, kind, _, _ = _pair(third, word)
    _, two, _, kind_two, kind_three = START
    if third:
        _, kind_third, two, kind_two = _pair(second, third)
        kind_three = crc32(kind_third, _pair(first, second)[3] if second else START[3])
    return (
        weight + weights[crc32(word, two) & _MASK]
        + weights[crc32(kind, kind_two) & _MASK] + weights[crc32(kind, kind_three) & _MASK]
    )  # fmt: skip


@lru_cache(maxsize=1 << 17)
def _pair(last: bytes, word: bytes) -> tuple[float, bytes, int, int]:
    """Return the weight of what a word and the one before it are, its class, and the CRCs of words and classes."""
    weights, _ = _lists()
    one, _, kind_one = _word(last)
    code, kind, _ = _word(word)
    pair, kind_pair = crc32(word, one), crc32(kind, kind_one)
    weight = (
        weights[code & _MASK] + weights[pair & _MASK] + weights[kind_pair & _MASK]
        + weights[crc32(word, kind_one) & _MASK] + weights[crc32(kind, one) & _MASK]
    )  # fmt: skip
    return weight, kind, pair, kind_pair


@lru_cache(maxsize=1 << 16)
def _word(word: bytes) -> tuple[int, bytes, int]:
    """Return the CRC of a word, its class and the CRC of that; of none the start of a text."""
    if not word:
        return START[0], b"<s>", START[2]
    kind = word_class(word, _lists()[1])
    return crc32(word), kind, crc32(kind, 1)


@lru_cache(maxsize=1)
def _lists() -> tuple[array[float], bytes]:
    """Return weights and classes as what is fastest to look up one by one, and small enough for a core's cache."""
    table = _table()
    return array("f", table["weights"].astype(np.float32).tobytes()), table["classes"].tobytes()


@lru_cache(maxsize=1)
def _table() -> dict[str, NDArray[np.generic]]:
    table: dict[str, NDArray[np.generic]] = load_file(_path)
    shapes = {"weights": (BUCKETS,), "classes": (CLASS_BUCKETS,), "fitted": (FITTED_BITS // 8,)}
    found = {name: value.shape for name, value in table.items()}
    if found != shapes:
        raise ValueError(f"{_path}: arrays of shapes {found}, not {shapes}; make it anew: sclip naturalness")
    return table
