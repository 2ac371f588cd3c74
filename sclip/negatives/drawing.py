"""List the valid negatives of a scene graph (exchanges and replacements), and draw some of them.

Relation negatives exchange two objects, verbs or prepositions. Attribute negatives exchange or move modifiers and
quantities. Replacements are of an object, an attribute or a relation. Negatives that read less strangely
(`naturalness`) are drawn more often: the style should not show which of two captions is false.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any

from sclip.negatives.exchange import Exchange, count_sentences
from sclip.negatives.exchanged_attributes import modifier_plans, move_plans, predicate_plans
from sclip.negatives.exchanged_places import place_plans
from sclip.negatives.exchanged_quantities import quantity_plans
from sclip.negatives.exchanged_relations import object_plans, verb_plans
from sclip.negatives.naturalness import strangeness
from sclip.negatives.planned_exchange import Kind, PlannedExchange
from sclip.negatives.planned_replacement import Replacement
from sclip.negatives.reading import SENTENCE_END, Reading
from sclip.negatives.replacements import REPLACED, replacements
from sclip.scenegraph.graph import SceneGraph, Span
from sclip.scenegraph.window import Window, parsed_part
from sclip.seeding import uniform

VERSION = "7"
"""Version of the candidates, stored in annotated shards; raise it if a change of the code gives other candidates."""

MOST_CANDIDATES = 24  # exchanges listed per caption, best first
MOST_WEIGHED = 12
"""Maximum exchanges per caption whose strangeness is computed for a draw, best first."""
MOST_STRANGE = 4.0
"""Maximum strangeness of a drawn exchange, in log-odds; half of the exchanges above it are broken English."""
MOST_STRANGE_REPLACED = 3.0
"""Maximum strangeness of a drawn replacement, in log-odds; most replacements read like their caption."""
Shares = Mapping[str, float]
"""Key of `KINDS` -> its relative share of the draws (`loss.mixture`); 0 means never. All keys must be present."""
KINDS: Mapping[str, frozenset[Kind]] = {
    "exchange": frozenset(("relation", "attribute")),
    "replace_object": frozenset(("replaced object",)),
    "replace_attribute": frozenset(("replaced attribute",)),
    "replace_relation": frozenset(("replaced relation",)),
}
EVENLY: Shares = dict.fromkeys(KINDS, 0.25)
MOST_DRAWN = 6
"""Maximum exchanges to draw from, least strange first; stranger ones would be drawn in 1 % of the draws."""
MOST_TRIED = 5  # replacements that are examined per kind and caption
MOST_REPLACED = 3  # replacements to draw from, per kind and caption
LONG, LONG_TIMES = 300, 6
"""A caption of more than LONG characters gets LONG_TIMES the replacements, as the model reads few of its triples."""
TEMPERATURE = 1.0  # of the draw, in log-odds
MOST_EXCHANGED = 12  # objects of a caption that may change places; their pairs grow with the square
_CONTEXT_WORDS = 4  # on each side of an edit: it affects their articles and n-grams


@dataclass(frozen=True)
class Negative:
    """A false caption: the words of a true caption in another order, or with one word replaced."""

    caption: str
    kind: Kind
    swapped: tuple[str, str]
    """The two texts that changed places, in caption order (one is "" if one text moved), or the old and new text."""
    strangeness: float
    """How much stranger the negative reads than its caption, in log-odds (`sclip.negatives.naturalness`)."""
    certain: bool
    """Whether the meaning surely differs from the true caption's; only certain negatives are drawn."""
    source: SceneGraph | tuple[SceneGraph, PlannedExchange, Exchange] | tuple[SceneGraph, Replacement] = (
        field(repr=False, compare=False)
    )
    """The negative's graph, or what `graph` makes it from: the caption's graph and the change."""

    @cached_property
    def graph(self) -> SceneGraph:
        """The negative's scene graph; objects, attributes and relations keep their indices in the caption's graph."""
        if isinstance(self.source, SceneGraph):
            return self.source
        if len(self.source) == 2:
            return self.source[1].graph(self.source[0], self.caption)
        graph, plan, edit = self.source
        return plan.graph(graph, edit, self.caption)

    @property
    def is_replacement(self) -> bool:
        """Whether one word of the caption was replaced by another word."""
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
        """Return the negative that `to_json` wrote. Raises KeyError or TypeError if a field is missing."""
        first, second = value["swapped"]
        graph = SceneGraph.from_json(value["graph"])
        return cls(
            value["caption"], value["kind"], (first, second), value["strangeness"], value["certain"], graph
        )


def candidates(graph: SceneGraph) -> list[Negative]:
    """Return the valid exchanges, then the valid replacements, each best first and without duplicates."""
    text = _Text(graph, only_certain=False)
    exchanged = sorted(_exchanges(text), key=_order)
    replaced = chain.from_iterable(_replacements(text, kind) for kind in REPLACED)
    return [
        *(negative for negative, _ in exchanged),
        *sorted(replaced, key=lambda negative: negative.strangeness),
    ]


def natural(graph: SceneGraph) -> list[Negative]:
    """Return the candidates that training draws from: they surely change the meaning and do not read strangely."""
    text = _Text(graph, only_certain=True)
    return [*_natural_exchanges(text), *chain.from_iterable(_natural_replacements(text, k) for k in REPLACED)]


def candidate_replacements(graph: SceneGraph, kind: Kind) -> list[tuple[Span, str]]:
    """Return all replacements of a kind as (span of the old word, new word)."""
    reading = _Text(graph, only_certain=True).reading
    return [(plan.span, plan.forms[plan.span]) for plan in replacements(reading, kind, sys.maxsize)]


