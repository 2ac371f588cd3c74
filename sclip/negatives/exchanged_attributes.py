"""Attribute negatives: modifiers of two objects change places, or one modifier moves to another object."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from sclip.negatives.certainty import attributes_surely_change
from sclip.negatives.meaning import is_animate, synonym
from sclip.negatives.modifiers import is_verb_like, makes_name, may_be_adjective, modifier_kind, moves_freely
from sclip.negatives.planned_exchange import PlannedExchange
from sclip.negatives.reading import Reading, Unit
from sclip.scenegraph.graph import Span
from sclip.scenegraph.lexicon import COLOURS, verb_lemma

_SIZE = frozenset(
    """small large big little tiny huge giant tall short long old young new giant gigantic massive enormous beautiful
    pretty cute nice fresh colorful bright""".split()
)
_KINDS = {
    "colour": {synonym(word) for word in COLOURS},
    "size": {
        synonym(word) for word in "small large tiny giant gigantic massive enormous tall short long".split()
    },
    "age": frozenset("old young new elderly older younger adult baby".split()),
}
_JOINT_BEFORE = re.compile(r"(?:,|\band|/|-)\s*$")
_JOINT_BEHIND = re.compile(r"\s*(?:,|and\b|/|-)")


def modifier_plans(reading: Reading) -> Iterator[PlannedExchange]:
    """Yield the exchanges of two modifiers: "a red cup, a blue box" becomes "a blue cup, a red box"."""
    for first, second in reading.pairs:
        for one in reading.units[first]:
            for other in reading.units[second]:
                plan = _exchanged(reading, one, other)
                if plan is not None:
                    yield plan


def _exchanged(reading: Reading, one: Unit, other: Unit) -> PlannedExchange | None:
    owners = dict.fromkeys(one.attributes, other.object) | dict.fromkeys(other.attributes, one.object)
    certain = (
        not (one.compound or other.compound)
        and _is_certain(reading, owners)
        and _fits(reading, one, other)
        and _fits(reading, other, one)
    )
    if reading.only_certain and not certain:
        return None
    names = _names(reading, one, other)
    new = reading.relabelled(owners, {index: name for index, (name, _) in names.items()})
    if not reading.changes(new):
        return None
    lengths = abs(len(one.attributes) - len(other.attributes))
    rank = 0.5 + 0.2 * lengths + 1.5 * (bool(one.compound) + bool(other.compound))
    return PlannedExchange(
        "attribute", rank, one.span, other.span, certain=certain, owners=owners, names=names
    )


def _names(reading: Reading, one: Unit, other: Unit) -> dict[int, tuple[str, Span]]:
    """Return {object: (new name, old span of its first words)} if words of a compound name move; else {}."""
    names: dict[int, tuple[str, Span]] = {}
    if not (one.compound or other.compound):
        return names
    for unit, partner in ((one, other), (other, one)):
        words = reading.graph.objects[partner.object].name.split()[: partner.compound]
        words += reading.graph.objects[unit.object].name.split()[unit.compound :]
        starts = partner.name if partner.compound else reading.behind(unit)
        names[unit.object] = (" ".join(words), starts)
    return names


def move_plans(reading: Reading) -> Iterator[PlannedExchange]:
    """Yield the moves of a modifier to another object: "a black cat on a mat" becomes "a cat on a black mat"."""
    graph = reading.graph
    for source in range(reading.count):
        for unit in reading.units[source]:
            if unit.compound or not _stands_alone(reading, unit.span):
                continue
            for target in range(reading.count):
                if (
                    target == source
                    or reading.is_shut(target)
                    or reading.rows[target] == reading.rows[source]
                ):
                    continue
                owners = dict.fromkeys(unit.attributes, target)
                certain = _is_certain(reading, owners) and _may_move(reading, unit, target)
                if reading.only_certain and not certain:
                    continue
                if not reading.changes(reading.relabelled(owners)):
                    continue
                gap = _place_before(reading, target, reading.text(unit.span))
                piece = with_space(reading, unit.span)
                if piece[0] <= gap <= piece[1]:
                    continue
                crowd = len([k for k in reading.attributes_of[target] if reading.is_before_name(k)])
                rank = 2.0 + 0.5 * crowd + 0.2 * (len(unit.attributes) - 1)
                if graph.objects[target].phrase[0] == gap:  # no article: "on top of black mat"
                    rank += 0.3
                yield PlannedExchange("attribute", rank, piece, (gap, gap), certain=certain, owners=owners)


def _fits(reading: Reading, unit: Unit, other: Unit) -> bool:
    """Return whether `unit` reads well in the place of `other`: "brick" in "a stone wall", not in "a happy child"."""
    phrase = reading.graph.objects[unit.object].phrase
    if not reading.phrases.is_open(unit.object) or is_verb_like(reading.caption, unit.span, phrase):
        return False
    kinds = modifier_kind(reading.text(unit.span)), modifier_kind(reading.text(other.span))
    if kinds[0] != kinds[1]:
        if "noun" in kinds:
            return False
        if kinds[0] == "material" and not _takes_material(reading, other.object, other.span[1]):
            return False
    return moves_freely(reading.caption, unit.span)


def _may_move(reading: Reading, unit: Unit, target: int) -> bool:
    phrases, text = reading.phrases, reading.text(unit.span)
    if not phrases.gives(unit.object) or not phrases.takes(target):
        return False
    if is_verb_like(reading.caption, unit.span, reading.graph.objects[unit.object].phrase):
        return False
    kind = modifier_kind(text)
    if kind == "noun" or makes_name(text):
        return False
    if kind == "material" and not _takes_material(reading, target, None):
        return False
    return moves_freely(reading.caption, unit.span)


def _takes_material(reading: Reading, index: int, end: int | None) -> bool:
    """Return whether a material may stand directly before a noun: not "dirt children", not "stone yellow wall"."""
    obj = reading.graph.objects[index]
    if end is not None and reading.caption[end : obj.span[0]].strip():
        return False
    kinds = [modifier_kind(reading.text(unit.span)) for unit in reading.units[index]] if end is None else []
    return not is_animate(obj.name) and kinds.count("adjective") == len(kinds)


def _stands_alone(reading: Reading, span: Span) -> bool:
    return not _JOINT_BEFORE.search(
        reading.caption, max(0, span[0] - 6), span[0]
    ) and not _JOINT_BEHIND.match(reading.caption, span[1])


def _is_certain(reading: Reading, owners: dict[int, int]) -> bool:
    return not _clash(reading, owners) and attributes_surely_change(reading, owners)


def _clash(reading: Reading, owners: dict[int, int]) -> bool:
    """Return whether an attribute's new owner keeps an attribute of the same kind: a red cross that gets "blue"."""
    attributes = reading.graph.attributes
    for k, owner in owners.items():
        kind = _kind(attributes[k].attribute)
        for other in reading.attributes_of[owner]:
            if other not in owners and _kind(attributes[other].attribute) == kind:
                return True
    return False


