"""Exchange two pieces of a caption, and find where each span of the old text is in the new text.

An edit exchanges two spans and puts some words into another form; if one span is empty, one text moves. Where two
pieces meet, articles and capitals are corrected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate, pairwise

from sclip.negatives.agreement import article
from sclip.scenegraph.graph import Span

_ARTICLE_LAST = re.compile(r"(?<![\w'-])(an?)\s*$", re.IGNORECASE)
_ARTICLES = tuple(f"{before}{word}" for before in " \t\"'(,." for word in ("a", "an", "A", "An", "AN"))
_SENTENCE_END = re.compile(r"[.!?]\s+\S")
_WORD_FIRST = re.compile(r"\s*([^\W_][\w'-]*)")


class Exchange:
    """A caption in which two disjoint pieces have changed places."""

    __slots__ = ("_caption", "_forms", "_ordered", "_regions", "_starts", "text")

    def __init__(
        self,
        caption: str,
        first: Span,
        second: Span,
        forms: Mapping[Span, str] | None = None,
        *,
        sentences: int | None = None,
        repair: bool = True,
    ) -> None:
        """Exchange the characters of `first` and `second`, and replace the words at `forms` by their new forms.

        Raises ValueError if the pieces overlap, are equal or lie outside the caption. A form that crosses an end of a
        piece is ignored. `sentences` is the result of `count_sentences`, if the caller knows it. Without `repair`,
        articles and capitals stay as they are.
        """
        if first > second:
            first, second = second, first
        if not (0 <= first[0] <= first[1] <= second[0] <= second[1] <= len(caption)) or first == second:
            raise ValueError(f"spans {first} and {second} cannot be exchanged in {len(caption)} characters")
        self._caption = caption
        self._forms = dict(forms) if forms else {}
        self._regions = ((0, first[0]), second, (first[1], second[0]), first, (second[1], len(caption)))
        """Spans of the caption in their new order: before, second, between, first, after."""
        filled = [region for region in self._regions if region[0] < region[1]]
        if sentences is None:
            sentences = count_sentences(caption)
        if repair and (sentences > 1 or (sentences and filled[0][0])):
            self._capitals(filled, {second: first[0], first: second[0]})
        if repair:
            self._articles(filled)
        self._ordered = sorted(self._forms.items())
        texts = [self._region_text(region) for region in self._regions]
        self._starts = list(accumulate(map(len, texts), initial=0))
        self.text = "".join(texts)

    def moved(self, span: Span) -> bool:
        """Return whether the span lies within one of the two pieces."""
        return any(low <= span[0] and span[1] <= high for low, high in (self._regions[1], self._regions[3]))

    def content(self, span: Span) -> Span:
        """Return where the words of a span are in the new text. The span lies in one piece or outside of both."""
        return (self._offset(span[0], last=False), self._offset(span[1], last=True))

    def slot(self, span: Span) -> Span:
        """Return the span of what now stands in the place of a span: of "blue" for "red", if they changed places."""
        start, end = span
        for piece, region in ((self._regions[3], 1), (self._regions[1], 3)):
            if piece[0] < piece[1]:
                if piece[0] <= span[0] < piece[1]:
                    start = -region
                if piece[0] < span[1] <= piece[1]:
                    end = -region
        first = self._starts[-start] if start < 0 else self._offset(start, last=False)
        last = self._starts[1 - end] if end < 0 else self._offset(end, last=True)
        return (first, max(first, last))

    def _offset(self, offset: int, last: bool) -> int:
        """Return the new position of `offset`, the start of a span or, if `last`, the end of a span."""
        for index, (low, high) in enumerate(self._regions):
            if low < offset <= high if last else low <= offset < high:
                return self._starts[index] + len(self._region_text((low, offset)))
        return self._starts[-1] if offset else 0

    def _region_text(self, region: Span) -> str:
        low, high = region
        text, offset = "", low
        for (start, end), form in self._ordered:
            if low <= start and end <= high:
                text += self._caption[offset:start] + form
                offset = end
        return text + self._caption[offset:high]

    # -- the seams

    def _capitals(self, filled: list[Span], offsets: Mapping[Span, int]) -> None:
        """Give the new first words of sentences their capitals. `offsets`: {piece: old start of the other piece}."""
        caption = self._caption
        left, length = (0, 0), 0
        for region in filled:
            start = region[0]
            opened, opens = _opens(caption, 0, start), length == 0 or _opens(caption, *left)
            if opens and not opened:
                # only if the caption has a capital at this place
                own = offsets.get(region, length)
                if caption[start].islower() and caption[own : own + 1].isupper():
                    self._first_letter(start, caption[start].upper())
            elif opened and not opens and caption[start].isupper() and not _is_name(caption[slice(*region)]):
                self._first_letter(start, caption[start].lower())
            left, length = region, length + region[1] - region[0]

    def _first_letter(self, offset: int, letter: str) -> None:
        if len(letter) != 1:
            return
        for (start, end), form in self._forms.items():
            if start <= offset < end:
                if offset == start and form:
                    self._forms[(start, end)] = letter + form[1:]
                return
        self._forms[(offset, offset + 1)] = letter

    def _articles(self, filled: list[Span]) -> None:
        caption = self._caption
        for left, right in pairwise(filled):
            low = max(0, left[1] - 6, left[0])
            tail = caption[low : left[1]].rstrip()
            if len(tail) > 2 and not tail.endswith(_ARTICLES):
                continue
            match = _ARTICLE_LAST.search(caption, low, left[1])
            word = _WORD_FIRST.match(caption, *right)
            if match is None or word is None:
                continue
            start, end = match.span(1)
            first = self._forms.pop((start, start + 1), caption[start])
            form = self._forms.get(word.span(1), word.group(1))
            self._forms[(start, end)] = first + article(form)[1:]


def count_sentences(caption: str) -> int:
    """Return 1 for one sentence, 2 for several, and 0 for a title, in which most words begin with a capital."""
    words = [word for word in caption.split() if word[0].isalpha()]
    if len(words) > 2 and 2 * sum(word[0].isupper() for word in words) > len(words):
        return 0
    return 1 if _SENTENCE_END.search(caption) is None else 2


def _opens(caption: str, start: int, end: int) -> bool:
    """Return whether a sentence begins after caption[start:end]."""
    before = caption[max(start, end - 4) : end]
    stripped = before.rstrip()
    if not stripped:
        return start >= end - 4
    return len(stripped) < len(before) and stripped[-1] in ".!?"


def _is_name(phrase: str) -> bool:
    """Return whether a phrase at a sentence start keeps its capital, because it is a name: "Santa Claus", "TV"."""
    words = re.findall(r"[^\W\d_]+", phrase)
    if not words or words[0].lower() in ("a", "an", "the"):
        return False
    return (words[0].isupper() and len(words[0]) > 1) or (
        len(words) > 1 and words[1][0].isupper() and len(words[0]) > 1
    )
