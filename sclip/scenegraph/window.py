"""Limit how much of a caption the parser reads, and how much of it one model reads.

The parser cuts a caption where every text tower stops reading, before spaCy reads it. So spaCy spends no more time on
1,000 words than on 75. The cut does not depend on the model, unless `model.context_length` is above 77. A `Window` says
how much of a caption and of its graph one model reads.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, cached_property

from sclip.scenegraph.graph import SceneGraph, Triple

MOST_WORDS = 75
"""Maximum words of a caption that are parsed. The architectures read at most 77 tokens, start and end included, and
each word has at least one. The limit is higher for a model that reads more (`model.context_length`)."""

MOST_CHARACTERS = 2000
"""Maximum characters of a caption that are parsed. If the limit of words is higher, this limit rises in proportion."""

_WORD = r"'(?:[stmd]|re|ve|ll)|[^\W\d_]+|\d|(?:[^\w\s]|_)+"
"""One word as CLIP's tokenizer splits text: letters, one digit, or a run of marks."""


@cache
def _read(words: int) -> re.Pattern[str]:
    return re.compile(rf"(?:\s*+(?:{_WORD})){{0,{words}}}+\s*+", re.IGNORECASE)


def parsed_part(caption: str, words: int = MOST_WORDS) -> tuple[str, str]:
    """Return the part of a caption that is parsed, and the rest, which is empty for most captions.

    The first part has at most `words` words (as in `SceneGraph.words`); a limit below MOST_WORDS counts as MOST_WORDS.
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
    """The text tower reads the caption up to this character."""
    places: tuple[int, ...]
    """Places (`SceneGraph.places`) of the triples that the knowledge encoder reads."""

    @classmethod
    def of(cls, graph: SceneGraph, end: int, most: int) -> Window:
        """Return the window of a model that reads `end` characters and at most `most` triples.

        If there are more triples, the first relations get two thirds of `most` and the first attributes get the rest.
        If one kind has fewer triples than its part, the other kind gets the rest of the part.
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
        """Whether the text tower reads all words that a negative caption changes."""
        return negative.endswith(self.graph.caption[self.end :])

    def triples_of(self, negative: SceneGraph) -> list[Triple]:
        """Return a negative's triples at the places of the caption's triples, so that only the change differs."""
        return negative.triples(self.places)

    def shows(self, negative: SceneGraph) -> bool:
        """Whether a negative's triples differ from its caption's; the encoder ignores their order."""
        return sorted(self.triples_of(negative)) != self._sorted

    @cached_property
    def _sorted(self) -> list[Triple]:
        return sorted(self.triples)
