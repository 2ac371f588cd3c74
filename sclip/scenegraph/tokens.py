"""Copy spaCy's tokens to plain tuples: a `spacy.tokens.Token` looks up its attributes at every access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from spacy.tokens import Doc

_MOST_WORDS = 1 << 16
_COLUMNS = ["ORTH", "TAG", "DEP", "HEAD", "SPACY"]


class Token(NamedTuple):
    """A token that is not white space, with spaCy's field names."""

    i: int
    """Index among all tokens of the text, including white-space tokens; `head` is such an index too."""
    idx: int
    end: int  # index after the last character
    text: str
    lower: str
    tag_: str
    dep_: str
    head: int
    whitespace_: bool


_names: dict[int, str] = {}
_words: dict[int, tuple[str, str, int, bool]] = {}


def shape_of(labels: Sequence[int]) -> int:
    """Return a hash of dependency labels that does not depend on their order."""
    return hash(tuple(sorted(labels)))  # hashes of integers are the same in every process


def read_tokens(doc: Doc) -> tuple[list[Token], int]:
    """Return the tokens of a parsed text, and its shape (`shape_of`)."""
    tokens: list[Token] = []
    start = 0
    strings = doc.vocab.strings
    columns = doc.to_array(_COLUMNS).T
    labels = columns[2].tolist()
    orths, tags, heads, spaces = columns[[0, 1, 3, 4]].view("int64").tolist()
    for i, (orth, tag, dep, head, space) in enumerate(zip(orths, tags, labels, heads, spaces, strict=True)):
        word = _words.get(orth)
        if word is None:
            if len(_words) >= _MOST_WORDS:
                _words.clear()
            text = strings[orth % (1 << 64)]
            word = _words[orth] = (text, text.lower(), len(text), text.isspace())
        for name in (tag, dep):
            if name not in _names:
                _names[name] = strings[name % (1 << 64)]
        text, lower, length, is_space = word
        end = start + length
        if not is_space:
            tokens.append(Token(i, start, end, text, lower, _names[tag], _names[dep], i + head, space == 1))
        start = end + space
    return tokens, shape_of(labels)
