"""A scene graph prepared for editing: the parts of its noun phrases, and the statements about each object.

A `Reading` is made once per caption, and every kind of exchange uses it. A phrase is a whole noun phrase ("a red fire
hydrant"), a name is its noun ("fire hydrant"), and a head is the last word of a name.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

from sclip.negatives.agreement import PRONOUNS, is_plural, phrase_is_plural
from sclip.negatives.meaning import Label, is_symmetric, label, synonym
from sclip.negatives.noun_phrases import NounPhrases
from sclip.negatives.senses import place_of
from sclip.scenegraph.graph import SceneGraph, Span

_INTENSIFIERS = ("very", "really", "extremely", "quite", "so", "too", "rather")
_INTENSIFIER = re.compile(rf"\b(?:{'|'.join(_INTENSIFIERS)})\s+$", re.IGNORECASE)
_JOINED = re.compile(r"\s*(?:,|,?\s*and\b|/|-)?\s*")
_POSSESSIVE = re.compile(r"(?:his|her|its|their|my|your|our)\b", re.IGNORECASE)
_ROW = re.compile(r"\s*(?:,|,?\s*(?:and|or)\b|[&/|~:-])?\s*")
_WORD = re.compile(r"\S+")
_LETTERS = re.compile(r"\w+")
_MEASURE_BEHIND = re.compile(r"\s+of\b")
SENTENCE_END = re.compile(r"[.!?]\W")


@dataclass(slots=True)  # not frozen: frozen units take longer to make
class Unit:
    """One or more modifiers of an object that move as one text: "red", "black and white", "gas station"."""

    object: int
    span: Span
    attributes: tuple[int, ...]
    compound: int = 0
    """Number of words that the unit takes from the start of a compound name: 1 for "fire" of "fire hydrant"."""
    name: Span = (0, 0)  # of the words that `compound` counts


class Reading:
    """Facts about one caption's graph that the exchanges need. Only the first `most` objects are considered.

    With `only_certain`, the planners leave out exchanges that may keep the caption true.
    """

    def __init__(self, graph: SceneGraph, most: int, *, only_certain: bool = False) -> None:
        self.graph = graph
        self.caption = graph.caption
        self.only_certain = only_certain
        self.count = min(len(graph.objects), most)
        self.attributes_of: list[list[int]] = [[] for _ in graph.objects]
        for k, attribute in enumerate(graph.attributes):
            self.attributes_of[attribute.object].append(k)
        self.relations_of: list[list[int]] = [[] for _ in graph.objects]
        for k, relation in enumerate(graph.relations):
            self.relations_of[relation.subject].append(k)
            if relation.object != relation.subject:
                self.relations_of[relation.object].append(k)

    @cached_property
    def labels(self) -> list[Label]:
        """The label of each object: its name and attributes."""
        attributes = self.graph.attributes
        return [
            label(obj.name, [attributes[k].attribute for k in indices])
            for obj, indices in zip(self.graph.objects, self.attributes_of, strict=True)
        ]

    @cached_property
    def heads(self) -> list[Span]:
        """The span of the head of each object."""
        spans = []
        for obj in self.graph.objects:
            start, end = obj.span
            words = self.caption[start:end].rsplit(None, 1)
            spans.append((end - len(words[-1]) if len(words) > 1 else start, end))
        return spans

    @cached_property
    def plural(self) -> list[bool]:
        """Whether each phrase is plural, as `phrase_is_plural` decides."""
        return [phrase_is_plural(self.caption[slice(*obj.phrase)]) for obj in self.graph.objects]

    @cached_property
    def head_plural(self) -> list[bool]:
        """Whether each head is a plural form, whatever stands before it: "a jeans"."""
        return [is_plural(self.caption[slice(*head)].lower()) for head in self.heads]

    @cached_property
    def phrases(self) -> NounPhrases:
        """The rules that say which words may leave or enter each phrase."""
        return NounPhrases(self.graph, self.heads, self.head_plural)

    def is_possessive(self, index: int) -> bool:
        """Return whether the object's phrase begins with a possessive such as "his"."""
        return _POSSESSIVE.match(self.caption, *self.graph.objects[index].phrase) is not None

    @cached_property
    def has_pronoun(self) -> bool:
        """Whether the caption holds a pronoun that an exchange may change."""
        return not PRONOUNS.isdisjoint(_LETTERS.findall(self.caption.lower()))

    @cached_property
    def units(self) -> list[list[Unit]]:
        """The modifiers of each object that can be exchanged: single modifiers, then sequences of several."""
        return [self._units(index) for index in range(self.count)]

    @cached_property
    def placed(self) -> list[list[tuple[int, str]]]:
        """For each object, (subject, last predicate word) of the relations that point to it; "onto" counts as "on"."""
        relations: list[list[tuple[int, str]]] = [[] for _ in self.graph.objects]
        for relation in self.graph.relations:
            place = place_of(relation.predicate)
            last = place if place in ("in", "on") else relation.predicate.rsplit(" ", 1)[-1]
            relations[relation.object].append((relation.subject, last))
        return relations

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs of objects; with `only_certain`, only pairs without a sentence end between them."""
        pairs = list(combinations(range(self.count), 2))
        ends = [match.start() for match in SENTENCE_END.finditer(self.caption)] if self.only_certain else []
        if not ends:
            return pairs
        phrases = [obj.phrase for obj in self.graph.objects]
        before = [bisect_right(ends, start - 2) for start, _ in phrases]
        begun = [bisect_left(ends, end) for _, end in phrases]
        return [(k, m) for k, m in pairs if before[m] <= begun[k] and before[k] <= begun[m]]

    # -- what changes

    def changes(self, new: dict[int, Label]) -> bool:
        """Return whether the caption's meaning changes when objects get new labels.

        False for exchanges of synonyms, of attributes of one object, of both sides of "next to", and of list members.
        """
        labels = self.labels
        if sorted(new.values()) != sorted([labels[k] for k in new]):
            return True
        if all(labels[k] == now for k, now in new.items()):
            return False
        touched = {k for index in new for k in self.relations_of[index]}
        return bool(touched) and self._statements(touched, new) != self._statements(touched, {})

    def _statements(self, relations: set[int], new: dict[int, Label]) -> list[tuple[str, Label, Label]]:
        statements = []
        for k in relations:
            relation = self.graph.relations[k]
            one = new.get(relation.subject) or self.labels[relation.subject]
            other = new.get(relation.object) or self.labels[relation.object]
            if one > other and is_symmetric(relation.predicate, one[0], other[0]):
                one, other = other, one
            statements.append((relation.predicate, one, other))
        statements.sort()
        return statements

    def relabelled(self, owners: dict[int, int], names: dict[int, str] | None = None) -> dict[int, Label]:
        """Return new labels of the changed objects; `owners`: {attribute: new object}, `names`: {object: new name}."""
        attributes = self.graph.attributes
        names = names or {}
        touched = {*owners.values(), *(attributes[k].object for k in owners), *names}
        return {
            index: label(
                names.get(index, self.graph.objects[index].name),
                [attributes[k].attribute for k in self.attributes_of[index] if owners.get(k, index) == index]
                + [
                    attributes[k].attribute
                    for k, owner in owners.items()
                    if owner == index and attributes[k].object != index
                ],
            )
            for index in touched
        }

    # -- noun phrases

    def outside(self, index: int) -> list[str]:
        """Return the attributes of an object that stand outside its phrase."""
        return self._split_attributes[index][1]

    def said_inside(self, index: int) -> list[str]:
        """Return the attributes of an object that stand within its phrase."""
        return self._split_attributes[index][0]

    @cached_property
    def _split_attributes(self) -> list[tuple[list[str], list[str]]]:
        attributes: list[tuple[list[str], list[str]]] = [([], []) for _ in self.graph.objects]
        for attribute in self.graph.attributes:
            start, end = self.graph.objects[attribute.object].phrase
            outside = not (start <= attribute.span[0] and attribute.span[1] <= end)
            attributes[attribute.object][outside].append(attribute.attribute)
        return attributes

    def text(self, span: Span) -> str:
        """Return the characters of a span."""
        return self.caption[slice(*span)]

    def is_shut(self, index: int) -> bool:
        """Return whether no word may enter or leave the object's phrase, because it is `closed` or a proper name."""
        return self.closed[index] or self.graph.objects[index].fixed

    @cached_property
    def closed(self) -> list[bool]:
        """For each object, whether it, an attribute, a relation or a related object is negated: exchanges omit it."""
        graph = self.graph
        closed = [obj.negated for obj in graph.objects]
        for attribute in graph.attributes:
            closed[attribute.object] |= attribute.negated
        for relation in graph.relations:
            ends = (graph.objects[relation.subject], graph.objects[relation.object])
            if relation.negated or ends[0].negated or ends[1].negated:
                closed[relation.subject] = closed[relation.object] = True
        return closed

    def is_before_name(self, k: int) -> bool:
        """Return whether attribute k stands before the name in its object's phrase, and is no number or measure."""
        attribute = self.graph.attributes[k]
        obj = self.graph.objects[attribute.object]
        inside = obj.phrase[0] <= attribute.span[0] and attribute.span[1] <= obj.span[0]
        return inside and not attribute.attribute.isdigit() and not self.is_measure(k)

    def is_measure(self, k: int) -> bool:
        """Return whether attribute k is a measure: "group" of "a group of people"."""
        return _MEASURE_BEHIND.match(self.caption, self.graph.attributes[k].span[1]) is not None

    def _units(self, index: int) -> list[Unit]:
        obj = self.graph.objects[index]
        if (not self.attributes_of[index] and " " not in obj.name) or self.is_shut(index):
            return []
        attributes = self.graph.attributes
        single = [k for k in self.attributes_of[index] if self.is_before_name(k)]
        units = [Unit(index, self._widened(attributes[k].span), (k,)) for k in single]
        units += self._compounds(index)
        if len(units) < 2:
            return units
        run = [unit for unit in units if unit.compound <= 1 and unit.span[1] <= self.heads[index][0]]
        for low in range(len(run)):
            end = low
            while end + 1 < len(run) and self._adjacent(run[end].span, run[end + 1].span):
                end += 1
            if end > low:
                members = tuple(k for unit in run[low : end + 1] for k in unit.attributes)
                last = run[end]
                units.append(Unit(index, (run[low].span[0], last.span[1]), members, last.compound, last.name))
        return units

    def _compounds(self, index: int) -> list[Unit]:
        """Return the units of a compound name: the first word ("fire" of "fire hydrant"), and all but the last."""
        obj, head = self.graph.objects[index], self.heads[index]
        if " " not in obj.name:
            return []
        words = [m.span() for m in _WORD.finditer(self.caption, obj.span[0], head[0])]
        if not words or len(words) + 1 != len(obj.name.split()):  # "cell phone" is named "cellphone"
            return []
        spans = [(obj.span[0], words[n - 1][1]) for n in sorted({1, len(words)})]
        return [
            Unit(index, span, (), n, span) for n, span in zip(sorted({1, len(words)}), spans, strict=True)
        ]

    def behind(self, unit: Unit) -> Span:
        """Return the span of the object's name without the words that belong to the unit."""
        obj = self.graph.objects[unit.object]
        if not unit.compound:
            return obj.span
        return next((m.start(), obj.span[1]) for m in _WORD.finditer(self.caption, unit.span[1], obj.span[1]))

    def _widened(self, span: Span) -> Span:
        """Return the span of an adjective with the "very" or the like before it."""
        start = max(0, span[0] - 12)
        if not self.caption[start : span[0]].rstrip().lower().endswith(_INTENSIFIERS):
            return span
        before = _INTENSIFIER.search(self.caption, start, span[0])
        return (before.start(), span[1]) if before else span

    def _adjacent(self, one: Span, other: Span) -> bool:
        return one[1] <= other[0] and _JOINED.fullmatch(self.caption, one[1], other[0]) is not None

    @cached_property
    def rows(self) -> list[int]:
        """A number for each object; the members of one list ("a cat, a dog and a cow") have the same number."""
        objects = self.graph.objects
        order = sorted(range(len(objects)), key=lambda k: objects[k].phrase)
        row = list(range(len(objects)))
        for one, other in pairwise(order):
            end, start = objects[one].phrase[1], objects[other].phrase[0]
            if (
                end <= start
                and len(self.caption[end:start].split()) < 3
                and _ROW.fullmatch(self.caption, end, start)
            ):
                row[other] = row[one]
        return row

    def name_word(self, index: int) -> str:
        """Return the last word of the object's name, with synonyms mapped to one word."""
        return synonym(self.graph.objects[index].name.rsplit(" ", 1)[-1])
