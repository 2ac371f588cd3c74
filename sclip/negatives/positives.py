"""Hard positives: other wordings of a caption that keep its scene graph.

A model that is trained only against changed words learns that every changed word changes the meaning (Kamath et al.
2024, "The Hard Positive Truth about Vision-Language Compositionality"). A positive changes words and keeps the meaning:
it states a place from the other side, reorders nouns or adjectives around "and", turns a verb into the passive, puts an
adjective after its noun, or uses a synonym. It is used only if its scene graph says the same as the caption's
(`says_the_same`): synonyms, places stated from the other side and symmetric relations count as equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from sclip.negatives.agreement import PRONOUNS, article
from sclip.negatives.exchange import Exchange, count_sentences
from sclip.negatives.meaning import is_animate
from sclip.negatives.naturalness import strangeness
from sclip.negatives.reading import Reading
from sclip.negatives.same_graph import says_the_same
from sclip.negatives.senses import is_scene
from sclip.negatives.wordings import (
    DESCRIPTIVE,
    KINDS_OF,
    NOT_BEHIND,
    NOT_BESIDE,
    OF_THINGS,
    PARTICIPLES,
    PLACES,
    ROWS,
    STATES,
    SYNONYM,
    SYNONYMS,
)
from sclip.scenegraph.graph import Relation, SceneGraph, Span
from sclip.scenegraph.lexicon import COLOURS
from sclip.scenegraph.window import Window, parsed_part
from sclip.seeding import uniform

PositiveKind = Literal["place", "row", "adjectives", "passive", "clause", "synonym", "foreign"]

MOST_STRANGE = 3.0
"""Maximum strangeness of a drawn wording, in log-odds; nobody would write the stranger ones."""
MOST_TRIED = 3  # wordings of a caption that are parsed in one epoch
_MOST_OBJECTS = 12
_CONTEXT = 4  # words on each side of an edit that are scored with it

_OPENING = re.compile(
    r"(?:^|(?<=[.!?])\s+|\b(?:photo|photograph|picture|image|view|shot|close-up|closeup|painting|drawing) of\s+)$",
    re.IGNORECASE,
)
_ROW_OPENING = re.compile(
    r"(?:^|(?<=[.!?])\s+|\b(?:of|with|holding|carrying|wearing|eating|selling|featuring|showing|has|have|including|"
    r"contains|containing|there are)\s+)$",
    re.IGNORECASE,
)
_ENDING = re.compile(r"\s*(?:$|[.!?](?:\s|$))")
_SCENE_BEHIND = re.compile(
    r"\s+(?:in|on|at|near|through|down|along|across)\s+(?:an?|the)\s+(?:[\w-]+\s+){0,2}?([\w-]+)\s*(?:$|[.!?])",
    re.IGNORECASE,
)
_ROW_BEHIND = re.compile(
    r"\s+(?:(?:are|were|in|on|at|near|beside|behind|under)\b|next to\b)|" + _ENDING.pattern, re.IGNORECASE
)
_DETERMINED = re.compile(
    r"(an?|the|two|three|four|five|six|some|several|many|\d+)\b(?!\s+(?:of|other)\b)", re.IGNORECASE
)
_BE = re.compile(r"\s+(is|are)\s+", re.IGNORECASE)
_GAP = re.compile(r"\s+")
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)
_LISTED_BEFORE = re.compile(r"(?:,|\band|\bor|&)\s*$", re.IGNORECASE)
_LISTED_BEHIND = re.compile(r"\s*(?:,|and\b|or\b|&|-)", re.IGNORECASE)
_INDEFINITE = re.compile(r"(?:^|\s)(an?|two|three|four|some|several)$", re.IGNORECASE)
_CLAUSE = re.compile(r"\s+(?:that|which)\s+(?:is|are)\s+$", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Positive:
    """Another wording of a caption."""

    caption: str
    kind: PositiveKind
    graph: SceneGraph


Wording = tuple[str, PositiveKind]
Parse = Callable[[Sequence[str]], Sequence[SceneGraph]]  # type of `Parser.parse`


def wordings(graph: SceneGraph) -> list[Wording]:
    """Return the other wordings that the rules find; they are not parsed yet."""
    text, rest = parsed_part(graph.caption, graph.words)
    if not graph.objects:
        return []
    reading = Reading(graph, _MOST_OBJECTS)
    kinds: dict[str, PositiveKind] = {}
    makers: list[tuple[PositiveKind, Callable[[Reading, str], Iterator[str]]]] = [
        ("adjectives", _adjectives), ("synonym", _synonyms), ("clause", _clauses),
    ]  # fmt: skip
    if PRONOUNS.isdisjoint(_WORDS.findall(text.lower())):
        makers += [("place", _places), ("row", _rows), ("passive", _passives)]
    for kind, maker in makers:
        for other in maker(reading, text):
            if other.casefold() != text.casefold():
                kinds.setdefault(other + rest, kind)
    return list(kinds.items())


def draw_positives(
    windows: Sequence[Window], identities: Sequence[str], parse: Parse, *, seed: int, epochs: Sequence[int]
) -> list[Positive | None]:
    """Return a positive of each sample for its epoch; None if no wording that is tried says the same.

    `parse` is a method of the parser that made the graphs.
    """
    orders = [
        islice(_in_order(window, seed, epoch, identity), MOST_TRIED)
        for window, identity, epoch in zip(windows, identities, epochs, strict=True)
    ]
    positives: list[Positive | None] = [None] * len(orders)
    pending = list(range(len(orders)))
    while tried := [(k, wording) for k in pending if (wording := next(orders[k], None))]:
        for (k, (text, kind)), graph in zip(tried, parse([w[0] for _, w in tried]), strict=True):
            if says_the_same(windows[k].graph, graph):
                positives[k] = Positive(text, kind, graph)
        pending = [k for k, _ in tried if positives[k] is None]
    return positives


def _in_order(window: Window, seed: int, epoch: int, identity: str) -> Iterator[Wording]:
    graph = window.graph

    def key(wording: Wording) -> tuple[float, float]:  # all kinds are equally likely
        return (
            uniform("kind of positive", seed, epoch, f"{identity}\x1f{wording[1]}"),
            uniform("positive", seed, epoch, f"{identity}\x1f{wording[0]}"),
        )

    for text, kind in sorted(wordings(graph), key=key):
        if window.holds(text) and _stranger(graph.caption, text) < MOST_STRANGE:
            yield text, kind


def _stranger(caption: str, text: str) -> float:
    """Return how much stranger a text reads than its caption, in log-odds."""
    one, other = caption.split(" "), text.split(" ")  # only the changed words and their context count
    most = min(len(one), len(other))
    first = next((k for k in range(most) if one[k] != other[k]), most)
    last = next((k for k in range(most - first) if one[-1 - k] != other[-1 - k]), most - first)
    first, last = max(0, first - _CONTEXT), max(0, last - _CONTEXT)
    return strangeness(" ".join(other[first : len(other) - last])) - strangeness(
        " ".join(one[first : len(one) - last])
    )


# -- the kinds


def _between(reading: Reading, relation: Relation) -> tuple[Span, Span] | None:
    """Return both phrases of a relation like "[photo of] a dog [is] on a bed"; None for any other order of words."""
    graph, caption = reading.graph, reading.caption
    first, second = (graph.objects[k] for k in (relation.subject, relation.object))
    start, end = relation.span
    if max(relation.subject, relation.object) >= reading.count or start == end or relation.negated:
        return None
    if not first.phrase[1] < start < end < second.phrase[0] or relation.subject == relation.object:
        return None
    if reading.closed[relation.subject] or reading.closed[relation.object] or first.fixed or second.fixed:
        return None
    between = caption[first.phrase[1] : start]
    if not (between.isspace() or _BE.fullmatch(between)) or not caption[end : second.phrase[0]].isspace():
        return None
    return (first.phrase, second.phrase) if _opens(_OPENING, caption, first.phrase[0]) else None


def _opens(opening: re.Pattern[str], caption: str, offset: int) -> bool:
    return opening.search(caption, max(0, offset - 24), offset) is not None


def _ends(caption: str, offset: int) -> bool:
    return _ENDING.match(caption, offset) is not None


def _aux(reading: Reading, old: Span, index: int) -> str:
    """Return " is " or " are " for object `index`; " " if the caption has neither at `old`."""
    copula = _BE.fullmatch(reading.caption, *old)
    if copula is None:
        return " "
    return " are " if reading.plural[index] else " is "


def _places(reading: Reading, caption: str) -> Iterator[str]:
    """Yield "a lamp above a bed" as "a bed below a lamp"."""
    for relation in reading.graph.relations:
        other = PLACES.get(caption[slice(*relation.span)].lower())
        phrases = _between(reading, relation) if other else None
        if phrases is None or not _ends(caption, phrases[1][1]):
            continue
        if not all(_DETERMINED.match(caption, *phrase) for phrase in phrases):
            continue
        if is_scene(reading.graph.objects[relation.object].name):
            continue
        gap = (phrases[0][1], relation.span[0])
        forms = {gap: _aux(reading, gap, relation.object), relation.span: str(other)}
        yield Exchange(caption, *phrases, forms).text


def _rows(reading: Reading, caption: str) -> Iterator[str]:
    """Yield "a cat and a dog" as "a dog and a cat"."""
    objects = reading.graph.objects
    for one, other in reading.pairs:
        first, second = sorted((objects[one], objects[other]), key=lambda obj: obj.phrase)
        if first.phrase[1] >= second.phrase[0] or first.fixed or second.fixed or reading.closed[one]:
            continue
        if reading.closed[other] or not _AND.fullmatch(caption, first.phrase[1], second.phrase[0]):
            continue
        if not _opens(_ROW_OPENING, caption, first.phrase[0]) or not _ROW_BEHIND.match(
            caption, second.phrase[1]
        ):
            continue
        determined = [_DETERMINED.match(caption, *obj.phrase) is not None for obj in (first, second)]
        bare = all(obj.phrase == obj.span for obj in (first, second))
        if not (all(determined) or bare) or first.name == second.name:
            continue
        heads = {obj.name.rsplit(" ", 1)[-1] for obj in (first, second)}
        if any(heads <= row for row in ROWS) or not heads.isdisjoint(COLOURS):
            continue
        yield Exchange(caption, first.phrase, second.phrase).text


def _adjectives(reading: Reading, caption: str) -> Iterator[str]:
    """Yield "a red and white bus" as "a white and red bus"."""
    attributes = reading.graph.attributes
    for k, one in enumerate(attributes):
        for other in attributes[k + 1 :]:
            if one.object != other.object or reading.is_shut(one.object) or one.span[1] >= other.span[0]:
                continue
            words = {one.attribute, other.attribute}
            if not _AND.fullmatch(caption, one.span[1], other.span[0]) or not words <= COLOURS | DESCRIPTIVE:
                continue
            if _LISTED_BEFORE.search(caption, max(0, one.span[0] - 6), one.span[0]):
                continue
            if _LISTED_BEHIND.match(caption, other.span[1]) or caption[one.span[0] - 1 : one.span[0]] == "-":
                continue
            if words == {"black", "white"} and reading.name_word(one.object) == "photo":
                continue
            yield Exchange(caption, one.span, other.span).text


def _passives(reading: Reading, caption: str) -> Iterator[str]:
    """Yield "a man rides a horse" as "a horse is ridden by a man", and "riding" likewise."""
    graph = reading.graph
    for relation in graph.relations:
        base = relation.predicate
        phrases = _between(reading, relation) if base in PARTICIPLES else None
        if phrases is None:
            continue
        names = [graph.objects[k].name for k in (relation.subject, relation.object)]
        if not is_animate(names[0]) and base not in OF_THINGS:
            continue
        if not all(_DETERMINED.match(caption, *phrase) for phrase in phrases):
            continue
        scene = _SCENE_BEHIND.match(caption, phrases[1][1])
        if not _ends(caption, phrases[1][1]) and not (scene and is_scene(scene.group(1).lower())):
            continue
        ing, participle = PARTICIPLES[base]
        verb = caption[slice(*relation.span)].lower()
        gap = (phrases[0][1], relation.span[0])
        be = _aux(reading, gap, relation.object)
        plural = reading.plural[relation.object]
        if verb == ing:
            being = "" if base in STATES and not be.strip() else "being "
            passive = f"{being}{participle} by"
        elif be.strip() or " " in verb:
            continue
        else:
            passive = f"{'are' if plural else 'is'} {participle} by"
        yield Exchange(caption, *phrases, {gap: be, relation.span: passive}).text


def _clauses(reading: Reading, caption: str) -> Iterator[str]:
    """Yield "a red ball" as "a ball that is red" at the end of a sentence, and the reverse."""
    graph = reading.graph
    for k, attribute in enumerate(graph.attributes):
        index = attribute.object
        if index >= reading.count or reading.is_shut(index) or attribute.attribute not in DESCRIPTIVE:
            continue
        obj, span = graph.objects[index], attribute.span
        if obj.name.rsplit(" ", 1)[-1] in KINDS_OF:
            continue
        if attribute.attribute in (
            "old",
            "new",
            "open",
        ):  # "the old town", "an open session" are kinds of their own
            continue
        if len(reading.attributes_of[index]) > 1 or not _ends(caption, max(obj.phrase[1], span[1])):
            continue
        if reading.is_before_name(k) and caption[span[1] : obj.span[0]].isspace():
            before = caption[: span[0]].rstrip()
            determiner = _INDEFINITE.search(before)
            if (
                determiner is None
                or (determiner.group(1).lower() in ("a", "an")) == reading.head_plural[index]
            ):
                continue
            words = f"that {'are' if reading.plural[index] else 'is'} {caption[slice(*span)].lower()}"
            yield _with_article(
                before, f"{caption[obj.span[0] : obj.phrase[1]]} {words}{caption[obj.phrase[1] :]}"
            )
        elif _CLAUSE.fullmatch(caption, obj.phrase[1], span[0]):
            before = caption[: obj.span[0]].rstrip()
            described = f"{caption[slice(*span)]} {caption[obj.span[0] : obj.phrase[1]]}{caption[span[1] :]}"
            yield _with_article(before, described)


def _with_article(before: str, behind: str) -> str:
    """Join two texts, and make an article at the end of the first text fit the second."""
    words = before.rsplit(None, 1)
    if words and words[-1].lower() in ("a", "an"):
        word = _WORDS.match(behind)
        form = article(word.group() if word else behind)
        before = before[: -len(words[-1])] + words[-1][0] + form[1:]
    return f"{before} {behind}"


def _synonyms(reading: Reading, caption: str) -> Iterator[str]:
    fixed = [obj.phrase for obj in reading.graph.objects if obj.fixed]
    is_title = count_sentences(caption) == 0
    for match in SYNONYM.finditer(caption):
        start, end = match.span()
        old = match.group()
        new = SYNONYMS[old.lower()]
        not_before, not_after = NOT_BESIDE.get(old.lower()), NOT_BEHIND.get(old.lower())
        if any(low <= start < high for low, high in fixed) or is_title:
            continue
        if (not_before and not_before.match(caption, end)) or (
            not_after and not_after.search(caption[:start].lower())
        ):
            continue
        if new.lower() in caption.lower() or (old[0].isupper() and not _opens(_OPENING, caption, start)):
            continue
        form = new[0].upper() + new[1:] if old[0].isupper() else new
        yield _with_article(caption[:start].rstrip(), form + caption[end:]) if start else form + caption[end:]
