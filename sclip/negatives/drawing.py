"""Scene graph -> its valid exchanges and replacements, each with its caption and its aligned graph.

Exchanges (method, section 2) are of two kinds: relation negatives exchange two objects or two verbs, attribute
negatives exchange or move modifiers and numbers. An exchange is kept where the caption then says something else
(`Reading.changes`). Replacements (section 9) are of an object, an attribute or a relation. A visit draws the kind by
the shares of a mixture, then a negative of it by how strange it reads, and nothing is gained by reading better than
the caption: then text alone tells them least.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any

from sclip.negatives.attributes import modifier_plans, move_plans, predicate_plans
from sclip.negatives.exchange import Exchange, count_sentences
from sclip.negatives.naturalness import strangeness
from sclip.negatives.places import place_plans
from sclip.negatives.planned_exchange import Kind, PlannedExchange
from sclip.negatives.planned_replacement import Replacement
from sclip.negatives.quantities import quantity_plans
from sclip.negatives.reading import SENTENCE_END, Reading
from sclip.negatives.relations import object_plans, verb_plans
from sclip.negatives.replacements import REPLACED, replacements
from sclip.scenegraph.graph import SceneGraph, Span
from sclip.scenegraph.window import Window, parsed_part
from sclip.seeding import uniform

VERSION = "7"
"""Raised with every change that changes a caption's candidates: annotated shards carry it."""

MOST_CANDIDATES = 24
"""Only the best so many of a caption are kept."""

MOST_WEIGHED = 12
"""Only the best so many exchanges that surely change the meaning are weighed for a draw; the pairs of a long caption
are many."""

MOST_STRANGE = 4.0
"""Log-odds above which an exchange is not drawn: of stranger ones every second one is broken English."""
MOST_STRANGE_REPLACED = 3.0
"""The same of a replacement, of which most read like their caption."""
Shares = Mapping[str, float]
"""How often a visit draws each kind of `KINDS`; 0: never. Where a caption has none of a kind, the others are drawn by
their shares (`loss.mixture`)."""
KINDS: Mapping[str, frozenset[Kind]] = {
    "exchange": frozenset(("relation", "attribute")),
    "replace_object": frozenset(("replaced object",)),
    "replace_attribute": frozenset(("replaced attribute",)),
    "replace_relation": frozenset(("replaced relation",)),
}
EVENLY: Shares = dict.fromkeys(KINDS, 0.25)
MOST_DRAWN = 6
"""Only the least strange so many are drawn from; the others would be drawn once in a hundred visits."""
MOST_TRIED = 5
"""Replacements of a kind that are looked at of a caption of an ordinary length; of a long one, `LONG_TIMES` as many."""
MOST_REPLACED = 3
"""Of them are drawn from so many at the most."""
LONG, LONG_TIMES = 300, 6
"""Characters of a long caption: of few replacements none would be in the triples that a knowledge encoder takes."""
TEMPERATURE = 1.0
"""Of the draw, in log-odds."""

MOST_EXCHANGED = 12
"""Only the first so many objects of a caption change places: pairs grow with the square, and the triples that a
knowledge encoder takes are the first ones."""
_CONTEXT_WORDS = 4
"""Words on either side of an exchange that can make it read strangely: articles, and what an n-gram spans."""


