"""Replacements: a word of a caption is replaced by a word that excludes it.

`sclip.negatives.contrasts` lists the words that exclude each other. This module decides where one may replace another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from zlib import crc32

from sclip.negatives import contrasts
from sclip.negatives.agreement import article, in_number, is_plural
from sclip.negatives.contrasts import Options
from sclip.negatives.meaning import is_animate, synonym
from sclip.negatives.planned_exchange import Kind
from sclip.negatives.planned_replacement import Replacement, Slot
from sclip.negatives.reading import Reading
from sclip.negatives.replaced_objects import SPORTS, objects, sports_of
from sclip.negatives.senses import is_scene, is_vague, is_worn
from sclip.scenegraph.graph import SceneGraph, Span
from sclip.scenegraph.lexicon import NUMBERS

_ARTICLE_BEFORE = re.compile(r"(?<![\w'-])(an?)\s+$", re.IGNORECASE)
_JOINED_BEFORE = re.compile(r"[-–/&]\s*$|\band\s+$|,\s*$")
_JOINED_BEHIND = re.compile(r"\s*[-–/&]|\s+and\b|\s*,")
_NUMBER_STATED = re.compile(
    r",\s*(?:one|two|three|both|all)\b|\b(?:both|each|others?)\b|\bthe other\b", re.IGNORECASE
)
_PARTICLE_BEHIND = re.compile(r"\s+(?:up|down|out|off|over|around|away|still|back|together|in line)\b")
_ADVERB_BEFORE = re.compile(
    r"\b(?:all|up|down|right|just|directly|half|way|out|off|over|back)\s+$", re.IGNORECASE
)
_NOUN_BEHIND = re.compile(r"\s+([^\W\d_]+)")
_WORD = re.compile(r"[^\W_]+")

REPLACED: tuple[Kind, ...] = ("replaced object", "replaced attribute", "replaced relation")


def replacements(reading: Reading, kind: Kind, most: int) -> Iterator[Replacement]:
    """Yield up to `most` replacements of a kind in a random order, seeded by the caption. Frequent words come early."""
    words = _caption_words(reading)
    seed = crc32(reading.caption.encode(errors="replace"))
    slots = {"replaced object": objects, "replaced attribute": _attributes, "replaced relation": _relations}
    drawn = []
    for slot in slots[kind](reading):
        total = sum(weight for _, weight in slot.options)
        for word, weight in slot.options:
            if not words.isdisjoint((word, synonym(word), word.removesuffix("y"), word.removesuffix("en"))):
                continue
            point = crc32(f"{slot.span[0]}{word}".encode(), seed)
            drawn.append(
                (math.log((point + 1) / (1 << 32)) * total / weight, slot, word)
            )  # a draw without replacement: a word is inserted about as often as it is replaced
    drawn.sort(key=lambda entry: -entry[0])
    return (_made(reading, slot, word) for _, slot, word in drawn[:most])


def _caption_words(reading: Reading) -> set[str]:
    words = {word.lower() for word in _WORD.findall(reading.caption)}
    words |= {obj.name for obj in reading.graph.objects}
    return words | {synonym(word) for word in words}


def _made(reading: Reading, slot: Slot, word: str) -> Replacement:
    graph, caption = reading.graph, reading.caption
    forms: dict[Span, str] = {}
    old = caption[slice(*slot.span)]
    names: dict[int, str] = {}
    attributes: dict[int, str] = {}
    predicates: dict[int, str] = {}
    new = word
    if slot.kind == "replaced object":
        names = dict.fromkeys(slot.held, word + slot.rest)
        if is_plural(old.lower()):
            head, _, last = word.rpartition(" ")
            new = f"{head} {in_number(last, True)}".strip()
    elif slot.kind == "replaced attribute":
        if slot.form >= 0:
            new = contrasts.FORM_OF[word][slot.form]
        attributes = dict.fromkeys(slot.held, NUMBERS.get(new, new))
    else:
        if slot.form >= 0:
            new = contrasts.FORM_OF[word][slot.form]
            word = contrasts.LEMMAS.get(word, word)
        for k in slot.held:
            predicate = graph.relations[k].predicate
            start = 0 if slot.form >= 0 else predicate.rfind(slot.predicate)
            predicates[k] = predicate[:start] + word + predicate[start + len(slot.predicate) :]
        if slot.form >= 0:
            predicates |= _other_predicates(graph, slot, word)
    forms[slot.span] = _cased(new, old)
    before = _ARTICLE_BEFORE.search(caption, max(0, slot.span[0] - 6), slot.span[0])
    if before is not None:
        form = article(new)
        if form != before.group(1).lower():
            forms[before.span(1)] = before.group(1)[0] + form[1:]
    return Replacement(slot.kind, forms, slot.span, names, attributes, predicates)


def _other_predicates(graph: SceneGraph, slot: Slot, word: str) -> dict[int, str]:
    """Return {relation: new predicate} for a verb's further relations: "next to" in "sits on a bench next to a dog"."""
    subjects = {graph.relations[k].subject for k in slot.held}
    return {
        k: f"{word} {rest}"
        for k, r in enumerate(graph.relations)
        if r.subject in subjects and k not in slot.held and r.span[0] >= slot.span[1]
        for verb, _, rest in (r.predicate.partition(" "),)
        if verb == slot.predicate and rest
    }


