"""The plan of an exchange: which texts change places, and how the graph changes.

Text and graph are made on request, because training uses only one of many plans per caption and epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sclip.negatives.exchange import Exchange
from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph, Span

Kind = Literal[
    "relation", "attribute", "replaced relation", "replaced attribute", "replaced object", "foreign"
]
"""Kind of a negative. The first two kinds are exchanges; "foreign" negatives came with the data."""


@dataclass(slots=True)  # not frozen: freezing would take a third of the listing time
class PlannedExchange:
    """One exchange of a caption; all indices refer to the caption's graph."""

    kind: Kind
    rank: float
    """Order of preference: smaller is better."""
    first: Span
    second: Span
    """`first` and `second` are the spans that change places. One is empty if only one text moves."""
    certain: bool = True
    """Whether the meaning surely changes and the text stays grammatical; only certain plans are drawn."""
    forms: Mapping[Span, str] = field(default_factory=dict)
    """Span of a word -> its new form."""
    swap: tuple[int, int] | None = None
    """Two objects that take each other's place in every relation."""
    whole: bool = False
    """Whether the swapped objects take along the attributes within their phrases."""
    owners: Mapping[int, int] = field(default_factory=dict)
    """Attribute -> its new object."""
    names: Mapping[int, tuple[str, Span]] = field(default_factory=dict)
    """Object -> (new name, span of this name's first words in the caption before the exchange)."""
    verbs: Mapping[int, str] = field(default_factory=dict)
    """Attribute that is a verb -> its new verb."""
    predicates: Mapping[int, str] = field(default_factory=dict)
    """Relation -> its new predicate."""

    def edit(self, caption: str, sentences: int | None = None, repair: bool = True) -> Exchange:
        """Return the exchange that `Exchange` makes with these arguments."""
        return Exchange(caption, self.first, self.second, self.forms, sentences=sentences, repair=repair)

    def graph(self, graph: SceneGraph, edit: Exchange, caption: str) -> SceneGraph:
        """Return the graph of the false caption; objects, attributes and relations keep their number and order."""
        objects = [
            Object(
                self.names.get(k, (obj.name,))[0],
                self._name_span(k, obj, edit),
                edit.slot(obj.phrase),
                obj.negated,
                obj.fixed,
            )
            for k, obj in enumerate(graph.objects)
        ]
        if self.swap is not None:
            for index, source in (self.swap, self.swap[::-1]):
                old = graph.objects[source]
                along = self.whole and edit.moved(old.phrase)
                phrase = edit.content(old.phrase) if along else objects[index].phrase
                objects[index] = Object(old.name, edit.content(old.span), phrase, old.negated, old.fixed)
        attributes = []
        for k, old_attribute in enumerate(graph.attributes):
            owner, span = self._owner(k, old_attribute, graph), self._follow(edit, old_attribute.span)
            if k in self.verbs:
                span = edit.slot(old_attribute.span)
            attributes.append(
                Attribute(owner, self.verbs.get(k, old_attribute.attribute), span, old_attribute.negated)
            )
            if k in self.owners:  # a moved adjective widens its new phrase
                obj = objects[owner]
                if edit.text[span[1] : obj.phrase[0]].isspace():
                    objects[owner] = replace(obj, phrase=(span[0], obj.phrase[1]))
        relations = [
            Relation(
                r.subject,
                self.predicates.get(k, r.predicate),
                r.object,
                self._relation_span(k, edit, r.span),
                r.negated,
            )
            for k, r in enumerate(graph.relations)
        ]
        return SceneGraph(caption, tuple(objects), tuple(attributes), tuple(relations))

    def _owner(self, k: int, attribute: Attribute, graph: SceneGraph) -> int:
        if self.swap is not None and self.whole and attribute.object in self.swap:
            inside = any(low <= attribute.span[0] and attribute.span[1] <= high for low, high in self._pieces)
            if inside:
                return self.swap[self.swap[0] == attribute.object]
        return self.owners.get(k, attribute.object)

    @property
    def _pieces(self) -> tuple[Span, Span]:
        return (self.first, self.second)

    def _name_span(self, k: int, obj: Object, edit: Exchange) -> Span:
        if k not in self.names:
            return edit.slot(obj.span)
        return (edit.content(self.names[k][1])[0], edit.slot(obj.span)[1])

    def _relation_span(self, k: int, edit: Exchange, span: Span) -> Span:
        if span[0] == span[1]:
            return (edit.slot(span)[0],) * 2
        return edit.slot(span) if k in self.predicates else self._follow(edit, span)

    def _follow(self, edit: Exchange, span: Span) -> Span:
        return edit.content(span) if edit.moved(span) else edit.slot(span)
