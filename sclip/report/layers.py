"""Assign objects to layers by their relations: subjects above what they act on, no layer wider than a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sclip.report.graph_rows import RowNode, row_width
from sclip.scenegraph import Relation

WIDTH = 316.0
"""Maximum width of a layer in pixels: a phone has 390 pixels, and the margins of page and card take the rest."""


@dataclass(eq=False, slots=True)
class Edge:
    """A relation in the drawing, with one end above the other."""

    relation: Relation
    upper: int
    lower: int
    label: RowNode
    """Node of the predicate. In "eggs and ham on a table", two edges share the label "on"."""
    passages: list[RowNode] = field(default_factory=list)
    """Empty nodes that lead the edge through the rows above its label, one node in each row."""

    @property
    def down(self) -> bool:
        """Whether the subject is the upper end."""
        return self.upper == self.relation.subject

    @property
    def nodes(self) -> list[RowNode]:
        """Nodes of the edge between its ends, from top to bottom."""
        return [*self.passages, self.label]


def edges_of(relations: Sequence[Relation], label: tuple[Sequence[float], float]) -> list[Edge]:
    """Return an edge for each relation, with the subject above the object unless that would close a cycle.

    `label` is a pair: the drawn width of each relation's predicate, and the height that all predicates have.
    """
    below: dict[int, set[int]] = {}
    labels: dict[tuple[int, str, bool], RowNode] = {}

    def reaches(start: int, end: int) -> bool:
        seen, pending = {start}, [start]
        while pending:
            new = below.get(pending.pop(), set()) - seen
            seen |= new
            pending += new
        return end in seen

    edges = []
    for relation, width in zip(relations, label[0], strict=True):
        upper, lower = relation.subject, relation.object
        if reaches(lower, upper):
            upper, lower = lower, upper
        below.setdefault(upper, set()).add(lower)
        key = (lower, relation.predicate, upper == relation.subject)
        edges.append(Edge(relation, upper, lower, labels.setdefault(key, RowNode(width, label[1]))))
    return edges


def layers_of(widths: Sequence[float], edges: Sequence[Edge]) -> list[int]:
    """Return the index of each object's layer; layer 0 is at the top.

    An object lies below all objects that have an edge down to it, in the first layer with room for the object and for
    the labels of these edges.
    """
    layers = [-1] * len(widths)
    boxes: dict[int, list[float]] = {}
    labels: dict[int, list[float]] = {}
    remaining = set(range(len(widths)))
    while remaining:
        index = min(k for k in remaining if not any(e.lower == k and e.upper in remaining for e in edges))
        remaining.remove(index)
        incoming = [edge for edge in edges if edge.lower == index]
        label_widths = [label.width for label in dict.fromkeys(edge.label for edge in incoming)]
        layer = max((layers[edge.upper] + 1 for edge in incoming), default=0)
        while boxes.get(layer) and (
            row_width([*boxes[layer], widths[index]]) > WIDTH
            or row_width([*labels.get(layer, []), *label_widths]) > WIDTH
        ):
            layer += 1
        layers[index] = layer
        boxes.setdefault(layer, []).append(widths[index])
        labels.setdefault(layer, []).extend(label_widths)
    return layers
