"""Scene graph -> its valid exchanges, best first, each with its caption and its aligned graph.

Two kinds (method, section 2): relation negatives exchange two objects, as whole noun phrases or by their names
alone; attribute negatives exchange two attributes of different objects. An exchange is kept where the meaning
of the graph changes (see `meaning`) and the text still reads like a caption.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

from sclip.negatives.exchange import Exchange, agree, is_plural
from sclip.negatives.meaning import meaning
from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph, Span
from sclip.scenegraph.lexicon import CONNECTIVES
from sclip.scenegraph.parser import MAX_CHARACTERS
from sclip.seeding import generator

Kind = Literal["relation", "attribute"]

_POSSESSIVE = re.compile(r"(?:his|her|its|their|my|your|our)\b", re.IGNORECASE)
_AUXILIARIES = frozenset("is are was were has have".split())
_DETERMINED = re.compile(r"(?:an?|one|each|every|this|that|another)\b", re.IGNORECASE)


VERSION = "2"
"""Raised with every change that changes a caption's candidates: annotated shards carry it."""

MOST_CANDIDATES = 24
"""Only the best so many of a caption are kept."""

MOST_EXCHANGED = 32
"""Only the first so many objects, and attributes, of a caption change places: pairs grow with the square, and
CLIP's 77 tokens hold no more."""