def _cased(word: str, old: str) -> str:
    if old.isupper() and len(old) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if old[0].isupper() else word


# -- attributes


def _attributes(reading: Reading) -> Iterator[Slot]:
    graph, caption = reading.graph, reading.caption
    for k, attribute in enumerate(graph.attributes):
        index = attribute.object
        if index >= reading.count or attribute.negated or reading.is_shut(index) or reading.is_measure(k):
            continue
        if k and graph.attributes[k - 1].span == attribute.span:
            continue  # one word that describes two things needs one slot
        text = caption[slice(*attribute.span)].lower()
        name = graph.objects[index].name
        options = _attribute_options(reading, k, text, name)
        verb = -1
        if not options and text.endswith("ing") and text in contrasts.FORMS and is_animate(name):
            base, verb = contrasts.FORMS[text]
            options = contrasts.STATIC.get(base, ()) or contrasts.MOVING.get(base, ())
            if attribute.span[0] < graph.objects[index].phrase[1] or _PARTICLE_BEHIND.match(
                caption, attribute.span[1]
            ):
                continue
            next_word = _NOUN_BEHIND.match(caption, attribute.span[1])
            if next_word is not None and next_word.group(1).lower() not in contrasts.STAYING | {
                "in",
                "on",
                "and",
                "while",
            }:
                continue
        if not options or _is_bound(caption, attribute.span):
            continue
        members = tuple(j for j, other in enumerate(graph.attributes) if other.span == attribute.span)
        yield Slot("replaced attribute", attribute.span, options, members, form=verb)


def _attribute_options(reading: Reading, k: int, text: str, name: str) -> Options:
    attribute = reading.graph.attributes[k]
    index = attribute.object
    if attribute.attribute.isdigit():
        if not reading.head_plural[index] or _NUMBER_STATED.search(reading.caption):
            return ()
        if (
            reading.phrases.determiner[index] != "many"
            or attribute.span[0] != reading.graph.objects[index].phrase[0]
        ):
            return ()
        return contrasts.NUMBERS.get(text) or contrasts.DIGITS.get(text, ())
    before = reading.is_before_name(k)
    if before and not reading.phrases.is_open(index):
        return ()
    if text in contrasts.COLOURS:
        siblings = [reading.graph.attributes[j].attribute for j in reading.attributes_of[index] if j != k]
        if any(word in contrasts.COLOURS for other in siblings for word in other.split()):
            return ()
        return contrasts.COLOURS[text]
    if not before:
        return ()
    if text in SPORTS:
        return sports_of(text, name)
    living = is_animate(name)
    if living:
        if name in ("child", "baby", "kid", "boy", "girl") and text not in (
            "male",
            "female",
            "smiling",
            "crying",
        ):
            return ()
        return contrasts.OPPOSITES_OF_LIVING.get(text, ())
    return (
        contrasts.OPPOSITES_OF_THINGS.get(text)
        or contrasts.MATERIALS.get(text)
        or contrasts.PATTERNS.get(text, ())
    )


def _is_bound(caption: str, span: Span) -> bool:
    """Return whether a word is part of a longer one or of a list: "black-and-white", "red and blue"."""
    return (
        _JOINED_BEFORE.search(caption, max(0, span[0] - 5), span[0]) is not None
        or _JOINED_BEHIND.match(caption, span[1]) is not None
    )


# -- relations


def _relations(reading: Reading) -> Iterator[Slot]:
    graph, caption = reading.graph, reading.caption
    done: set[Span] = set()
    for relation in graph.relations:
        span = relation.span
        if span in done or span[0] == span[1] or relation.negated:
            continue
        done.add(span)
        members = tuple(k for k, other in enumerate(graph.relations) if other.span == span)
        ends = {end for k in members for end in (graph.relations[k].subject, graph.relations[k].object)}
        if any(end >= reading.count or reading.closed[end] for end in ends):
            continue
        text = caption[slice(*span)].lower()
        first, _, rest = text.partition(" ")
        if any(
            other.span != span and other.span[0] < span[1] and span[0] < other.span[1]
            for other in graph.relations
        ):
            continue
        yield from _prepositions(reading, members, span, text)
        if first in contrasts.FORMS:
            yield from _verbs(reading, members, span, first, rest)


