"""Find the part of a caption that a negative falsifies: the true unit, and its false foil.

A unit is an object with its attributes ("a brown dog") or a relation ("a dog chasing a ball"), in the caption's own
words. The foil is the same part of the negative. It must be false by itself: for "a man at a table", it is "a woman at
a table", not "a woman", who may be there too. In doubt, there is no unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sclip.negatives import contrasts
from sclip.negatives.certainty import surely_fails
from sclip.negatives.drawing import MOST_EXCHANGED, Negative
from sclip.negatives.meaning import PERSONS, is_symmetric, synonym
from sclip.negatives.planned_exchange import Kind
from sclip.negatives.reading import Reading
from sclip.negatives.replaced_objects import SPORTS
from sclip.negatives.senses import excludes, is_having, is_loose, is_vague, is_worn, reverses
from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph, Span
from sclip.scenegraph.lexicon import CONNECTIVES

_BOUND = re.compile(
    r"(?:an?)?other\b|each\b|every\b|both\b|all\b|any\b|no\b|same\b|the (?:other|same|rest)\b|one of\b",
    re.IGNORECASE,
)
"""First words of a phrase that needs the rest of its caption: "the other dog"."""
_OWNED = re.compile(r"(?:his|her|its|their|my|your|our)\b", re.IGNORECASE)
_OPENING = re.compile(r"(?:^|[.!?]\s+)$")
_IS_BEHIND = re.compile(r"\s+(?:(?:that|who|which)\s+)?(?:(?:is|are|was|were)\s+)?")
"""Words that may stand between a name and its verb; a unit omits them."""
_ROW_BEFORE = re.compile(r"(?:\band|\bor|,)\s+$", re.IGNORECASE)
_PEOPLE = PERSONS | frozenset(
    "guy snowboarder swimmer jogger king queen prince princess grandfather grandmother businesswoman".split()
)
"""A person alone is no unit, because the image may show others that the caption does not mention."""
_NO_UNIT = frozenset("of between among from than as like".split())
"""Last words of predicates that make no unit: "between" may need a third object."""


@dataclass(frozen=True, slots=True)
class UnitPair:
    """A true part of a caption (`unit`) and its false counterpart (`foil`), each as a graph with its own caption."""

    kind: Kind
    unit: SceneGraph
    foil: SceneGraph


@dataclass(frozen=True, slots=True)
class _Part:
    """Indices of one object, or of two objects and their relation; -1 means that there is none."""

    objects: tuple[int, ...]
    relation: int = -1
    behind: int = -1
    """Attribute that stands after its object: "a man standing"."""


def units_first(
    graph: SceneGraph,
    drawn: Iterable[Negative],
    part_of: Callable[[Reading, Negative], object | None] | None = None,
) -> Iterator[Negative]:
    """Yield the negatives that have a unit, then the others; yield nothing if no negative has a unit.

    A negative has a unit if `part_of` (default: `unit_of`) returns a true value.
    """
    reading, rest, has_unit = Reading(graph, MOST_EXCHANGED), list[Negative](), False
    for negative in drawn:
        if (part_of or unit_of)(reading, negative):
            has_unit = True
            yield negative
        else:
            rest.append(negative)
    if has_unit:
        yield from rest


def unit_of(caption: SceneGraph | Reading, negative: Negative) -> UnitPair | None:
    """Return the smallest part of a caption that the negative makes surely false; None if there is none."""
    reading = caption if isinstance(caption, Reading) else Reading(caption, MOST_EXCHANGED)
    for part in _parts(reading, negative):
        if not all(_stands_alone(reading, part, k) for k in part.objects):
            continue
        unit, foil = _part_graph(reading.graph, part), _part_graph(negative.graph, part)
        if not (unit and foil) or unit.caption.casefold() == foil.caption.casefold():
            continue
        if (
            negative.kind == "relation"
            and " of " in unit.caption
            and phrase_of(foil, 0) != phrase_of(unit, 1)
        ):
            continue  # "a group of hats on people"
        if _is_stated(reading, foil):
            continue
        return UnitPair(negative.kind, unit, foil)
    return None


def _is_stated(reading: Reading, foil: SceneGraph) -> bool:
    """Return whether the caption states the foil too: "a black cat" if another cat of the caption is black."""
    graph = reading.graph

    def is_like(index: int, foil_index: int) -> bool:
        wanted = {synonym(a.attribute) for a in foil.attributes if a.object == foil_index}
        has = {synonym(graph.attributes[k].attribute) for k in reading.attributes_of[index]}
        return _alike(graph.objects[index].name) == _alike(foil.objects[foil_index].name) and wanted <= has

    if not foil.relations:
        return any(is_like(index, 0) for index in range(len(graph.objects)))
    claim, names = foil.relations[0].predicate, [obj.name for obj in foil.objects]
    for r in graph.relations:
        if r.predicate == claim and is_like(r.subject, 0) and is_like(r.object, 1):
            return True
        reverse = reverses(r.predicate, claim) or (r.predicate == claim and is_symmetric(claim, *names))
        if reverse and is_like(r.subject, 1) and is_like(r.object, 0):
            return True
    return False


def _alike(name: str) -> str:
    return " ".join(map(synonym, name.split()))


def phrase_of(graph: SceneGraph, index: int) -> str:
    """Return the words of an object's phrase."""
    return graph.caption[slice(*graph.objects[index].phrase)]


