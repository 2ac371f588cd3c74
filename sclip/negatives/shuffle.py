"""The baseline: two random words of one part of speech change places, as in NegCLIP.

NegCLIP (Yuksekgonul et al., ICLR 2023, section 4) exchanges two nouns, adjectives or verbs wherever they stand. This
module exchanges only words in the scene graph. Nothing checks the meaning or corrects the grammar.
"""

from __future__ import annotations

from collections.abc import Callable

from sclip.negatives.drawing import MOST_EXCHANGED, Negative
from sclip.negatives.exchanged_relations import verb_plans
from sclip.negatives.naturalness import strangeness
from sclip.negatives.planned_exchange import PlannedExchange
from sclip.negatives.reading import Reading
from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.window import Window, parsed_part
from sclip.seeding import generator


def shuffled(
    graph: SceneGraph,
    count: int = 1,
    *,
    seed: int,
    epoch: int,
    identity: str,
    window: Window | None = None,
) -> list[Negative]:
    """Return up to `count` copies of the caption; in each, another two words of one part of speech have changed places.

    With `window`, only words that the model's text tower reads are exchanged.
    """
    end = len(graph.caption) if window is None else window.end
    reading = Reading(graph, MOST_EXCHANGED)
    random = generator("shuffle", seed, epoch, identity)
    kinds: list[Callable[[Reading], list[PlannedExchange]]] = [_nouns, _adjectives, _verbs]
    drawn: list[Negative] = []
    for plans in random.sample(kinds, len(kinds)):
        usable = [plan for plan in plans(reading) if max(plan.first[1], plan.second[1]) <= end]
        drawn += [
            _exchanged(graph, plan) for plan in random.sample(usable, min(count - len(drawn), len(usable)))
        ]
    return drawn


def _exchanged(graph: SceneGraph, plan: PlannedExchange) -> Negative:
    text, rest = parsed_part(graph.caption, graph.words)
    edit = plan.edit(text, repair=False)
    swapped = (text[slice(*plan.first)], text[slice(*plan.second)])
    more = round(strangeness(edit.text) - strangeness(text), 3)
    return Negative(edit.text + rest, plan.kind, swapped, more, False, (graph, plan, edit))


def _nouns(reading: Reading) -> list[PlannedExchange]:
    names = [obj.span for obj in reading.graph.objects[: reading.count]]
    return [
        PlannedExchange("relation", 0.0, names[one], names[other], swap=(one, other))
        for one in range(len(names))
        for other in range(one + 1, len(names))
        if _differ(reading, names[one], names[other])
    ]


def _adjectives(reading: Reading) -> list[PlannedExchange]:
    attributes = reading.graph.attributes
    words = [k for k, a in enumerate(attributes) if a.object < reading.count and reading.is_before_name(k)]
    return [
        PlannedExchange(
            "attribute",
            0.0,
            attributes[one].span,
            attributes[other].span,
            owners={one: attributes[other].object, other: attributes[one].object},
        )
        for index, one in enumerate(words)
        for other in words[index + 1 :]
        if _differ(reading, attributes[one].span, attributes[other].span)
    ]


def _verbs(reading: Reading) -> list[PlannedExchange]:
    return list(verb_plans(reading))


def _differ(reading: Reading, one: tuple[int, int], other: tuple[int, int]) -> bool:
    apart = one[1] <= other[0] or other[1] <= one[0]
    return apart and reading.text(one).casefold() != reading.text(other).casefold()