@dataclass(frozen=True)
class Negative:
    """A false caption: of the caption's words, or with one word replaced."""

    caption: str
    kind: Kind
    swapped: tuple[str, str]
    """The two texts that changed places, in the order of the caption; an empty one where a text moved. Of a
    replacement the text that went, and the one that came."""
    strangeness: float
    """How much stranger than its caption it reads, in log-odds (`sclip.negatives.naturalness`)."""
    certain: bool
    """Whether its meaning surely differs from its caption's; only such ones are drawn."""
    source: SceneGraph | tuple[SceneGraph, PlannedExchange, Exchange] | tuple[SceneGraph, Replacement] = (
        field(repr=False, compare=False)
    )
    """The graph, or what it is made from when it is asked for."""

    @cached_property
    def graph(self) -> SceneGraph:
        """The caption's graph with the same change: same length and order of relations and attributes."""
        if isinstance(self.source, SceneGraph):
            return self.source
        if len(self.source) == 2:
            return self.source[1].graph(self.source[0], self.caption)
        graph, plan, edit = self.source
        return plan.graph(graph, edit, self.caption)

    @property
    def is_replacement(self) -> bool:
        """Whether a word gave its place to one that is not the caption's."""
        return self.kind.startswith("replaced")

    def to_json(self) -> dict[str, Any]:
        """Return the negative as JSON values; `from_json` reads them back."""
        return {
            "caption": self.caption,
            "kind": self.kind,
            "swapped": list(self.swapped),
            "strangeness": self.strangeness,
            "certain": self.certain,
            "graph": self.graph.to_json(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Negative:
        """Return the negative that `to_json` wrote. Raises KeyError or TypeError where a field is missing."""
        first, second = value["swapped"]
        graph = SceneGraph.from_json(value["graph"])
        return cls(
            value["caption"], value["kind"], (first, second), value["strangeness"], value["certain"], graph
        )


def candidates(graph: SceneGraph) -> list[Negative]:
    """Return the valid exchanges, then the replacements, each best first, no caption twice; empty where none is."""
    text = _Text(graph, only_certain=False)
    found = sorted(_exchanges(text), key=_order)
    replaced = chain.from_iterable(_replacements(text, kind) for kind in REPLACED)
    return [
        *(negative for negative, _ in found),
        *sorted(replaced, key=lambda negative: negative.strangeness),
    ]


def natural(graph: SceneGraph) -> list[Negative]:
    """Return the candidates that training draws from: of surely another meaning, and not strange to read."""
    text = _Text(graph, only_certain=True)
    return [*_natural_exchanges(text), *chain.from_iterable(_natural_replacements(text, k) for k in REPLACED)]


def candidate_replacements(graph: SceneGraph, kind: Kind) -> list[tuple[Span, str]]:
    """Return all replacements of a kind: the characters of the word that goes, and the word that comes."""
    reading = _Text(graph, only_certain=True).reading
    return [(plan.span, plan.forms[plan.span]) for plan in replacements(reading, kind, sys.maxsize)]


def draw(
    found: Sequence[Negative], *, seed: int, epoch: int, identity: str, window: Window | None = None
) -> Negative | None:
    """Return the negative of one visit of a sample among its `natural` ones, or None where it has none."""
    drawn = draw_several(found, 1, seed=seed, epoch=epoch, identity=identity, window=window)
    return next(iter(drawn), None)


def draw_several(
    found: Sequence[Negative],
    count: int,
    *,
    seed: int,
    epoch: int,
    identity: str,
    window: Window | None = None,
    shares: Shares = EVENLY,
) -> list[Negative]:
    """Return up to `count` different negatives of one visit of a sample, that of `draw` first.

    The kind is drawn by `shares`; of a kind less strange negatives are likelier, down to those that read like their
    caption: if still better ones were likelier, frequent words would come in the places of rare ones more often than
    they leave them. `window` leaves out negatives whose change the text tower does not read, and puts those that differ
    in no triple of the knowledge encoder last.
    The order of the others does not depend on what is left out, so a record that holds only sound negatives gives the
    same draws.
    """
    of_kinds = {
        name: [negative for negative in found if negative.kind in kinds] for name, kinds in KINDS.items()
    }
    drawn = _in_order(of_kinds.__getitem__, seed, epoch, identity, window, shares)
    return list(islice(drawn, count))


def draw_of(
    graph: SceneGraph,
    *,
    seed: int,
    epoch: int,
    identity: str,
    window: Window | None = None,
    shares: Shares = EVENLY,
) -> Iterator[Negative]:
    """Yield what `draw_several` returns of the `natural` negatives of a graph, looking for no more than is taken.

    Most visits take a replacement of one kind; the exchanges, which take longest, are then never listed.
    """
    text = _Text(graph, only_certain=True)

    def listed(name: str) -> list[Negative]:
        if name == "exchange":
            return _natural_exchanges(text)
        (kind,) = KINDS[name]
        return _natural_replacements(text, kind)

    return _in_order(listed, seed, epoch, identity, window, shares)


def _in_order(
    listed: Callable[[str], Sequence[Negative]],
    seed: int,
    epoch: int,
    identity: str,
    window: Window | None,
    shares: Shares,
) -> Iterator[Negative]:
    """Yield the negatives of a visit in the order in which they are drawn, listing a kind when it is due."""

    def hazard(purpose: str, value: str) -> float:  # of an exponential draw: the least is first
        return -math.log((uniform(purpose, seed, epoch, f"{identity}\x1f{value}") + 2**-64) / (1 + 2**-63))

    def key(negative: Negative) -> float:  # Gumbel's trick: a draw without replacement is an order
        return max(negative.strangeness, 0.0) / TEMPERATURE + math.log(hazard("negative", negative.caption))

    drawn: set[str] = set()
    last = []
    due = {name: hazard("kind of negative", name) / shares[name] for name in KINDS if shares[name] > 0}
    for name in sorted(due, key=due.__getitem__):
        found = [negative for negative in listed(name) if window is None or window.holds(negative.caption)]
        for negative in sorted(found, key=key):
            if negative.caption in drawn:
                continue
            drawn.add(negative.caption)
            if window is None or not window.places or window.shows(negative.graph):
                yield negative
            else:
                last.append(negative)
    yield from last


class _Text:
    """The part of a caption that is parsed, read for editing, and how strange its parts read."""

    def __init__(self, graph: SceneGraph, *, only_certain: bool) -> None:
        self.graph = graph
        self.text, self.rest = parsed_part(graph.caption, graph.words)
        parsed = replace(graph, caption=self.text) if self.rest else graph
        self.reading = Reading(parsed, MOST_EXCHANGED, only_certain=only_certain)
        self.times = LONG_TIMES if len(self.text) > LONG else 1
        self._own: dict[Span, float] = {}

    def strangeness(self, other: str, start: int, end: int) -> float:
        """Return how much stranger than the caption a text reads that differs from it in these characters alone."""
        start, end = part = _around(self.text, start, end)
        if part not in self._own:
            self._own[part] = strangeness(self.text[start:end])
        more = strangeness(other[start : len(other) + end - len(self.text)]) - self._own[part]
        return round(more, 3)


def _exchanges(source: _Text) -> Iterator[tuple[Negative, PlannedExchange]]:
    """Yield the negatives of the best plans, of certain ones alone where only they are read for."""
    graph, text = source.graph, source.text
    if len(graph.objects) < 2:
        return
    sentences = count_sentences(text)
    seen = {_fold(text)}
    for plan in _best_plans(source.reading):
        edit = plan.edit(text, sentences)
        if (folded := _fold(edit.text)) in seen:
            continue
        seen.add(folded)
        first, second = sorted((plan.first, plan.second))
        swapped = (text[slice(*first)].strip(), text[slice(*second)].strip())
        spans = [plan.first, plan.second, *plan.forms]
        more = source.strangeness(edit.text, min(span[0] for span in spans), max(span[1] for span in spans))
        caption = edit.text + source.rest
        yield Negative(caption, plan.kind, swapped, more, plan.certain, (graph, plan, edit)), plan


def _replacements(source: _Text, kind: Kind) -> Iterator[Negative]:
    """Yield the negatives in which a word of a kind gave its place to another."""
    text = source.text
    seen = {_fold(text)}
    for plan in replacements(source.reading, kind, MOST_TRIED * source.times):
        other = plan.text(text)
        if (folded := _fold(other)) in seen:
            continue
        seen.add(folded)
        swapped = (text[slice(*plan.span)], plan.forms[plan.span])
        more = source.strangeness(other, min(span[0] for span in plan.forms), plan.span[1])
        caption = other + source.rest
        yield Negative(caption, plan.kind, swapped, more, True, (source.graph, plan))


def _natural_exchanges(text: _Text) -> list[Negative]:
    found = [pair for pair in _exchanges(text) if pair[0].strangeness < MOST_STRANGE]
    found = sorted(found, key=lambda pair: pair[0].strangeness)[:MOST_DRAWN]
    found.sort(key=_order)
    return [negative for negative, _ in found]


def _natural_replacements(text: _Text, kind: Kind) -> list[Negative]:
    natural = (
        negative for negative in _replacements(text, kind) if negative.strangeness < MOST_STRANGE_REPLACED
    )
    return list(islice(natural, MOST_REPLACED * text.times))


def _in_one(text: str, plan: PlannedExchange) -> bool:
    """Whether both texts stand in one sentence: of two, what they are of may be one thing, or part of the other."""
    first, second = sorted((plan.first, plan.second))
    return SENTENCE_END.search(text, first[1], second[0]) is None


def _around(text: str, start: int, end: int) -> Span:
    """Return the part of a text that can read otherwise after an edit: long texts are not weighed whole."""
    for _ in range(_CONTEXT_WORDS):
        start = max(text.rfind(" ", 0, start), 0)
        end = text.find(" ", end + 1) if end >= 0 else end
    return start, len(text) if end < 0 else end


def _order(found: tuple[Negative, PlannedExchange]) -> float:
    return found[1].rank + found[0].strangeness / 8


def _rank(plan: PlannedExchange) -> float:
    return plan.rank


def _best_plans(reading: Reading) -> list[PlannedExchange]:
    """Return the best plans; of those that give one text, the one whose change of meaning is surest comes first."""
    one_sentence = SENTENCE_END.search(reading.caption) is None

    def listed(kinds: Iterable[Iterable[PlannedExchange]]) -> list[PlannedExchange]:
        plans = chain.from_iterable(kinds)
        if not reading.only_certain:
            return list(plans)
        return [plan for plan in plans if plan.certain and (one_sentence or _in_one(reading.caption, plan))]

    plans = listed(
        (
            object_plans(reading, far=False),
            modifier_plans(reading),
            quantity_plans(reading),
            predicate_plans(reading),
            verb_plans(reading),
            place_plans(reading),
        )
    )
    most = MOST_WEIGHED if reading.only_certain else MOST_CANDIDATES
    if sum(plan.rank < 2 for plan in plans) < most:  # as in all captions but the longest
        plans += listed((object_plans(reading, far=True), move_plans(reading)))
    best = sorted(plans, key=_rank)[:most]
    return sorted(best, key=lambda plan: not plan.certain)


def _fold(caption: str) -> str:
    return "".join(caption.casefold().split())