def _parts(reading: Reading, negative: Negative) -> Iterator[_Part]:
    graph, false = reading.graph, negative.graph
    if negative.kind == "relation":
        names, false_names = ([obj.name for obj in g.objects] for g in (graph, false))
        for k, r in enumerate(graph.relations):
            ends = (names[r.subject], names[r.object])
            if is_having(r.predicate) or any(map(is_worn, ends)):
                continue  # "a face with a woman", "a hat in a man"
            exchanged = (false_names[r.object], false_names[r.subject]) == ends
            if exchanged and surely_fails(reading, r.object, r.subject, k):
                yield _Part((r.subject, r.object), k)
    elif negative.kind == "attribute":
        for index in range(reading.count):
            old, new = ({a.attribute for a in g.attributes if a.object == index} for g in (graph, false))
            if any(_excludes(one, other) for one in old - new for other in new - old):
                yield _Part((index,))
    elif negative.kind == "replaced attribute":
        for k, (one, other) in enumerate(zip(graph.attributes, false.attributes, strict=True)):
            if one.attribute != other.attribute and _excludes(one.attribute, other.attribute, known=True):
                inside = one.span[0] < graph.objects[one.object].phrase[1]
                yield _Part((one.object,), behind=-1 if inside else k)
    elif negative.kind == "replaced relation":
        for k, (was, now) in enumerate(zip(graph.relations, false.relations, strict=True)):
            if was.predicate != now.predicate:
                yield _Part((was.subject, was.object), k)
    else:
        yield from _parts_of_object(reading, false)


def _excludes(one: str, other: str, known: bool = False) -> bool:
    """Return whether `other` is false where `one` is true. `known`: the caller knows that, unless both are numbers."""
    if one.isdigit() and other.isdigit():
        return int(one) < int(other)  # where two dogs are, "three dogs" is false, but "one dog" is true
    return known or excludes(one, other)


def _parts_of_object(reading: Reading, false: SceneGraph) -> Iterator[_Part]:
    """Yield the replaced object if the new one is false by itself, then its relations that become false."""
    graph = reading.graph
    for index, (one, other) in enumerate(zip(graph.objects, false.objects, strict=True)):
        if one.name == other.name:
            continue
        anywhere = one.name in contrasts.ANYWHERE or one.name.partition(" ")[0] in SPORTS
        if anywhere and one.name.rsplit(" ", 1)[-1] not in _PEOPLE:
            yield _Part((index,))
        for k in reading.relations_of[index]:
            r = graph.relations[k]
            if not (is_loose(r.predicate) or is_having(r.predicate)):
                yield _Part((r.subject, r.object), k)


