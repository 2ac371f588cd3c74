"""A replacement that is planned: which word comes in which one's place, and what becomes of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sclip.negatives.contrasts import Options
from sclip.negatives.planned_exchange import Kind
from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph, Span


@dataclass(frozen=True, slots=True)
class Replacement:
    """One word in another's place; indices are those of the caption's graph."""

    kind: Kind
    forms: Mapping[Span, str]
    """What stands at these characters now: the other word, and an article that it asks for."""
    span: Span
    """Characters of the word that went."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Object -> its other name."""
    attributes: Mapping[int, str] = field(default_factory=dict)
    predicates: Mapping[int, str] = field(default_factory=dict)

    def text(self, caption: str) -> str:
        """Return the caption with the other word."""
        for span, form in sorted(self.forms.items(), reverse=True):
            caption = caption[: span[0]] + form + caption[span[1] :]
        return caption

    def graph(self, graph: SceneGraph, caption: str) -> SceneGraph:
        """Return the graph of the false caption: same length and order of objects, attributes, relations."""
        return SceneGraph(
            caption,
            tuple(
                Object(
                    self.names.get(k, o.name), self._moved(o.span), self._moved(o.phrase), o.negated, o.fixed
                )
                for k, o in enumerate(graph.objects)
            ),
            tuple(
                Attribute(a.object, self.attributes.get(k, a.attribute), self._moved(a.span), a.negated)
                for k, a in enumerate(graph.attributes)
            ),
            tuple(
                Relation(
                    r.subject, self.predicates.get(k, r.predicate), r.object, self._moved(r.span), r.negated
                )
                for k, r in enumerate(graph.relations)
            ),
        )

    def _moved(self, span: Span) -> Span:
        start, end = span
        for (low, high), form in self.forms.items():
            more = len(form) - (high - low)
            start += more if high <= span[0] else 0
            end += more if high <= span[1] else 0
        return (start, end)


@dataclass(frozen=True, slots=True)
class Slot:
    """A word that may be replaced."""

    kind: Kind
    span: Span
    options: Options
    held: tuple[int, ...]
    """Objects, attributes or relations that it is the word of."""
    lemma: str = ""
    """Of a verb or preposition: what the graph has in its place. Of the first word of a name: the rest of the name."""
    form: int = -1
    """Of a verb: which of its forms it is."""
