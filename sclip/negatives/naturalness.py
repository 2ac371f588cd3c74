"""Score how strange a false caption reads, with a small linear model over n-grams of words and word classes.

Often the text alone shows that a caption is false ("a beach on a man"), and CLIP could learn to ignore the image
(SugarCrepe, Hsieh et al., NeurIPS 2023, section 3). The linear model was trained to tell captions from their negatives
(`sclip naturalness`). Negatives that it easily recognizes are not drawn.

Captions about new subjects share few n-grams of words with the training captions. So words also have classes, learned
from their neighbors. A new word has the class of the rare words that end in the same three letters.
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
"""Number of model weights. The CRC-32 of an n-gram selects its weight."""
CLASS_BUCKETS = 1 << 18
"""Size of the table of word classes, indexed by the CRC-32 of a word. Class 0 means that the word is unknown."""
ITSELF = 255
"""Class of the words that are not grouped, such as articles: n-grams of classes hold the word itself."""
FITTED_BITS = 1 << 20  # of the Bloom filter that holds the training captions

PATH = Path(__file__).with_name("naturalness.safetensors")
"""Weights float16 [BUCKETS], classes uint8 [CLASS_BUCKETS], filter uint8 [FITTED_BITS / 8]."""

State = tuple[int, int, int, int, int]
"""CRCs of the last word, the last two words, the last class, the last two classes and the last three classes."""
_MASK = BUCKETS - 1


def _start() -> State:
    word, kind = crc32(b"<s>"), crc32(b"<s>", 1)
    return word, crc32(b"<s>", word), kind, crc32(b"<s>", kind), crc32(b"<s>", crc32(b"<s>", kind))


START = _start()


def strangeness(text: str) -> float:
    """Return how strange a text reads, as log-odds of being a negative; only differences are meaningful."""
    total, first, second, third = 0.0, b"", b"", b""
    for word in words(text):
        total += _weight(first, second, third, word)
        first, second, third = second, third, word
    return total


def words(text: str) -> list[bytes]:
    """Return the words from which n-grams are made, then a mark for the end of the text."""
    tokens = text.lower().replace(".", " ").replace(",", " , ").encode(errors="replace").split()
    tokens.append(b"</s>")
    return tokens


def suffix(word: bytes) -> bytes:
    """Return the token for a rare or new word: its last three letters, or "-#" if it has a digit."""
    return b"-#" if any(48 <= sign < 58 for sign in word) else b"-" + word[-3:]


def word_class(word: bytes, classes: bytes) -> bytes:
    """Return the token that stands for a word in n-grams of classes: its class, or the word if the class is ITSELF."""
    number = classes[crc32(word) & CLASS_BUCKETS - 1]
    if not number:  # a new word has the class of its ending
        word = suffix(word)
        number = classes[crc32(word) & CLASS_BUCKETS - 1]
    return word if number in (0, ITSELF) else bytes((0, number))


def step(state: State, word: bytes, kind: bytes) -> tuple[tuple[int, ...], State]:
    """Return the weight indices of the n-grams that end in `word` (class token `kind`), and the state after it."""
    one, two, kind_one, kind_two, kind_three = state
    code, pair = crc32(word), crc32(word, one)
    kind_pair, kind_triple = crc32(kind, kind_one), crc32(kind, kind_two)
    buckets = (
        code & _MASK, pair & _MASK, crc32(word, two) & _MASK,
        kind_pair & _MASK, kind_triple & _MASK, crc32(kind, kind_three) & _MASK,
        crc32(word, kind_one) & _MASK, crc32(kind, one) & _MASK,
    )  # fmt: skip
    return buckets, (code, pair, crc32(kind, 1), kind_pair, kind_triple)


def is_fitted(caption: str) -> bool:
    """Return True for every training caption, and for at most 2 % of other captions (a Bloom filter)."""
    filled = _table()["fitted"]
    return all(filled[bit >> 3] >> (bit & 7) & 1 for bit in fitted_bits(caption))


def fitted_bits(caption: str) -> list[int]:
    """Return the three positions of a caption in the Bloom filter, each below FITTED_BITS."""
    digest = digest64("fitted", caption.casefold())
    return [digest >> shift & FITTED_BITS - 1 for shift in (0, 20, 40)]


def use(path: Path) -> None:
    """Use the model in another file from now on. Raises OSError, or ValueError if the file holds no such model."""
    global _path
    _path = path
    for cache in (_table, _lists, _word, _pair, _weight):
        cache.cache_clear()
    _table()


_path = PATH


@lru_cache(maxsize=1 << 14)  # the edits of one caption share most of its words
def _weight(first: bytes, second: bytes, third: bytes, word: bytes) -> float:
    """Return the weight of the n-grams that end in `word` after these three words; b"" means the start of the text."""
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
    if not word:  # the start of a text
        return START[0], b"<s>", START[2]
    kind = word_class(word, _lists()[1])
    return crc32(word), kind, crc32(kind, 1)


@lru_cache(maxsize=1)
def _lists() -> tuple[array[float], bytes]:
    table = _table()  # array and bytes look single values up fastest
    return array("f", table["weights"].astype(np.float32).tobytes()), table["classes"].tobytes()


@lru_cache(maxsize=1)
def _table() -> dict[str, NDArray[np.generic]]:
    table: dict[str, NDArray[np.generic]] = load_file(_path)
    shapes = {"weights": (BUCKETS,), "classes": (CLASS_BUCKETS,), "fitted": (FITTED_BITS // 8,)}
    actual = {name: value.shape for name, value in table.items()}
    if actual != shapes:
        raise ValueError(
            f"{_path}: has arrays of shapes {actual}, not {shapes}; write it again: sclip naturalness"
        )
    return table
