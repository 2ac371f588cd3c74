"""A graph and its negatives -> what the card of a caption shows, ready for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sclip.negatives import Negative
from sclip.report.layout import Drawing, lay_out
from sclip.report.texts import Piece, compared, described, shortened
from sclip.scenegraph import SceneGraph


@dataclass(frozen=True, slots=True)
class Swap:
    """A caption beside one negative, what changed places marked in both."""

    kind: str
    caption: list[Piece]
    negative: list[Piece]
    caption_graph: Drawing | None
    """Both graphs are drawn for a caption's first negative."""
    negative_graph: Drawing | None


@dataclass(frozen=True, slots=True)
class Card:
    """One caption."""

    name: str
    caption: list[Piece]
    graph: Drawing
    swaps: list[Swap]
    with_negatives: bool
    """Whether negatives were looked for."""


def card(name: str, graph: SceneGraph, negatives: Sequence[Negative] | None = None) -> Card:
    """Return the card of a caption; without `negatives`, that of its graph alone."""
    swaps = [_swap(graph, negative, drawn=i == 0) for i, negative in enumerate(negatives or ())]
    return Card(shortened(name, 80), described(graph), lay_out(graph), swaps, negatives is not None)


def _swap(graph: SceneGraph, negative: Negative, drawn: bool) -> Swap:
    before, after = compared(graph.caption, negative)
    one = lay_out(graph, negative.graph) if drawn else None
    other = lay_out(negative.graph, graph) if drawn else None
    return Swap(negative.kind, before, after, one, other)
