"""Scene graph -> its valid exchanges, best first, each with its caption and its aligned graph.

Two kinds (method, section 2): relation negatives exchange two objects or two verbs, attribute negatives exchange
or move modifiers and numbers. An exchange is kept where the caption then says something else (`Reading.changes`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any

from sclip.negatives.attributes import modifier_plans, move_plans, predicate_plans
from sclip.negatives.exchange import Exchange, count_sentences
from sclip.negatives.naturalness import strangeness
from sclip.negatives.places import place_plans
from sclip.negatives.planned_exchange import Kind, PlannedExchange
from sclip.negatives.quantities import quantity_plans
from sclip.negatives.reading import Reading
from sclip.negatives.relations import object_plans, verb_plans
from sclip.scenegraph.graph import SceneGraph, Span
from sclip.scenegraph.window import Window, parsed_part
from sclip.seeding import uniform

VERSION = "4"
"""Raised with every change that changes a caption's candidates: annotated shards carry it."""

MOST_CANDIDATES = 24
"""Only the best so many of a caption are kept."""

MOST_WEIGHED = 12
"""Only the best so many that surely change the meaning are weighed for a draw; the pairs of a long caption are many."""

MOST_STRANGE = 12.0
"""Log-odds above which a negative is not drawn."""
WORTH_A_DOUBT = 4.0
"""Log-odds by which a doubtful negative must read better than all others to be drawn beside them."""
MOST_DRAWN = 6
"""Only the least strange so many are drawn from; the others would be drawn once in a hundred visits."""
TEMPERATURE = 1.0
"""Of the draw, in log-odds."""

MOST_EXCHANGED = 12
"""Only the first so many objects of a caption change places: pairs grow with the square, and the triples that a
knowledge encoder takes are the first ones."""
_SENTENCE_END = re.compile(r"[.!?]\W")
_CONTEXT_WORDS = 5
"""Words on either side of an exchange that can make it read strangely: articles, and what an n-gram spans."""


@dataclass(frozen=True)
class Negative:
    """A false caption of the caption's words."""

    caption: str
    kind: Kind
    swapped: tuple[str, str]
    """The two texts that changed places, in the order of the caption; an empty one where a text moved."""
    strangeness: float
    """How much stranger than its caption it reads, in log-odds (`sclip.negatives.naturalness`)."""
    certain: bool
    """Whether its meaning surely differs from its caption's; only such ones are drawn."""
    source: SceneGraph | tuple[SceneGraph, PlannedExchange, Exchange] = field(repr=False, compare=False)
    """The graph, or what it is made from when it is asked for."""

    @cached_property
    def graph(self) -> SceneGraph:
        """The caption's graph with the same exchange: same length and order of relations and attributes."""
        if isinstance(self.source, SceneGraph):
            return self.source
        graph, plan, edit = self.source
        return plan.graph(graph, edit, self.caption)

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
    """Return the valid exchanges, best first, no caption twice; empty where there is none."""
    found = list(_negatives(graph, certain=False))
    found.sort(key=_order)
    return [negative for negative, _ in found]


def natural(graph: SceneGraph) -> list[Negative]:
    """Return the candidates that training draws from: of surely another meaning, and not strange to read."""
    found = [pair for pair in _negatives(graph, certain=True) if pair[0].strangeness < MOST_STRANGE]
    sure = [negative.strangeness for negative, plan in found if not plan.doubtful]
    if sure:
        most = min(sure) - WORTH_A_DOUBT
        found = [pair for pair in found if not pair[1].doubtful or pair[0].strangeness < most]
    found = sorted(found, key=lambda pair: pair[0].strangeness)[:MOST_DRAWN]
    found.sort(key=_order)
    return [negative for negative, _ in found]


def draw(
    found: Sequence[Negative], *, seed: int, epoch: int, identity: str, window: Window | None = None
) -> Negative | None:
    """Return the negative of one visit of a sample among its `natural` ones, or None where it has none."""
    drawn = draw_several(found, 1, seed=seed, epoch=epoch, identity=identity, window=window)
    return drawn[0] if drawn else None


