"""Exchange two pieces of a caption and keep it English: articles, capitals, number; and say where all went.

An edited text is a list of parts. Each part remembers which characters of the caption it holds (content) and
which it stands in for (place), so that every span of the caption can be found again after the exchange.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from lemminflect import getInflection

from sclip.scenegraph.graph import Span
from sclip.scenegraph.lexicon import noun_lemma, verb_lemma

_ARTICLE = re.compile(r"\b(an?)(\s+)([^\W_][\w'-]*)", re.IGNORECASE)
_AN_BY_SOUND = re.compile(
    r"hour|honest|honou?r|heir|herb\b|[fhlmnrsx](?:[^a-z]|$)|x-|suv\b|mp3|nfl|mri|lcd|led\b"
)
_A_BY_SOUND = re.compile(r"uni(?!n|m)|use|usual|utensil|ute|euro|eu|one\b|once|ukul|u\b|u-|urin")
_SENTENCE_END = re.compile(r"[.!?]\s+$|^\s*$")
_BE = {"is": "are", "was": "were", "has": "have", "does": "do", "isn't": "aren't"}
_PLURAL_BE = {plural: singular for singular, plural in _BE.items()}


@dataclass(slots=True)
class _Part:
    text: str
    content: Span
    place: Span


class Exchange:
    """A caption in which two disjoint pieces have changed places."""

    def __init__(self, caption: str, first: Span, second: Span) -> None:
        """Exchange the characters of `first` and `second`; neither may be empty, and they must not overlap."""
        if first > second:
            first, second = second, first
        if not (0 <= first[0] < first[1] <= second[0] < second[1] <= len(caption)):
            raise ValueError(f"spans {first} and {second} cannot be exchanged in {len(caption)} characters")
        self._caption = caption
        self._pieces = (first, second)
        spans = [(0, first[0]), first, (first[1], second[0]), second, (second[1], len(caption))]
        contents = [spans[0], second, spans[2], first, spans[4]]
        self._parts = [
            _Part(caption[slice(*content)], content, place)
            for content, place in zip(contents, spans, strict=True)
        ]

    @property
    def text(self) -> str:
        """The caption after the exchange."""
        return "".join(part.text for part in self._parts)

    def moved(self, span: Span) -> bool:
        """Whether the span lies within one of the two pieces."""
        return any(start <= span[0] and span[1] <= end for start, end in self._pieces)

    def content(self, span: Span) -> Span:
        """Return where the characters of the span are now; the span lies in one piece or outside of both."""
        return self._locate(span, content=True)

    def place(self, span: Span) -> Span:
        """Return where the span is now whose content may have been exchanged: a phrase with a new adjective."""
        return self._locate(span, content=False)

    def _locate(self, span: Span, content: bool) -> Span:
        start = end = -1
        position = 0
        continued = False
        for part in self._parts:
            low, high = part.content if content else part.place
            if low <= span[0] < high and start < 0:
                start = position + min(span[0] - low, len(part.text))
            if low < span[1] < high:
                end = position + min(span[1] - low, len(part.text))
            continued = high == span[1] and (low < high or continued)
            if (
                continued
            ):  # also by parts of a text that is longer than its place, which is used up before them
                end = position + len(part.text)
            position += len(part.text)
        if start < 0 or end < 0:  # an empty span: it has a place and no content
            start = end = min(max(start, end, 0), position)
        return (start, max(start, end))

    def replace(self, start: int, end: int, text: str) -> None:
        """Replace new-text characters start..end, which lie in one part, by another form of the same word."""
        position = 0
        for index, part in enumerate(self._parts):
            low, high = position, position + len(part.text)
            if low <= start and end <= high:
                self._parts[index : index + 1] = [
                    piece
                    for piece in (
                        _cut(part, 0, start - low),
                        _Part(
                            text,
                            *(
                                _sub(span, part, start - low, end - low)
                                for span in (part.content, part.place)
                            ),
                        ),
                        _cut(part, end - low, high - low),
                    )
                    if piece.text or piece.content[0] < piece.content[1]
                ]
                return
            position = high

    # -- what keeps it English

    def repair(self) -> None:
        """Put capitals and a / an right where the exchange has disturbed them."""
        self._capitals()
        known = {(m.group(1).lower(), m.group(3).lower()) for m in _ARTICLE.finditer(self._caption)}
        while True:
            for match in _ARTICLE.finditer(self.text):
                article, word = match.group(1), match.group(3)
                right = _article(word)
                if (article.lower(), word.lower()) not in known and article.lower() != right:
                    cased = (
                        right.upper() if article.isupper() and len(article) > 1 else article[0] + right[1:]
                    )
                    self.replace(*match.span(1), cased)
                    break
            else:
                return

    def _capitals(self) -> None:
        caption = self._caption
        words = re.findall(r"[^\W\d_]+", caption)
        if sum(word[0].isupper() for word in words) > 0.5 * len(words) and len(words) > 2:
            return  # A Title, or ALL CAPITALS: case says nothing about the sentence
        for piece in self._pieces:
            old_start = bool(_SENTENCE_END.search(caption[: piece[0]]))
            position = self.content(piece)[0]
            new_start = bool(_SENTENCE_END.search(self.text[:position]))
            letter = self.text[position : position + 1]
            if new_start and not old_start and self._opens_with_capital(position):
                self.replace(position, position + 1, letter.upper() if len(letter.upper()) == 1 else letter)
            elif old_start and not new_start and not _is_name(caption[slice(*piece)]):
                self.replace(position, position + 1, letter.lower() if len(letter.lower()) == 1 else letter)

    def _opens_with_capital(self, position: int) -> bool:
        """Whether the caption's own sentence at this new position began with a capital letter."""
        for part in self._parts:
            if position == 0:
                return self._caption[part.place[0] : part.place[0] + 1].isupper()
            position -= len(part.text)
        return False


