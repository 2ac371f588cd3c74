"""Prepare captions for readers: harmless, no longer than a screen, and cut into marked pieces.

Captions come from data that nobody has checked. Each character that is invisible, or that could move a cursor or turn
the writing direction, is replaced by one visible sign.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from sclip.negatives import Negative
from sclip.scenegraph import SceneGraph, Span

MOST_CHARACTERS = 600
"""Maximum number of characters of a caption that are drawn. Few graphs use words that come later."""

_MOST_OCCURRENCES = 8
_HIDDEN = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"))
_JOINERS = "\u200c\u200d"  # needed in emoji families and in Persian


@dataclass(frozen=True, slots=True)
class Piece:
    """Adjacent characters with the same role."""

    text: str
    role: str
    """"object", "attribute", "predicate", "exchanged", or "" for other text."""


def visible(text: str) -> str:
    """Replace each control, direction or hidden character by a visible sign; the length stays the same."""
    return text if text.isascii() and text.isprintable() else "".join(map(_sign, text))


def _sign(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def shortened(text: str, most: int) -> str:
    """Return the `visible` text, cut to `most` characters with an ellipsis if it is longer."""
    text = visible(text)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def described(graph: SceneGraph) -> list[Piece]:
    """Return the caption as pieces, with the roles of its objects, attributes and predicates."""
    roles: list[tuple[Span, str]] = [(relation.span, "predicate") for relation in graph.relations]
    roles += [(obj.span, "object") for obj in graph.objects]
    roles += [(attribute.span, "attribute") for attribute in graph.attributes]
    return _pieces(graph.caption, roles)


def compared(caption: str, negative: Negative) -> tuple[list[Piece], list[Piece]]:
    """Return both captions as pieces. Exchanged phrases or replaced words are marked."""
    if negative.is_replacement or negative.kind == "foreign":
        return differing(caption, negative.caption)
    first, second = negative.swapped
    texts = ((caption, negative.caption, first, second), (negative.caption, caption, second, first))
    before, after = (
        _pieces(text, [(span, "exchanged") for span in _located(text, other, one, two)])
        for text, other, one, two in texts
    )
    return before, after


def differing(caption: str, other: str) -> tuple[list[Piece], list[Piece]]:
    """Return two captions as pieces. Words that differ between the captions are marked in both.

    Captions that share less than half of their words get no marks, because nearly every word would be marked.
    """
    one, two = (
        [m.span() for m in re.finditer(r"\w+|[^\w\s]", text[:MOST_CHARACTERS])] for text in (caption, other)
    )
    words = [[text[slice(*span)].lower() for span in spans] for text, spans in ((caption, one), (other, two))]
    marks: tuple[list[Span], list[Span]] = ([], [])
    if 2 * (Counter(words[0]) & Counter(words[1])).total() >= max(map(len, words)):
        matcher = SequenceMatcher(None, words[0], words[1], autojunk=False)
        for operation, start, end, other_start, other_end in matcher.get_opcodes():
            if operation == "equal":
                continue
            if start < end:
                marks[0].append((one[start][0], one[end - 1][1]))
            if other_start < other_end:
                marks[1].append((two[other_start][0], two[other_end - 1][1]))
    before, after = (
        _pieces(text, [(span, "exchanged") for span in spans])
        for text, spans in zip((caption, other), marks, strict=True)
    )
    return before, after


def _located(text: str, other: str, first: str, second: str) -> list[Span]:
    """Return the spans in `text` of two phrases that `other` has exchanged; `first` comes before `second`."""
    # The texts differ from near the start of `first` to near the end of `second`: not exactly, because an exchange also
    # corrects articles and capitals, and because the phrases can share words.
    begin, end = _difference(text, other)
    starts = sorted(_occurrences(first, text), key=lambda span: abs(span[0] - begin))[:_MOST_OCCURRENCES]
    ends = sorted(_occurrences(second, text), key=lambda span: abs(span[1] - end))[:_MOST_OCCURRENCES]
    if not first or not second:  # one phrase moved, and none took its place
        return (starts or ends)[:1]
    pairs = [(one, two) for one in starts for two in ends if one[1] <= two[0]]
    nearest = min(pairs, key=lambda pair: abs(pair[0][0] - begin) + abs(pair[1][1] - end), default=())
    return list(nearest)


def _occurrences(phrase: str, text: str) -> list[Span]:
    words = "an?" if phrase.lower() in ("a", "an") else re.escape(phrase)
    for pattern in (rf"(?<!\w){words}(?!\w)", words):
        spans = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE) if match.group()]
        if spans:
            return spans
    return []


def _difference(text: str, other: str) -> Span:
    begin = 0
    for one, two in zip(text, other, strict=False):
        if one.lower() != two.lower():
            break
        begin += 1
    same = 0
    for one, two in zip(reversed(text[begin:]), reversed(other[begin:]), strict=False):
        if one.lower() != two.lower():
            break
        same += 1
    return begin, len(text) - same


def _pieces(text: str, marks: Sequence[tuple[Span, str]]) -> list[Piece]:
    """Cut the text at the marks (span, role). Later marks overwrite earlier ones."""
    shown = text[:MOST_CHARACTERS]
    roles = [""] * len(shown)
    for (start, end), role in marks:
        for i in range(max(0, start), min(end, len(shown))):
            roles[i] = role
    pieces: list[Piece] = []
    start = 0
    for i in range(1, len(shown) + 1):
        if i == len(shown) or roles[i] != roles[start]:
            pieces.append(Piece(visible(shown[start:i]), roles[start]))
            start = i
    if len(text) > len(shown):
        pieces.append(Piece("…", ""))
    return pieces
