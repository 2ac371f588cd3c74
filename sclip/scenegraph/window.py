"""Limit how much of a caption the parser reads, and how much of the caption one model reads.

To save time, the parser drops the words that no text tower can read: those after the 75th, unless
`model.context_length` is above 77. A `Window` says how much one model reads.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, cached_property

from sclip.scenegraph.graph import SceneGraph, Triple

MOST_WORDS = 75
"""Maximum words of a caption that are parsed: a text tower reads 77 tokens, of which two are start and end."""

MOST_CHARACTERS = 2000
"""Maximum characters of a caption that are parsed with MOST_WORDS; a higher word limit allows proportionally more."""

_WORD = r"'(?:[stmd]|re|ve|ll)|[^\W\d_]+|\d|(?:[^\w\s]|_)+"
"""One word as CLIP's tokenizer splits text: letters, one digit, or a run of marks."""


@cache
def _read(words: int) -> re.Pattern[str]:
    return re.compile(rf"(?:\s*+(?:{_WORD})){{0,{words}}}+\s*+", re.IGNORECASE)


def parsed_part(caption: str, words: int = MOST_WORDS) -> tuple[str, str]:
    """Split a caption into the part that is parsed, at most max(`words`, MOST_WORDS) words, and the rest."""
    words = max(words, MOST_WORDS)
    if len(caption) <= words:
        return caption, ""
    match = _read(words).match(caption, 0, MOST_CHARACTERS * words // MOST_WORDS)
    end = match.end() if match else 0
    return caption[:end], caption[end:]


@dataclass(frozen=True)
class Window:
    """The part of a caption and its graph that one model reads."""

    graph: SceneGraph
    end: int  # number of characters of the caption that the text tower reads
    places: tuple[int, ...]
    """Indices (`SceneGraph.places`) of the triples that the knowledge encoder reads."""

    @classmethod
    def of(cls, graph: SceneGraph, end: int, most: int) -> Window:
        """Return the window of a model that reads `end` characters and at most `most` triples."""
        places = graph.places(end)
        if len(places) > most:
            # Two thirds for relations, one third for attributes; what one kind leaves, the other kind gets.
            split = bisect_left(places, len(graph.relations))
            relations, attributes = places[:split], places[split:]
            relations = relations[: max(1, 2 * most // 3, most - len(attributes))]
            places = relations + attributes[: most - len(relations)]
        return cls(graph, end, tuple(places))

    @cached_property
    def triples(self) -> list[Triple]:
        """Triples of the caption that the knowledge encoder reads."""
        return self.graph.triples(self.places)

    def holds(self, negative: str) -> bool:
        """Return whether the text tower reads all words that a negative caption changes."""
        return negative.endswith(self.graph.caption[self.end :])

    def triples_of(self, negative: SceneGraph) -> list[Triple]:
        """Return a negative's triples at `places`, in the order of `triples`."""
        return negative.triples(self.places)

    def shows(self, negative: SceneGraph) -> bool:
        """Return whether a negative changes the set of triples that the knowledge encoder reads."""
        return sorted(self.triples_of(negative)) != self._sorted

    @cached_property
    def _sorted(self) -> list[Triple]:
        return sorted(self.triples)
