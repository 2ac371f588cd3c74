"""Attribute negatives of quantity: "two cats and a dog" becomes "a cat and two dogs"; nouns and verbs agree.

A quantity is a number, an article, "several", "a bunch of", or nothing before a plural. Two quantities change places
if their values differ: "1", another number, or "many".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from sclip.negatives.agreement import in_number, verb_forms
from sclip.negatives.exchanged_attributes import with_space
from sclip.negatives.planned_exchange import PlannedExchange
from sclip.negatives.reading import Reading
from sclip.scenegraph.graph import Span

_ARTICLE = re.compile(r"(?:an?|one)(?=\s)", re.IGNORECASE)
_MANY = re.compile(r"(?:several|many|some|a few|numerous)(?=\s)", re.IGNORECASE)
_MEASURE = re.compile(
    r"(?:a (?:large |small |big |whole )?)?(group|bunch|couple|pairs?|dozens|number|herd|flock|lot|row"
    r"|pack|variety) of(?=\s)",
    re.IGNORECASE,
)
_INVARIANT = frozenset("sheep deer fish aircraft bison salmon".split())
_PAIRED = frozenset(
    """jeans short glass sunglass goggle scissor trouser clothes headphone stair sock shoe ski tight pajama
    glove earring wing leg eye hand arm topping vegetable food""".split()
)
"""Nouns whose plural may name one thing ("jeans") or mean something else than the singular ("glasses")."""

_IN_APPOSITION = re.compile(
    r",\s*(?:one|two|three|both|all)\b|\b(?:both|each|others?|them|these|those|they|their)\b", re.IGNORECASE
)
_NUMBER_STATED = re.compile(
    r"\b(?:these|those|they|this|that|it|he|she)(?:\s+(?:is|are|was|were)|'s|'re)\s+$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Quantity:
    object: int
    span: Span
    """Characters of the quantity; empty before a bare plural."""
    value: str
    """"1", another number, or "many"."""
    attributes: tuple[int, ...]


def quantity_plans(reading: Reading) -> Iterator[PlannedExchange]:
    """Yield the exchanges of two quantities."""
    quantities = [q for q in (_read(reading, index) for index in range(reading.count)) if q is not None]
    for one, other in combinations(quantities, 2):
        if one.value == other.value or "" in (one.value, other.value):
            continue
        plan = _exchanged(reading, one, other)
        if plan is not None:
            yield plan


def _read(reading: Reading, index: int) -> _Quantity | None:
    obj = reading.graph.objects[index]
    if reading.is_shut(index):
        return None
    start = obj.phrase[0]
    length, value = _opening(reading.caption[start : obj.span[0]])
    if value:
        span = start, start + length
        if (value == "1") == reading.head_plural[index]:
            return None  # "a tennis shoes", "some food"
        return _Quantity(index, span, value, _held(reading, index, span))
    for k in reading.attributes_of[index]:
        attribute = reading.graph.attributes[k]
        if attribute.attribute.isdigit() and attribute.span[0] == start:
            return _Quantity(index, attribute.span, attribute.attribute, (k,))
    units = reading.units[index]
    if reading.head_plural[index] and start == min([obj.span[0], *(unit.span[0] for unit in units)]):
        return _Quantity(index, (start, start), "many", ())
    return None


@lru_cache(maxsize=1 << 16)
def _opening(phrase: str) -> tuple[int, str]:
    """Return length and value ("1", "2", "many") of the quantity at the start of a phrase; (0, "") means none."""
    measure = _MEASURE.match(phrase)
    if measure is not None:
        return measure.end(), "2" if measure.group(1).lower() in ("couple", "pair") else "many"
    for pattern, value in ((_MANY, "many"), (_ARTICLE, "1")):
        match = pattern.match(phrase)
        if match is not None:
            return match.end(), value
    return 0, ""


def _held(reading: Reading, index: int, span: Span) -> tuple[int, ...]:
    return tuple(
        k
        for k in reading.attributes_of[index]
        if span[0] <= reading.graph.attributes[k].span[0] and reading.graph.attributes[k].span[1] <= span[1]
    )


def _exchanged(reading: Reading, one: _Quantity, other: _Quantity) -> PlannedExchange | None:
    names = [reading.name_word(q.object) for q in (one, other)]
    described = reading.units[one.object] or reading.units[other.object]
    if names[0] == names[1] and not described and reading.rows[one.object] == reading.rows[other.object]:
        return None
    pieces = [one.span, other.span]
    for k, partner in ((0, other), (1, one)):
        if partner.span[0] == partner.span[1]:
            pieces[k] = with_space(reading, pieces[k])
    if pieces[0][1] > pieces[1][0] and pieces[1][1] > pieces[0][0]:
        return None
    values = {one.value, other.value}
    certain = (
        (values == {"1", "many"} or "many" not in values)
        and _PAIRED.isdisjoint(names)
        and not any(q.span[0] == q.span[1] for q in (one, other))  # a bare plural, "cats", states no number
    )
    if reading.only_certain and not certain:
        return None
    forms: dict[Span, str] = {}
    for quantity, partner in ((one, other), (other, one)):
        plural = partner.value != "1"
        if plural == (quantity.value != "1"):
            continue
        forms |= verb_forms(reading.graph, quantity.object, plural)
        span = reading.heads[quantity.object]
        word = reading.text(span)
        form = in_number(word.lower(), plural)
        if plural and form == word.lower() and form not in _INVARIANT:
            return None  # a noun that cannot be counted
        if form != word.lower():
            forms[span] = form.capitalize() if word[0].isupper() else form
    owners = dict.fromkeys(one.attributes, other.object) | dict.fromkeys(other.attributes, one.object)
    rank = 0.6 if one.value.isdigit() and other.value.isdigit() else 1.0
    if forms and not all(_counts_freely(reading, q) for q in (one, other)):
        certain = False
    return PlannedExchange(
        "attribute", rank, pieces[0], pieces[1], certain=certain, forms=forms, owners=owners
    )


def _counts_freely(reading: Reading, quantity: _Quantity) -> bool:
    """Return whether a phrase may change its number: no other word of the caption states it ("these are two cats")."""
    start, end = reading.graph.objects[quantity.object].phrase
    if not reading.phrases.is_open(quantity.object) or reading.heads[quantity.object][0] < start:
        return False
    if _NUMBER_STATED.search(reading.caption, max(0, start - 16), start):
        return False
    return _IN_APPOSITION.search(reading.caption, end) is None
