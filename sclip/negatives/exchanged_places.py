"""Relation negatives of place: "a cat on a chair, a dog under a bed" becomes "a cat under a chair, a dog on a bed"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from sclip.negatives.planned_exchange import PlannedExchange
from sclip.negatives.reading import Reading
from sclip.negatives.senses import contradict, is_vague, place_of
from sclip.scenegraph.graph import Span

_PREPOSITION = re.compile(
    r"\b(?:on top of|in front of|in back of|to the (?:left|right) of|on the (?:left|right)(?: side)? of|atop"
    r"|on|under|underneath|beneath|below|above|over|behind|inside)$",
    re.IGNORECASE,
)


def place_plans(reading: Reading) -> Iterator[PlannedExchange]:
    """Yield the exchanges of two prepositions of place."""
    relations = reading.graph.relations
    prepositions = _prepositions(reading)
    for (one, one_ks), (other, other_ks) in combinations(sorted(prepositions.items()), 2):
        texts = [_preposition(reading, ks[0]) for ks in (one_ks, other_ks)]
        if place_of(texts[0]) == place_of(texts[1]):
            continue
        pairs = [{(relations[k].subject, relations[k].object) for k in ks} for ks in (one_ks, other_ks)]
        if pairs[0] & pairs[1]:
            continue
        predicates: dict[int, str] = {}
        for ks, (old, new) in ((one_ks, texts), (other_ks, texts[::-1])):
            predicates |= {k: relations[k].predicate.removesuffix(old) + new for k in ks}
        certain = all(_surely_fails(reading, k, new) for k, new in predicates.items())
        if reading.only_certain and not certain:
            continue
        yield PlannedExchange("relation", 1.6, one, other, certain=certain, predicates=predicates)


def _prepositions(reading: Reading) -> dict[Span, list[int]]:
    prepositions: dict[Span, list[int]] = {}
    for k, relation in enumerate(reading.graph.relations):
        if max(relation.subject, relation.object) >= reading.count or reading.closed[relation.subject]:
            continue
        if not place_of(relation.predicate):
            continue
        match = _PREPOSITION.search(reading.caption, *relation.span)
        if match is not None:
            prepositions.setdefault(match.span(), []).append(k)
    return prepositions


def _preposition(reading: Reading, k: int) -> str:
    """Return the preposition of relation k as the graph writes it."""
    predicate = reading.graph.relations[k].predicate
    verb, _, rest = predicate.partition(" ")
    return rest if rest and not place_of(verb) and verb != "at" else predicate


def _surely_fails(reading: Reading, k: int, predicate: str) -> bool:
    relation = reading.graph.relations[k]
    names = [reading.graph.objects[index].name for index in (relation.subject, relation.object)]
    return not any(map(is_vague, names)) and contradict(relation.predicate, predicate, names[1])
