"""Build the card of a caption (a block of the page) from its graph and negatives, ready for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sclip.negatives import Negative
from sclip.report.layout import Drawing, lay_out
from sclip.report.texts import Piece, compared, described, shortened
from sclip.scenegraph import SceneGraph


@dataclass(frozen=True, slots=True)
class Swap:
    """A caption beside one negative; the exchanged or replaced words are marked in both."""

    kind: str
    caption: list[Piece]
    negative: list[Piece]
    caption_graph: Drawing | None
    """Drawing of the caption's graph; None except for the first negative of a caption."""
    negative_graph: Drawing | None


@dataclass(frozen=True, slots=True)
class Card:
    """Card of one caption."""

    name: str
    caption: list[Piece]
    graph: Drawing
    swaps: list[Swap]
    with_negatives: bool
    """Whether the caption's negatives were computed."""


def card(name: str, graph: SceneGraph, negatives: Sequence[Negative] | None = None) -> Card:
    """Return the card of a caption; without `negatives`, it shows the graph only."""
    swaps = [_swap(graph, negative, drawn=i == 0) for i, negative in enumerate(negatives or ())]
    return Card(shortened(name, 80), described(graph), lay_out(graph), swaps, negatives is not None)


def _swap(graph: SceneGraph, negative: Negative, drawn: bool) -> Swap:
    before, after = compared(graph.caption, negative)
    caption_graph = lay_out(graph, negative.graph) if drawn else None
    negative_graph = lay_out(negative.graph, graph) if drawn else None
    return Swap(negative.kind, before, after, caption_graph, negative_graph)