def draw_several(
    found: Sequence[Negative],
    count: int,
    *,
    seed: int,
    epoch: int,
    identity: str,
    window: Window | None = None,
) -> list[Negative]:
    """Return up to `count` different negatives of one visit of a sample, that of `draw` first.

    Less strange negatives are likelier. `window` leaves out negatives whose exchange the text tower does not read, and
    puts those that differ in no triple of the knowledge encoder last. The order of the others does not depend on what
    is left out, so a record that holds only sound negatives gives the same draws.
    """

    def key(negative: Negative) -> float:  # Gumbel's trick: a draw without replacement is an order
        point = uniform("negative", seed, epoch, f"{identity}\x1f{negative.caption}")
        return negative.strangeness / TEMPERATURE + math.log(-math.log((point + 2**-64) / (1 + 2**-63)))

    if window is None:
        return sorted(found, key=key)[:count]
    drawn = sorted([negative for negative in found if window.holds(negative.caption)], key=key)
    if window.places and len(drawn) > 1:
        drawn.sort(key=lambda negative: not window.shows(negative.graph))
    return drawn[:count]


def _negatives(graph: SceneGraph, certain: bool) -> Iterator[tuple[Negative, PlannedExchange]]:
    """Yield the negatives of the best plans, and only of the certain ones where asked."""
    if len(graph.objects) < 2:
        return
    text, rest = parsed_part(graph.caption)
    sentences, seen = count_sentences(text), {_fold(text)}
    own: dict[Span, float] = {}
    reading = Reading(replace(graph, caption=text) if rest else graph, MOST_EXCHANGED, only_certain=certain)
    for plan in _best_plans(reading, certain):
        edit = plan.edit(text, sentences)
        folded = _fold(edit.text)
        if folded in seen:
            continue
        seen.add(folded)
        first, second = sorted((plan.first, plan.second))
        swapped = (text[slice(*first)].strip(), text[slice(*second)].strip())
        start, end = part = _around(text, plan)
        if part not in own:
            own[part] = strangeness(text[start:end])
        more = strangeness(edit.text[start : len(edit.text) + end - len(text)]) - own[part]
        yield (
            Negative(edit.text + rest, plan.kind, swapped, round(more, 3), plan.certain, (graph, plan, edit)),
            plan,
        )


def _in_one(text: str, plan: PlannedExchange) -> bool:
    """Whether both texts stand in one sentence: of two, what they are of may be one thing, or part of the other."""
    first, second = sorted((plan.first, plan.second))
    return _SENTENCE_END.search(text, first[1], second[0]) is None


def _around(text: str, plan: PlannedExchange) -> Span:
    """Return the part of a text that can read otherwise after an exchange: long texts are not weighed whole."""
    spans = [plan.first, plan.second, *plan.forms]
    start, end = min(span[0] for span in spans), max(span[1] for span in spans)
    for _ in range(_CONTEXT_WORDS):
        start = max(text.rfind(" ", 0, start), 0)
        end = text.find(" ", end + 1) if end >= 0 else end
    return start, len(text) if end < 0 else end


def _order(found: tuple[Negative, PlannedExchange]) -> float:
    return found[1].rank + found[0].strangeness / 8


def _rank(plan: PlannedExchange) -> float:
    return plan.rank


def _best_plans(reading: Reading, certain: bool) -> list[PlannedExchange]:
    """Return the best plans; of those that give one text, the one whose change of meaning is surest comes first."""
    one_sentence = _SENTENCE_END.search(reading.caption) is None

    def listed(kinds: Iterable[Iterable[PlannedExchange]]) -> list[PlannedExchange]:
        plans = chain.from_iterable(kinds)
        if not certain:
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
    most = MOST_WEIGHED if certain else MOST_CANDIDATES
    if sum(plan.rank < 2 for plan in plans) < most:  # as in all captions but the longest
        plans += listed((object_plans(reading, far=True), move_plans(reading)))
    best = sorted(plans, key=_rank)[:most]
    return sorted(best, key=_doubt)


def _doubt(plan: PlannedExchange) -> tuple[bool, bool]:
    return not plan.certain, plan.doubtful


def _fold(caption: str) -> str:
    return "".join(caption.casefold().split())
