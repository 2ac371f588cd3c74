"""Relation negatives: two objects change places (as whole phrases or as nouns alone), or two verbs change places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from sclip.negatives.agreement import changes_pronouns, inflect, pronoun_forms, verb_forms
from sclip.negatives.certainty import (
    are_apart,
    attributes_surely_change,
    objects_surely_change,
    reads_as_compound,
)
from sclip.negatives.meaning import is_animate, label, synonym
from sclip.negatives.modifiers import makes_name
from sclip.negatives.planned_exchange import PlannedExchange
from sclip.negatives.reading import Reading
from sclip.negatives.senses import TIMES, is_ground, is_mount, is_worn, same_act
from sclip.scenegraph.graph import Span
from sclip.scenegraph.lexicon import COLOURS, verb_lemma

_TIME_OR_PLACE = frozenset("in at on during".split())
_SAME_PLACE = frozenset("in at".split())
_WORD = re.compile(r"[^\W\d_]+")
_OF_BEHIND = re.compile(r"\s+of\b", re.IGNORECASE)
_THERE_IS = re.compile(r"\bthere(?:'s| is| are| was| were)\s+$", re.IGNORECASE)
_DEFINITE = re.compile(r"(?:the|his|her|its|their|this|that|these|those)\b", re.IGNORECASE)
_LIGHT_VERBS = frozenset("do make take give pay perform await attend say".split())
"""Verbs that say little without their object: "does a trick", "makes a call"."""


def object_plans(reading: Reading, far: bool) -> Iterator[PlannedExchange]:
    """Yield the exchanges of two objects that a relation joins; if `far`, of two that none joins, with worse ranks."""
    objects, relations = reading.graph.objects, reading.graph.relations
    related = {(r.subject, r.object) for r in relations if r.span[0] < r.span[1]}
    names = [f" {obj.name}" for obj in objects]
    closed, rows, rank = reading.closed, reading.rows, 2.0 if far else 0.0
    for first, second in reading.pairs:
        if (
            closed[first]
            or closed[second]
            or ((first, second) in related or (second, first) in related) == far
        ):
            continue
        if rows[first] == rows[second] or objects[first].fixed != objects[second].fixed:
            continue
        if names[first].endswith(names[second]) or names[second].endswith(names[first]):
            continue  # "a baseball player" and "a player"
        if _is_part(reading, first, second):
            continue  # "a glass of juice"
        clear = not (
            _alike(names[first], names[second])
            or _adjuncts(reading, first, second)
            or _tears(reading, first, second)
        )
        certain = clear and objects_surely_change(reading, first, second)
        fixed = objects[first].fixed
        if certain or not (fixed or reading.only_certain):
            whole = certain and reading.phrases.exchange(first, second)
            if whole or not reading.only_certain:
                yield from _whole(reading, first, second, rank, whole)
            if certain and reading.phrases.exchange_bodies(first, second):
                yield from _whole(reading, first, second, rank, certain, bodies=True)
        if not fixed and (clear or not reading.only_certain):
            yield from _heads(reading, first, second, rank + 1, clear, certain)


def _tears(reading: Reading, first: int, second: int) -> bool:
    """Return whether an exchange splits "a bottle of soda", "there is a" or "makes a call", or misplaces a pronoun."""
    objects, caption = reading.graph.objects, reading.caption
    for index, other in ((first, second), (second, first)):
        obj, partner = objects[index], objects[other]
        if _OF_BEHIND.match(caption, obj.phrase[1]):  # "a bottle [of soda]"
            return True
        if _THERE_IS.search(caption, 0, obj.phrase[0]) and _DEFINITE.match(caption, partner.phrase[0]):
            return True
        for k in reading.relations_of[index]:
            relation = reading.graph.relations[k]
            if relation.object == index and relation.predicate.partition(" ")[0] in _LIGHT_VERBS:
                return True
    if not reading.has_pronoun:
        return False
    # The pronoun would stand before its antecedent: "a face with food on her baby".
    return changes_pronouns(reading.graph, first, second) and not pronoun_forms(reading.graph, first, second)


def _whole(
    reading: Reading,
    first: int,
    second: int,
    rank: float,
    certain: bool,
    bodies: bool = False,
) -> Iterator[PlannedExchange]:
    """Yield the exchange of two phrases or, if `bodies`, of the phrases without their articles."""
    graph = reading.graph
    one, other = graph.objects[first], graph.objects[second]
    # "a man with his dog": the pronoun would stand before its antecedent.
    if _overlap(one.phrase, other.phrase) or reading.is_possessive(first) or reading.is_possessive(second):
        return
    new = {first: reading.labels[second], second: reading.labels[first]}
    outside = [reading.outside(first), reading.outside(second)]
    if outside[0] or outside[1]:  # attributes outside of the phrases stay where they are
        inside = [reading.said_inside(first), reading.said_inside(second)]
        new = {
            first: label(other.name, inside[1] + outside[0]),
            second: label(one.name, inside[0] + outside[1]),
        }
    if not reading.changes(new):
        return
    forms = pronoun_forms(graph, first, second) if reading.has_pronoun else {}
    for index, partner in ((first, second), (second, first)):
        if reading.plural[first] != reading.plural[second] or reading.phrases.determiner[index] == "of":
            forms |= verb_forms(graph, index, reading.plural[partner])
    yield PlannedExchange(
        "relation",
        rank,
        reading.phrases.body(first) if bodies else one.phrase,
        reading.phrases.body(second) if bodies else other.phrase,
        certain=certain,
        forms=forms,
        swap=(first, second),
        whole=True,
    )


def _heads(
    reading: Reading, first: int, second: int, rank: float, clear: bool, certain: bool
) -> Iterator[PlannedExchange]:
    graph = reading.graph
    one, other = graph.objects[first], graph.objects[second]
    inside = [reading.said_inside(first), reading.said_inside(second)]
    if not (inside[0] or inside[1] or reading.is_possessive(first) or reading.is_possessive(second)):
        return  # the exchange of whole phrases gives the same meaning
    if _overlap(one.span, other.span) or reading.head_plural[first] != reading.head_plural[second]:
        return
    if (
        clear
        and not certain
        and not any(map(reading.is_possessive, (first, second)))
        and are_apart(reading, first, second)
    ):
        owners = {
            k: target
            for source, target in ((first, second), (second, first))
            for k in reading.attributes_of[source]
            if reading.is_before_name(k)
        }
        if attributes_surely_change(reading, owners):
            certain = True
    certain = (
        certain
        and _name_alone(reading, first, second)
        and not reads_as_compound(reading, first, second, heads=True)
    )
    if reading.only_certain and not certain:
        return
    new = {
        first: label(other.name, inside[0] + reading.outside(first)),
        second: label(one.name, inside[1] + reading.outside(second)),
    }
    if not reading.changes(new):
        return
    forms = pronoun_forms(graph, first, second) if reading.has_pronoun else {}
    yield PlannedExchange(
        "relation",
        rank,
        one.span,
        other.span,
        certain=certain,
        forms=forms,
        swap=(first, second),
    )


def _name_alone(reading: Reading, first: int, second: int) -> bool:
    """Return whether two nouns may move without the words before them: not "trail" of "walking trail"."""
    return reading.phrases.exchange_heads(first, second) and not any(
        makes_name(reading.graph.attributes[k].attribute)
        for index in (first, second)
        for k in reading.attributes_of[index]
        if reading.is_before_name(k)
    )


def _adjuncts(reading: Reading, first: int, second: int) -> bool:
    """Return whether both objects only state a place: "at her computer on the desk", "in a pen at a zoo"."""
    placed = reading.placed
    names = [reading.graph.objects[k].name for k in (first, second)]
    for holder, one in placed[first]:
        for other_holder, other in placed[second]:
            if (holder in (other_holder, second) or other_holder == first) and (
                (one == other and one in _TIME_OR_PLACE) or (one in _SAME_PLACE and other in _SAME_PLACE)
            ):
                return True
            if holder == other_holder and all(map(_carries, names)):
                return True
            if holder == other_holder and {one, other} <= _TIME_OR_PLACE and any(map(_carries, names)):
                return True
    return False


def _carries(name: str) -> bool:
    """Return whether a person in or on this thing may be at another place too: clothes, a surfboard, a field."""
    return is_worn(name) or is_ground(name) or is_mount(name)


@lru_cache(maxsize=1 << 16)
def _alike(one: str, other: str) -> bool:
    """Return whether exchanging two names changes little: for a time, a color, or a surfer's board and wave."""
    heads = [name.rsplit(" ", 1)[-1] for name in (one, other)]
    colours = sum(head in COLOURS for head in heads)
    on_a_wave = any(head.endswith("wave") for head in heads) and any(head.endswith("board") for head in heads)
    return colours == 1 or on_a_wave or not TIMES.isdisjoint(heads)


