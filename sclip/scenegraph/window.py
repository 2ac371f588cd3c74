"""Limit how much of a caption the parser reads, and how much of the caption one model reads.

Before the parser calls spaCy, it drops the words that no text tower can read. So spaCy spends no more time on
1,000 words than on 75. All models share this limit, unless `model.context_length` is above 77. A `Window`
says how much of a caption and of its graph one model reads.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, cached_property

from sclip.scenegraph.graph import SceneGraph, Triple

MOST_WORDS = 75
"""Maximum words of a caption that are parsed. The models read at most 77 tokens, start and end included, and
a word has at least one token. If `model.context_length` is higher, this limit is higher too."""

MOST_CHARACTERS = 2000
"""Maximum characters of a caption that are parsed. A higher word limit raises this limit in proportion."""

_WORD = r"'(?:[stmd]|re|ve|ll)|[^\W\d_]+|\d|(?:[^\w\s]|_)+"
"""One word as CLIP's tokenizer splits text: letters, one digit, or a run of marks."""


@cache
def _read(words: int) -> re.Pattern[str]:
    return re.compile(rf"(?:\s*+(?:{_WORD})){{0,{words}}}+\s*+", re.IGNORECASE)


def parsed_part(caption: str, words: int = MOST_WORDS) -> tuple[str, str]:
    """Split a caption into the part that is parsed and the rest. For most captions, the rest is empty.

    The first part has at most max(`words`, MOST_WORDS) words. `words` is a word limit such as `SceneGraph.words`.
    """
    words = max(words, MOST_WORDS)
    if len(caption) <= words:
        return caption, ""
    match = _read(words).match(caption, 0, MOST_CHARACTERS * words // MOST_WORDS)
    end = match.end() if match else 0
    return caption[:end], caption[end:]


@dataclass(frozen=True)
class Window:
    """The part of a caption and its graph that one model reads (method, section 8)."""

    graph: SceneGraph
    end: int
    """Number of characters of the caption that the text tower reads."""
    places: tuple[int, ...]
    """Places (`SceneGraph.places`) of the triples that the knowledge encoder reads."""

    @classmethod
    def of(cls, graph: SceneGraph, end: int, most: int) -> Window:
        """Return the window of a model that reads `end` characters and at most `most` triples.

        If there are more triples, two thirds of `most` go to the first relations, and one third to the first
        attributes. If one kind has fewer triples than its share, the other kind gets the rest of this share.
        """
        places = graph.places(end)
        if len(places) > most:
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
        """Return the triples of a negative at the same `places`. So only triples that the negative changes differ."""
        return negative.triples(self.places)

    def shows(self, negative: SceneGraph) -> bool:
        """Return whether a negative has other triples than its caption. The encoder ignores their order."""
        return sorted(self.triples_of(negative)) != self._sorted

    @cached_property
    def _sorted(self) -> list[Triple]:
        return sorted(self.triples)