def is_plural(phrase: str) -> bool:
    """Whether a noun phrase is plural, by its last word."""
    word = phrase.split()[-1].lower() if phrase.split() else ""
    lemma = noun_lemma(word)
    return lemma != word and word in inflect(lemma, "NNS")


@lru_cache(maxsize=1 << 16)
def inflect(lemma: str, tag: str) -> tuple[str, ...]:
    """Return the forms of a lemma for a Penn tag (lemminflect), the usual one first."""
    return tuple(getInflection(lemma, tag=tag))


def agree(verb: str, plural: bool) -> str:
    """Return a present-tense verb in the number of its subject; another word comes back as it is."""
    lower = verb.lower()
    if plural and lower in _BE:
        return _BE[lower]
    if not plural and lower in _PLURAL_BE:
        return _PLURAL_BE[lower]
    lemma = "lie" if lower in ("lie", "lies") else verb_lemma(lower)
    third = inflect(lemma, "VBZ")
    if plural and lower in third:
        return lemma
    if not plural and lower == lemma and third:
        return third[0]
    return verb


def _cut(part: _Part, start: int, end: int) -> _Part:
    return _Part(
        part.text[start:end], _sub(part.content, part, start, end), _sub(part.place, part, start, end)
    )


def _sub(span: Span, part: _Part, start: int, end: int) -> Span:
    """Return the characters of the span that part.text[start:end] covers, ends reaching to the span's ends."""
    low = span[0] if start == 0 else min(span[0] + start, span[1])
    high = span[1] if end == len(part.text) else min(span[0] + end, span[1])
    return (low, max(low, high))


def _article(word: str) -> str:
    lower = word.lower()
    if _AN_BY_SOUND.match(lower):
        return "an"
    if _A_BY_SOUND.match(lower):
        return "a"
    return "an" if lower[0] in "aeiou" or lower in ("8", "11", "18") or lower.startswith("8") else "a"


def _is_name(phrase: str) -> bool:
    """Whether the capital of a phrase that opened a sentence is its own: "Santa Claus", "TV", "I"."""
    words = re.findall(r"[^\W\d_]+", phrase)
    if not words:
        return False
    return (words[0].isupper() and len(words[0]) > 1) or (
        len(words) > 1 and words[1][0].isupper() and len(words[0]) > 1
    )