def _is_part(reading: Reading, first: int, second: int) -> bool:
    one, other = reading.graph.objects[first].phrase, reading.graph.objects[second].phrase
    between = reading.caption[one[1] : other[0]] if one <= other else reading.caption[other[1] : one[0]]
    return between.strip().lower() == "of"


def verb_plans(reading: Reading) -> Iterator[PlannedExchange]:
    """Yield the exchanges of two verbs in the same form: "a dog surfing ... his owner swimming"."""
    for one, other in combinations(_verbs(reading), 2):
        lemmas = [verb_lemma(verb.text) for verb in (one, other)]
        if reading.closed[one.subject] or reading.closed[other.subject]:
            continue
        if one.form != other.form or synonym(lemmas[0]) == synonym(lemmas[1]):
            continue
        between = reading.caption[one.span[1] : other.span[0]].strip(" ,")
        if between in ("", "and", "or") or (
            one.subject == other.subject and not (one.relations or other.relations)
        ):
            continue  # "sits and smiles"
        transitive = [_takes_object(reading, verb) for verb in (one, other)]
        alike = transitive[0] == transitive[1]
        rank = 1.2 if alike else 2.2
        animate = all(is_animate(reading.graph.objects[verb.subject].name) for verb in (one, other))
        certain = (
            alike
            and one.form != "VBN"  # "painted ... positioned" is often true of both
            and not same_act(lemmas[0], lemmas[1], animate=animate)
            and (one.subject != other.subject or transitive[0])
        )
        if reading.only_certain and not certain:
            continue
        predicates = {
            k: " ".join([lemma, *reading.graph.relations[k].predicate.split()[1:]])
            for verb, lemma in ((one, lemmas[1]), (other, lemmas[0]))
            for k in verb.relations
        }
        verbs = {
            verb.attribute: partner.text
            for verb, partner in ((one, other), (other, one))
            if verb.attribute is not None
        }
        yield PlannedExchange(
            "relation", rank, one.span, other.span, certain=certain, verbs=verbs, predicates=predicates
        )