def _stands_alone(reading: Reading, part: _Part, index: int) -> bool:
    """Return whether an object's phrase keeps its meaning without the rest of its caption."""
    graph = reading.graph
    if index >= reading.count or reading.closed[index] or is_vague(graph.objects[index].name):
        return False
    text = reading.text(graph.objects[index].phrase)
    is_first = index == part.objects[0]
    if _BOUND.match(text) or (is_first and _OWNED.match(text)) or reading.phrases.possessed[index]:
        return False
    return reading.phrases.is_open(index)


def _part_graph(graph: SceneGraph, part: _Part) -> SceneGraph | None:
    """Return the part as a graph with its own caption; None if this caption is not English."""
    spans = [graph.objects[k].phrase for k in part.objects]
    if part.relation >= 0:
        relation = graph.relations[part.relation]
        if not _reads(graph, relation):
            return None
        spans.insert(1, relation.span)
    elif part.behind >= 0:
        span = graph.attributes[part.behind].span
        if not _IS_BEHIND.fullmatch(graph.caption, spans[0][1], span[0]):
            return None
        spans.append(span)
    texts = [_text(graph, span) for span in spans]
    starts = [sum(len(text) + 1 for text in texts[:k]) for k in range(len(texts))]

    def moved(span: Span, piece: int) -> Span:
        more = starts[piece] - spans[piece][0]
        return (span[0] + more, span[1] + more)

    objects, attributes = [], []
    for index, k in enumerate(part.objects):
        obj, piece = graph.objects[k], 2 * index
        objects.append(Object(obj.name, moved(obj.span, piece), moved(obj.phrase, piece), fixed=obj.fixed))
        for n, a in enumerate(graph.attributes):
            inside = obj.phrase[0] <= a.span[0] and a.span[1] <= obj.phrase[1]
            if a.object == k and (inside or n == part.behind):
                attributes.append(Attribute(index, a.attribute, moved(a.span, piece if inside else 1)))
    relations: tuple[Relation, ...] = ()
    if part.relation >= 0:
        relations = (Relation(0, graph.relations[part.relation].predicate, 1, moved(spans[1], 1)),)
    return SceneGraph(" ".join(texts), tuple(objects), tuple(attributes), relations)


def _reads(graph: SceneGraph, relation: Relation) -> bool:
    """Return whether subject, predicate and object of a relation read as English one after the other."""
    caption = graph.caption
    subject, object_ = (graph.objects[k].phrase for k in (relation.subject, relation.object))
    start, end = relation.span
    if not subject[1] <= start < end <= object_[0] or relation.negated:
        return False
    words = caption[start:end].lower().split()
    if words[-1] in _NO_UNIT or not set(relation.predicate.split()[1:]) <= set(words):
        return False  # "put on", which the caption splits: "put .. on"
    if caption[end : object_[0]].strip() and sum(r.span == relation.span for r in graph.relations) < 2:
        return False
    if words[0].endswith("ing") or words[0] in CONNECTIVES:
        return True
    between = _IS_BEHIND.fullmatch(caption, subject[1], start) is not None
    return between and not _ROW_BEFORE.search(caption, 0, subject[0])


def _text(graph: SceneGraph, span: Span) -> str:
    """Return the words of a span, without the capital of a sentence start."""
    text = graph.caption[slice(*span)]
    opens = _OPENING.search(graph.caption, 0, span[0]) and not text[1:2].isupper()
    is_name = any(obj.fixed and obj.span[0] == span[0] for obj in graph.objects)
    return text[0].lower() + text[1:] if opens and not is_name and text[:2] != "I " else text
