"""Negatives parsed again: where the words hang together otherwise than in the caption, the exchange broke something.

An exchange puts words of a kind in each other's places, so its parse has the labels of its caption's parse: "a tunnel
through the dog sprints" has lost a verb. Of broken negatives 0.5 are found so, of sound ones 0.15 are lost, for each
of which another is drawn. Comparing graphs finds fewer (0.35) and loses more (0.2): which phrase a preposition
belongs to changes with the meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sclip.negatives.drawing import Negative
from sclip.scenegraph.graph import SceneGraph

Shapes = Callable[[Sequence[str]], Iterable[int]]
"""The shapes of texts (`sclip.scenegraph.Parser.shapes`)."""


def sound(known: Sequence[tuple[SceneGraph, Sequence[Negative]]], shapes: Shapes) -> list[list[Negative]]:
    """Return of each caption's negatives those that have the shape of its graph, in their order."""
    found = iter(list(shapes([negative.caption for _, negatives in known for negative in negatives])))
    return [[negative for negative in negatives if next(found) == graph.shape] for graph, negatives in known]


def first_sound(
    known: Sequence[tuple[SceneGraph, Sequence[Negative]]], count: int, shapes: Shapes
) -> list[list[Negative]]:
    """Return the first `count` of each caption's negatives that are sound, parsing no more than it takes.

    The negatives stand in the order in which they were drawn.
    """
    kept: list[list[Negative]] = [[] for _ in known]
    at = [0] * len(known)
    while True:
        tried = []
        for k, (_, negatives) in enumerate(known):
            wanted = min(count - len(kept[k]), len(negatives) - at[k])
            tried += [(k, negative) for negative in negatives[at[k] : at[k] + wanted]]
            at[k] += wanted
        if not tried:
            return kept
        for (k, negative), shape in zip(tried, shapes([n.caption for _, n in tried]), strict=True):
            if shape == known[k][0].shape:
                kept[k].append(negative)