@dataclass(slots=True)
class _Verb:
    span: Span
    text: str
    form: str
    subject: int
    relations: list[int]
    attribute: int | None = None


def _takes_object(reading: Reading, verb: _Verb) -> bool:
    return any(reading.graph.relations[k].span == verb.span for k in verb.relations)


def _verbs(reading: Reading) -> list[_Verb]:
    graph = reading.graph
    verbs: dict[Span, _Verb] = {}
    for k, relation in enumerate(graph.relations):
        match = _WORD.match(reading.caption, relation.span[0], max(relation.span))
        if match is None:
            continue
        if match.span() in verbs:
            verbs[match.span()].relations.append(k)
            continue
        word = match.group().lower()
        if verb_lemma(word) == relation.predicate.split()[0] and (form := _form(word)):
            verbs[match.span()] = _Verb(match.span(), word, form, relation.subject, [k])
    for k, attribute in enumerate(graph.attributes):
        word = attribute.attribute
        if attribute.span in verbs or attribute.span[0] < graph.objects[attribute.object].phrase[1]:
            continue
        if reading.text(attribute.span).lower() == word and (form := _form(word)):
            verbs[attribute.span] = _Verb(attribute.span, word, form, attribute.object, [], k)
    return [verbs[span] for span in sorted(verbs)]


@lru_cache(maxsize=1 << 16)
def _form(word: str) -> str:
    """Return the Penn tag of a verb; "" means that it cannot be exchanged."""
    lemma = verb_lemma(word)
    if word.endswith("ing") and word != lemma:
        return "VBG"
    if word == lemma or lemma in ("be", "have"):
        return ""
    return next((tag for tag in ("VBZ", "VBN") if word in inflect(lemma, tag)), "")


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
