"""What is read of a caption: the words that are parsed, and of them the part that one model takes.

The parser cuts a caption where no text tower reads on, before spaCy sees it: 1,000 words cost what 75 do. A graph
depends on no model. What the tower and the knowledge encoder of one model take of it is its `Window`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, cached_property

from sclip.scenegraph.graph import SceneGraph, Triple

MOST_WORDS = 75
"""Words of a caption that are parsed. The longest context of the architectures is 77 tokens, start and end among them,
and each word has one at least. For a model that reads more (`model.context_length`) more are parsed."""

MOST_CHARACTERS = 2000
"""Of a caption that is one long word; of more words, as many more."""

_WORD = r"'(?:[stmd]|re|ve|ll)|[^\W\d_]+|\d|(?:[^\w\s]|_)+"
"""As CLIP's tokenizer cuts them: letters, a digit, a run of marks."""


@cache
def _read(words: int) -> re.Pattern[str]:
    return re.compile(rf"(?:\s*+(?:{_WORD})){{0,{words}}}+\s*+", re.IGNORECASE)


def parsed_part(caption: str, words: int = MOST_WORDS) -> tuple[str, str]:
    """Return what is parsed of a caption, and the rest of it, which is empty for most captions.

    That are `words` of it, as `SceneGraph.words` says of a graph, but MOST_WORDS at least.
    """
    words = max(words, MOST_WORDS)
    if len(caption) <= words:
        return caption, ""
    found = _read(words).match(caption, 0, MOST_CHARACTERS * words // MOST_WORDS)
    end = found.end() if found else 0
    return caption[:end], caption[end:]


@dataclass(frozen=True)
class Window:
    """What one model reads of a caption and its graph (method, section 8)."""

    graph: SceneGraph
    end: int
    """The text tower reads the caption up to this character."""
    places: tuple[int, ...]
    """Places (`SceneGraph.places`) of the triples that the knowledge encoder takes."""

    @classmethod
    def of(cls, graph: SceneGraph, end: int, most: int) -> Window:
        """Return the window of a model that reads `end` characters and takes `most` triples.

        Where there are more, relations get two thirds and attributes the rest, in caption order; what the one kind
        leaves goes to the other.
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
        """The triples of the caption that the encoder takes."""
        return self.graph.triples(self.places)

    def holds(self, negative: str) -> bool:
        """Whether the exchange that made a negative caption lies in what the tower reads."""
        return negative.endswith(self.graph.caption[self.end :])

    def triples_of(self, negative: SceneGraph) -> list[Triple]:
        """Return the triples of a negative: those at its caption's places, so that the exchange alone differs."""
        return negative.triples(self.places)

    def shows(self, negative: SceneGraph) -> bool:
        """Whether a negative has another triple than its caption; their order is nothing to the encoder."""
        return sorted(self.triples_of(negative)) != self._sorted

    @cached_property
    def _sorted(self) -> list[Triple]:
        return sorted(self.triples)