@dataclass(frozen=True, slots=True)
class Negative:
    """A false caption of the caption's words."""

    caption: str
    kind: Kind
    swapped: tuple[str, str]
    """The two texts that changed places, in the order of the caption."""
    graph: SceneGraph
    """The caption's graph with the same exchange: same length and order of relations and attributes."""

    def to_json(self) -> dict[str, Any]:
        """Return the negative as JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Negative:
        """Return the negative that `to_json` wrote. Raises KeyError or TypeError where a field is missing."""
        first, second = value["swapped"]
        return cls(value["caption"], value["kind"], (first, second), SceneGraph.from_json(value["graph"]))


def candidates(graph: SceneGraph) -> list[Negative]:
    """Return the valid exchanges, best first, no caption twice; empty where there is none."""
    scored = [*_relation_negatives(graph), *_attribute_negatives(graph)]
    scored.sort(key=lambda pair: pair[0])
    seen = {_fold(graph.caption)}
    kept = []
    for _, negative in scored:
        folded = _fold(negative.caption)
        if folded not in seen:
            seen.add(folded)
            kept.append(negative)
    return kept[:MOST_CANDIDATES]


def draw(found: Sequence[Negative], *, seed: int, epoch: int, key: str) -> Negative | None:
    """Return the negative of one visit of a sample among its candidates, or None where it has none.

    The kind is drawn first, so that a caption of many relations still shows its attributes as often.
    """
    if not found:
        return None
    random = generator("negative", seed, epoch, key)
    kind = random.choice(sorted({negative.kind for negative in found}))
    return random.choice([negative for negative in found if negative.kind == kind])


def _fold(caption: str) -> str:
    return "".join(caption.casefold().split())


# -- relations


def _relation_negatives(graph: SceneGraph) -> Iterator[tuple[float, Negative]]:
    related = {frozenset((r.subject, r.object)) for r in graph.relations if r.span[0] < r.span[1]}
    for first, second in combinations(range(min(len(graph.objects), MOST_EXCHANGED)), 2):
        direct = {first, second} in related
        for score, whole in ((0.0, True), (1.0, False)):
            negative = _exchange_objects(graph, first, second, whole)
            if negative is not None:
                yield score + (0 if direct else 2), negative


def _exchange_objects(graph: SceneGraph, first: int, second: int, whole: bool) -> Negative | None:
    """Exchange two objects as whole noun phrases, or their names alone, the attributes staying."""
    one, other = graph.objects[first], graph.objects[second]
    spans = (one.phrase, other.phrase) if whole else (one.span, other.span)
    texts = tuple(graph.caption[slice(*span)] for span in spans)
    if whole:
        # "a man with his dog": the pronoun would come before the one that it stands for.
        if any(_POSSESSIVE.match(text) for text in texts):
            return None
    elif is_plural(texts[0]) != is_plural(texts[1]):
        return None
    if _overlap(*spans):
        return None
    swap = {first: second, second: first}
    objects = list(graph.objects)
    objects[first], objects[second] = other, one
    attributes = graph.attributes
    if whole:
        attributes = tuple(
            replace(a, object=swap.get(a.object, a.object)) if _within(a.span, spans) else a
            for a in attributes
        )
    if meaning(objects, attributes, graph.relations) == meaning(
        graph.objects, graph.attributes, graph.relations
    ):
        return None
    edit = Exchange(graph.caption[:MAX_CHARACTERS], *spans)
    if whole:
        _agree(edit, graph, spans)
    edit.repair()
    for index in (first, second):
        moved = objects[index]
        phrase = edit.content(moved.phrase) if whole else edit.place(graph.objects[index].phrase)
        objects[index] = Object(moved.name, edit.content(moved.span), phrase)
    for index, obj in enumerate(objects):
        if index not in swap:
            objects[index] = Object(obj.name, edit.place(obj.span), edit.place(obj.phrase))
    located = [replace(a, span=_follow(edit, a.span)) for a in attributes]
    return _negative(graph, edit, "relation", spans, objects, located)


def _agree(edit: Exchange, graph: SceneGraph, spans: tuple[Span, Span]) -> None:
    """Give the verb behind each exchanged phrase the number of its new subject."""
    plural = [_phrase_is_plural(graph.caption[slice(*span)]) for span in spans]
    if plural[0] == plural[1]:
        return
    for span, becomes in ((spans[0], plural[1]), (spans[1], plural[0])):
        end = edit.place(span)[1]
        match = re.match(r"\s+([^\W\d_]+)\b", edit.text[end:])
        if match is None:
            continue
        word = match.group(1)
        start = end + match.start(1)
        does = any(
            graph.objects[r.subject].phrase == span and edit.place(r.span)[0] == start
            for r in graph.relations
        )
        if word.lower() in _AUXILIARIES or (does and word.lower() not in CONNECTIVES):
            form = agree(word, becomes)
            if form != word:
                edit.replace(start, end + match.end(1), form)


def _phrase_is_plural(phrase: str) -> bool:
    return not _DETERMINED.match(phrase) and is_plural(phrase)


# -- attributes


def _attribute_negatives(graph: SceneGraph) -> Iterator[tuple[float, Negative]]:
    for first, second in combinations(range(min(len(graph.attributes), MOST_EXCHANGED)), 2):
        negative = _exchange_attributes(graph, first, second)
        if negative is not None:
            yield 0.5, negative


def _exchange_attributes(graph: SceneGraph, first: int, second: int) -> Negative | None:
    one, other = graph.attributes[first], graph.attributes[second]
    spans = (one.span, other.span)
    if one.object == other.object or _overlap(*spans):
        return None
    in_phrase = [_within(a.span, (graph.objects[a.object].phrase,)) for a in (one, other)]
    number = [a.attribute.isdigit() for a in (one, other)]
    if in_phrase[0] != in_phrase[1] or number[0] != number[1]:
        return None
    if number[0] and "1" in (one.attribute, other.attribute):
        return None  # the nouns would have to change their number
    attributes = list(graph.attributes)
    attributes[first] = replace(one, attribute=other.attribute)
    attributes[second] = replace(other, attribute=one.attribute)
    if meaning(graph.objects, attributes, graph.relations) == meaning(
        graph.objects, graph.attributes, graph.relations
    ):
        return None
    edit = Exchange(graph.caption[:MAX_CHARACTERS], *spans)
    edit.repair()
    objects = [Object(o.name, edit.place(o.span), edit.place(o.phrase)) for o in graph.objects]
    located = [replace(a, span=edit.place(a.span)) for a in attributes]
    return _negative(graph, edit, "attribute", spans, objects, located)


# -- both


def _negative(
    graph: SceneGraph,
    edit: Exchange,
    kind: Kind,
    spans: tuple[Span, Span],
    objects: list[Object],
    attributes: list[Attribute],
) -> Negative:
    relations = tuple(
        Relation(r.subject, r.predicate, r.object, _follow(edit, r.span)) for r in graph.relations
    )
    text = edit.text + graph.caption[MAX_CHARACTERS:]
    swapped = sorted(spans)
    return Negative(
        text,
        kind,
        (graph.caption[slice(*swapped[0])], graph.caption[slice(*swapped[1])]),
        SceneGraph(text, tuple(objects), tuple(attributes), relations),
    )


def _follow(edit: Exchange, span: Span) -> Span:
    return edit.content(span) if edit.moved(span) else edit.place(span)


def _within(span: Span, outer: tuple[Span, ...]) -> bool:
    return any(start <= span[0] and span[1] <= end for start, end in outer)


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