@lru_cache(maxsize=1 << 16)
def _kind(attribute: str) -> str:
    words = {synonym(word) for word in attribute.split()}
    return next((name for name, members in _KINDS.items() if words & members), " ".join(sorted(words)))


def _place_before(reading: Reading, target: int, text: str) -> int:
    """Return the offset at which an adjective enters a phrase: a size before all modifiers, others before the nouns."""
    obj = reading.graph.objects[target]
    units = [unit for unit in reading.units[target] if len(unit.attributes) == 1]
    if units and text.lower().split()[0] in _SIZE:
        return units[0].span[0]
    nouns = [unit.span[0] for unit in units if modifier_kind(reading.text(unit.span)) != "adjective"]
    return min([obj.span[0], *nouns])


def with_space(reading: Reading, span: Span) -> Span:
    """Return the span of a modifier with the spaces after it."""
    end = span[1]
    while reading.caption[end : end + 1].isspace():
        end += 1
    return (span[0], end)


def predicate_plans(reading: Reading) -> Iterator[PlannedExchange]:
    """Yield the exchanges of two adjectives, one or both after a copula: "the cat is red and the dog is blue"."""
    attributes = reading.graph.attributes
    open_ = [
        k for k, a in enumerate(attributes) if a.object < reading.count and not reading.is_shut(a.object)
    ]
    predicative = [k for k in open_ if _is_predicate(reading, k)]
    attributive = [k for k in open_ if reading.is_before_name(k)]
    for position, one in enumerate(predicative):
        for other in (*predicative[position + 1 :], *attributive):
            if attributes[one].object == attributes[other].object:
                continue
            owners = {one: attributes[other].object, other: attributes[one].object}
            certain = _is_certain(reading, owners) and (
                other not in attributive or _may_trade(reading, one, other)
            )
            if reading.only_certain and not certain:
                continue
            if reading.changes(reading.relabelled(owners)):
                rank = 0.5 if other not in attributive else 1.5
                pieces = (attributes[one].span, attributes[other].span)
                yield PlannedExchange("attribute", rank, *pieces, certain=certain, owners=owners)


def _may_trade(reading: Reading, behind: int, before: int) -> bool:
    """Return whether two adjectives may change places: `behind` follows a copula, `before` stands before a noun."""
    attributes = reading.graph.attributes
    return reading.phrases.is_open(attributes[before].object) and all(
        modifier_kind(reading.text(attributes[k].span)) != "noun"
        and moves_freely(reading.caption, attributes[k].span)
        for k in (behind, before)
    )


def _is_predicate(reading: Reading, k: int) -> bool:
    """Return whether attribute k is an adjective (no verb, no number) that stands after the phrase of its object."""
    attribute = reading.graph.attributes[k]
    obj = reading.graph.objects[attribute.object]
    word = attribute.attribute.split(" ")[0]
    if attribute.span[0] < obj.phrase[1] or word.isdigit() or verb_lemma(word) != word:
        return False
    return may_be_adjective(word)