def draw(
    negatives: Sequence[Negative], *, seed: int, epoch: int, identity: str, window: Window | None = None
) -> Negative | None:
    """Return the first negative of `draw_several` with equal shares of all kinds; None if none can be drawn."""
    drawn = draw_several(negatives, 1, seed=seed, epoch=epoch, identity=identity, window=window)
    return next(iter(drawn), None)


def draw_several(
    negatives: Sequence[Negative],
    count: int,
    *,
    seed: int,
    epoch: int,
    identity: str,
    window: Window | None = None,
    shares: Shares = EVENLY,
) -> list[Negative]:
    """Return up to `count` different negatives of a sample for one epoch; `draw` returns the first.

    The kind is drawn by `shares`; if it has too few negatives, the next kind is drawn by the shares of the others.
    Within a kind, less strange negatives are likelier. `window` is what the model reads: negatives that change words
    outside of it are left out, and those that change none of its triples come last.
    """
    negatives_by_kind = {
        name: [negative for negative in negatives if negative.kind in kinds] for name, kinds in KINDS.items()
    }
    drawn = _in_order(negatives_by_kind.__getitem__, seed, epoch, identity, window, shares)
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
    """Yield what `draw_several` returns for a graph's `natural` negatives, but make a kind only when it is needed."""
    text = _Text(graph, only_certain=True)

    def listed(name: str) -> list[Negative]:
        if name == "exchange":  # takes longest
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

    def hazard(purpose: str, value: str) -> float:  # an exponential draw: the smallest is first
        return -math.log((uniform(purpose, seed, epoch, f"{identity}\x1f{value}") + 2**-64) / (1 + 2**-63))

    def key(negative: Negative) -> float:  # Gumbel's trick: sorting draws without replacement
        # the order of two negatives depends on no third, so unsound ones may be removed before or after drawing
        # below 0 counts as 0: otherwise frequent words would replace rare ones more often than the reverse
        return max(negative.strangeness, 0.0) / TEMPERATURE + math.log(hazard("negative", negative.caption))

    drawn: set[str] = set()
    postponed = []
    due = {name: hazard("kind of negative", name) / shares[name] for name in KINDS if shares[name] > 0}
    for name in sorted(due, key=due.__getitem__):
        readable = [negative for negative in listed(name) if window is None or window.holds(negative.caption)]
        for negative in sorted(readable, key=key):
            if negative.caption in drawn:
                continue
            drawn.add(negative.caption)
            if window is None or not window.places or window.shows(negative.graph):
                yield negative
            else:
                postponed.append(negative)
    yield from postponed


class _Text:
    """The parsed part of a caption, its `Reading`, and the strangeness of its parts (cached)."""

    def __init__(self, graph: SceneGraph, *, only_certain: bool) -> None:
        self.graph = graph
        self.text, self.rest = parsed_part(graph.caption, graph.words)
        parsed = replace(graph, caption=self.text) if self.rest else graph
        self.reading = Reading(parsed, MOST_EXCHANGED, only_certain=only_certain)
        self.times = LONG_TIMES if len(self.text) > LONG else 1
        self._own: dict[Span, float] = {}

    def strangeness(self, other: str, start: int, end: int) -> float:
        """Return how much stranger `other` reads than the caption; the two differ only in caption[start:end]."""
        start, end = part = _around(self.text, start, end)
        if part not in self._own:
            self._own[part] = strangeness(self.text[start:end])
        more = strangeness(other[start : len(other) + end - len(self.text)]) - self._own[part]
        return round(more, 3)


def _exchanges(source: _Text) -> Iterator[tuple[Negative, PlannedExchange]]:
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
    pairs = [pair for pair in _exchanges(text) if pair[0].strangeness < MOST_STRANGE]
    pairs = sorted(pairs, key=lambda pair: pair[0].strangeness)[:MOST_DRAWN]
    pairs.sort(key=_order)
    return [negative for negative, _ in pairs]


def _natural_replacements(text: _Text, kind: Kind) -> list[Negative]:
    natural = (
        negative for negative in _replacements(text, kind) if negative.strangeness < MOST_STRANGE_REPLACED
    )
    return list(islice(natural, MOST_REPLACED * text.times))


def _in_one(text: str, plan: PlannedExchange) -> bool:
    """Return whether both texts stand in one sentence; texts of two sentences may denote the same thing."""
    first, second = sorted((plan.first, plan.second))
    return SENTENCE_END.search(text, first[1], second[0]) is None


def _around(text: str, start: int, end: int) -> Span:
    for _ in range(_CONTEXT_WORDS):
        start = max(text.rfind(" ", 0, start), 0)
        end = text.find(" ", end + 1) if end >= 0 else end
    return start, len(text) if end < 0 else end


def _order(pair: tuple[Negative, PlannedExchange]) -> float:
    return pair[1].rank + pair[0].strangeness / 8


def _rank(plan: PlannedExchange) -> float:
    return plan.rank


def _best_plans(reading: Reading) -> list[PlannedExchange]:
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
    if sum(plan.rank < 2 for plan in plans) < most:  # true of all captions but the longest
        plans += listed((object_plans(reading, far=True), move_plans(reading)))
    best = sorted(plans, key=_rank)[:most]
    return sorted(
        best, key=lambda plan: not plan.certain
    )  # of plans with one text, the caller keeps the first


def _fold(caption: str) -> str:
    return "".join(caption.casefold().split())
