"""The scene graph of a caption: objects, attribute pairs and relations, with their positions in the caption.

Graphs are plain frozen values that need no parser. Negatives (false captions) are made by edits at the spans,
the knowledge encoder embeds the triples, and files hold graphs as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

Span = tuple[int, int]
"""(first character, one past the last) in the caption."""

Triple = tuple[str, str, str]
"""(head, relation, tail) in words, as the knowledge encoder embeds them."""


@dataclass(frozen=True, slots=True)
class Object:
    """An object that the caption names."""

    name: str
    """Lemmatized head noun with its compound parts: "traffic light"."""
    span: Span
    """Characters of the name in the caption, without determiner and attributes."""
    phrase: Span
    """Characters of the whole noun phrase: determiner, attributes and name."""
    negated: bool = False
    """Whether the caption denies the object: "no dog", "without a hat"."""
    fixed: bool = False
    """Whether `name` is a proper name, title or quotation. Negatives that exchange words leave it whole."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A property of one object. The knowledge encoder reads it as the triple (attribute, "is", object)."""

    object: int
    """Index into the graph's objects."""
    attribute: str
    span: Span
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """A lemmatized predicate ("sit in") between two objects, given as indices into the graph's objects."""

    subject: int
    predicate: str
    object: int
    span: Span
    """Characters of the predicate in the caption; empty (start == end) if no words express it."""
    negated: bool = False


@dataclass(frozen=True, slots=True)
class SceneGraph:
    """The scene graph of one caption."""

    caption: str
    objects: tuple[Object, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    relations: tuple[Relation, ...] = ()
    shape: int = field(default=0, repr=False, compare=False)
    """Hash of the words' dependency labels without their order; 0 means that the graph was read from JSON."""
    words: int = field(default=0, repr=False, compare=False)
    """Maximum number of words that the parser reads; 0 means `window.MOST_WORDS`."""

    def triples(self, places: Sequence[int] | None = None) -> list[Triple]:
        """Return the relations, then the attributes, as triples; by default all that the caption asserts.

        `places` selects triples by their indices (see the method `places`).
        """
        names = [obj.name for obj in self.objects]
        triples = [(names[r.subject], r.predicate, names[r.object]) for r in self.relations]
        triples += [(a.attribute, "is", names[a.object]) for a in self.attributes]
        return [triples[place] for place in (self.places() if places is None else places)]

    def places(self, end: float = inf) -> list[int]:
        """Return the indices, in relations + attributes, of the triples that the first `end` characters assert."""
        is_asserted = [bool(obj.name) and not obj.negated and obj.span[1] <= end for obj in self.objects]
        places = [
            k
            for k, r in enumerate(self.relations)
            if is_asserted[r.subject] and is_asserted[r.object] and not r.negated and r.span[1] <= end
        ]
        return places + [
            k
            for k, a in enumerate(self.attributes, len(self.relations))
            if is_asserted[a.object] and not a.negated and a.span[1] <= end
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the graph as JSON values for `from_json`, without `shape`."""
        value = asdict(self)
        del value["shape"]
        if not self.words:
            del value["words"]
        for entries in (value["objects"], value["attributes"], value["relations"]):
            for entry in entries:
                for flag in ("negated", "fixed"):
                    if not entry.get(flag, True):
                        del entry[flag]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SceneGraph:
        """Return the graph that `to_json` wrote. Raises KeyError or TypeError if a field is missing."""

        def spans(entry: dict[str, Any]) -> dict[str, Any]:
            return {k: tuple(v) if k in ("span", "phrase") else v for k, v in entry.items()}

        return cls(
            value["caption"],
            tuple(Object(**spans(entry)) for entry in value["objects"]),
            tuple(Attribute(**spans(entry)) for entry in value["attributes"]),
            tuple(Relation(**spans(entry)) for entry in value["relations"]),
            words=value.get("words", 0),
        )
