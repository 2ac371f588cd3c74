"""Lay out the boxes and arrows of a scene graph as a layered drawing, no wider than a phone.

Objects lie in layers, subjects above what they act on. The predicates' labels lie in rows between the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sclip.report.boxes import (
    LABEL_HEIGHT,
    NAME_HEIGHT,
    PILL_GAP,
    PILL_HEIGHT,
    DrawnText,
    ObjectBox,
    label_of,
    object_box,
    pills_width,
)
from sclip.report.graph_rows import RowNode, arrange, link
from sclip.report.layers import Edge, edges_of, layers_of
from sclip.report.texts import visible
from sclip.scenegraph import SceneGraph

MOST_OBJECTS = 24
"""Maximum number of objects drawn, in the order of the caption: nobody can read a hundred boxes."""
MOST_RELATIONS = 60

_MARGIN = 8.0
_ROW_GAP = 15.0
_PORT = 22.0
"""Maximum distance in pixels between adjacent arrows at one side of a box."""
_HEAD = 7.0  # length of an arrowhead


@dataclass(frozen=True, slots=True)
class Text:
    """Words in a rounded rectangle; x and y are its upper left corner."""

    words: DrawnText
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Box:
    """An object: its name in a frame, and its attributes."""

    frame: Text
    pills: list[Text]


@dataclass(frozen=True, slots=True)
class Arrow:
    """A relation: SVG path data of the line and the arrowhead, and the predicate's label."""

    line: str
    head: str
    label: Text


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything that the template of a graph draws."""

    width: float
    height: float
    boxes: list[Box]
    arrows: list[Arrow]
    left_out: int
    """Number of objects that are not drawn."""
    said: str
    """The triples in words, for readers who cannot see the drawing."""


def lay_out(graph: SceneGraph, other: SceneGraph | None = None) -> Drawing:
    """Return the drawing of a graph. Parts that differ from those of `other` with the same index are marked."""
    count = min(len(graph.objects), MOST_OBJECTS)
    cards = [object_box(graph, other, k) for k in range(count)]
    pairs = zip(graph.relations, other.relations if other else graph.relations, strict=True)
    drawn = [(r, o) for r, o in pairs if r.subject != r.object and max(r.subject, r.object) < count]
    related = [(r, r.predicate != o.predicate) for r, o in drawn[:MOST_RELATIONS]]
    labels = [label_of(r.predicate, marked) for r, marked in related]
    edges = edges_of([r for r, _ in related], ([label.width for label in labels], LABEL_HEIGHT))
    rows = _rows(cards, edges)
    width = arrange(rows) + 2 * _MARGIN
    for node in (node for row in rows for node in row):
        node.x += _MARGIN
    tops, height = _heights(rows)
    return Drawing(
        round(width, 1),
        round(height, 1),
        [_box(card, tops[card.node]) for card in cards],
        [_arrow(edge, words, edges, cards, tops) for edge, words in zip(edges, labels, strict=True)],
        len(graph.objects) - count,
        visible("; ".join(" ".join(triple) for triple in graph.triples()[:MOST_RELATIONS])),
    )


def _rows(cards: Sequence[ObjectBox], edges: Sequence[Edge]) -> list[list[RowNode]]:
    """Return rows of nodes: layers of objects and, between them, rows of the arrows' labels and passages."""
    layers = layers_of([card.node.width for card in cards], edges)
    rows: list[list[RowNode]] = [[] for _ in range(2 * max(layers, default=0) + 1)]
    for card, layer in zip(cards, layers, strict=True):
        rows[2 * layer].append(card.node)
    for edge in edges:
        between = range(2 * layers[edge.upper] + 1, 2 * layers[edge.lower])
        edge.passages += [RowNode(0.0, 0.0) for _ in between[:-1]]
        for row, node in zip(between, edge.nodes, strict=True):
            if node not in rows[row]:  # a shared label
                rows[row].append(node)
        for upper, lower in pairwise([cards[edge.upper].node, *edge.nodes, cards[edge.lower].node]):
            link(upper, lower)
    return rows


def _heights(rows: Sequence[Sequence[RowNode]]) -> tuple[dict[RowNode, float], float]:
    tops: dict[RowNode, float] = {}
    y = _MARGIN
    for row in rows:
        height = max((node.height for node in row), default=0.0)
        for node in row:
            tops[node] = y
            if not node.width:  # a passage is as high as its row, so that the arrow does not bend over boxes
                node.height = height
        y += height + (_ROW_GAP if height else 0.0)
    return tops, y - _ROW_GAP + _MARGIN


def _box(card: ObjectBox, top: float) -> Box:
    node = card.node
    pills = []
    y = top + NAME_HEIGHT - 2.0
    for row in card.pills:
        x = node.x - pills_width(row) / 2
        for pill in row:
            pills.append(_text(pill, x, y, pill.width, PILL_HEIGHT))
            x += pill.width + PILL_GAP
        y += PILL_HEIGHT + PILL_GAP
    return Box(_text(card.name, node.x - node.width / 2, top, node.width, node.height), pills)


def _text(words: DrawnText, x: float, y: float, width: float, height: float) -> Text:
    return Text(words, round(x, 1), round(y, 1), round(width, 1), height)


def _arrow(
    edge: Edge,
    words: DrawnText,
    edges: Sequence[Edge],
    cards: Sequence[ObjectBox],
    tops: dict[RowNode, float],
) -> Arrow:
    upper, lower, label = cards[edge.upper].node, cards[edge.lower].node, edge.label
    leaving = dict.fromkeys(e.nodes[0] for e in edges if e.upper == edge.upper)
    arriving = dict.fromkeys(e.label for e in edges if e.lower == edge.lower)
    start = (_port(upper, list(leaving), edge.nodes[0]), tops[upper] + upper.height)
    end = (_port(lower, list(arriving), label), tops[lower])
    points = [(start[0], start[1] + (0.0 if edge.down else _HEAD))]
    for node in edge.nodes:
        points += [(node.x, tops[node]), (node.x, tops[node] + node.height)]
    points.append((end[0], end[1] - (_HEAD if edge.down else 0.0)))
    line = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to_x, to_y) in pairwise(points):
        bend = (y + to_y) / 2
        line += f"C{x:.1f} {bend:.1f} {to_x:.1f} {bend:.1f} {to_x:.1f} {to_y:.1f}"
    tip, back = (end, -_HEAD) if edge.down else (start, _HEAD)
    head = f"M{tip[0]:.1f} {tip[1]:.1f}l-4 {back:.1f}h8z"
    return Arrow(line, head, _text(words, label.x - label.width / 2, tops[label], label.width, LABEL_HEIGHT))


def _port(box: RowNode, nodes: Sequence[RowNode], node: RowNode) -> float:
    """Return the x where the arrow through `node` meets a side of the box, which the arrows through `nodes` share."""
    order = sorted(nodes, key=lambda other: other.x)
    step = min(_PORT, box.width / (len(order) + 1))
    return box.x + step * (order.index(node) - (len(order) - 1) / 2)
