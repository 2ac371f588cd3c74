"""The plan of a replacement: the old word, the new word, and how the graph changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sclip.negatives.contrasts import Options
from sclip.negatives.planned_exchange import Kind
from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph, Span


@dataclass(frozen=True, slots=True)
class Replacement:
    """The replacement of one word; all indices refer to the caption's graph."""

    kind: Kind
    forms: Mapping[Span, str]
    """Span -> its new text: the new word, and the article that it needs."""
    span: Span  # of the replaced word
    names: Mapping[int, str] = field(default_factory=dict)
    """Object -> its new name."""
    attributes: Mapping[int, str] = field(default_factory=dict)
    predicates: Mapping[int, str] = field(default_factory=dict)

    def text(self, caption: str) -> str:
        """Return the caption with the new word."""
        for span, form in sorted(self.forms.items(), reverse=True):
            caption = caption[: span[0]] + form + caption[span[1] :]
        return caption

    def graph(self, graph: SceneGraph, caption: str) -> SceneGraph:
        """Return the graph of the false caption; objects, attributes and relations keep their number and order."""
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
    """Indices of the objects, attributes or relations that the word expresses."""
    predicate: str = ""
    """Of a relation: the words of its predicate to replace."""
    form: int = -1
    """Index of a verb's form in `contrasts.FORM_OF`; -1 means that the word is no verb."""
    rest: str = ""
    """Of a name with a sport: what stays of it, such as " player"."""