def _prepositions(reading: Reading, held: tuple[int, ...], span: Span, text: str) -> Iterator[Slot]:
    graph, caption = reading.graph, reading.caption
    relation = graph.relations[held[0]]
    words = text.split(" ")
    for side, other in contrasts.SIDES.items():
        if (
            side in words
            and side in relation.predicate.split()
            and words.count(side) == 1
            and other not in words
        ):
            if words[:2] == ["on", "top"]:
                continue
            offset = span[0] + text.index(side)
            yield Slot("replaced relation", (offset, offset + len(side)), ((other, 1.0),), held, side)
            return
    verb = 0
    if words[0] in contrasts.PLACE_VERBS or words[1:] in (
        ["up"],
        ["down"],
        ["during"],
        ["before"],
        ["after"],
    ):
        verb = 1
    preposition = " ".join(words[verb:])
    options = contrasts.PLACES.get(preposition)
    if not options or not relation.predicate.endswith(preposition):
        return
    start = span[1] - len(preposition)
    if _ADVERB_BEFORE.search(caption, max(0, start - 10), start):
        return
    for k in held:
        r = graph.relations[k]
        name = graph.objects[r.object].name
        options = tuple(
            option for option in options if _is_elsewhere(reading, preposition, option[0], r.object, name)
        )
        if (
            graph.objects[r.object].phrase[0] < span[1]
            or is_worn(graph.objects[r.subject].name)
            or is_worn(name)
        ):
            return
    yield Slot("replaced relation", (start, span[1]), options, held, preposition)


def _is_elsewhere(reading: Reading, preposition: str, other: str, index: int, name: str) -> bool:
    """Return whether `other` can replace `preposition` before object `index`, called `name`, and is then false."""
    head = name.rsplit(" ", 1)[-1]
    phrases = reading.phrases
    if is_vague(name) or head in contrasts.NO_SUPPORT:
        return False
    if preposition in ("up", "down"):
        return head in contrasts.SLOPES
    if preposition == "through":
        return is_scene(name)
    if preposition in ("during", "before", "after"):
        return True
    if not (phrases.determiner[index] or reading.head_plural[index]):
        return False
    if preposition == "at":
        return head in contrasts.AT_ONLY
    if is_scene(name):
        return preposition not in (
            "on", "in", "at", "around", "next to", "near", "by", "beside", "between",
        ) or (preposition in ("next to", "near", "beside") and other == "in")  # fmt: skip
    return not (preposition == "between" and not reading.head_plural[index])


def _verbs(reading: Reading, held: tuple[int, ...], span: Span, word: str, rest: str) -> Iterator[Slot]:
    graph, caption = reading.graph, reading.caption
    base, form = contrasts.FORMS[word]
    lemma = contrasts.LEMMAS.get(base, base)
    end = span[0] + len(word)
    relations = [graph.relations[k] for k in held]
    if any(r.predicate.split(" ")[0] != lemma for r in relations) or (form == 0 and span[0] == 0):
        return
    if rest:
        if not all(is_animate(graph.objects[r.subject].name) for r in relations):
            return
        options = contrasts.MOVING.get(base, ())
        is_static = base in contrasts.STATIC
        scenes = rest in ("in", "on") and all(is_scene(graph.objects[r.object].name) for r in relations)
        if is_static:
            options = contrasts.STATIC[base]
        if rest not in contrasts.STAYING and not scenes:
            options = tuple(option for option in options if (option[0] in contrasts.STATIC) == is_static)
        elif not is_static:
            options = (*contrasts.STATIC_FROM_MOVING.get(base, ()), *options)
    else:
        names = [graph.objects[r.object].name.rsplit(" ", 1)[-1] for r in relations]
        options = tuple(
            option
            for things, alternatives in contrasts.TRANSITIVE.get(base, ())
            if things is None or all(name in things for name in names)
            for option in alternatives
        )
        if not all(
            graph.objects[r.subject].span[1] <= span[0] < graph.objects[r.object].span[0] for r in relations
        ):
            return
    if options and not _PARTICLE_BEHIND.match(caption, end) and not _is_bound(caption, (span[0] + 1, end)):
        yield Slot("replaced relation", (span[0], end), options, held, lemma, form)
