"""Place nodes in rows: with few crossings, without overlaps, and with rows as narrow as possible.

This is the horizontal half of a layered drawing (Sugiyama, Tagawa and Toda 1981). The wanted position of a node is the
mean position of its linked nodes in other rows. Each row is sorted by these positions, then placed as near to them as
the widths allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_GAP, _PASSAGE_GAP = 14.0, 7.0
"""Minimum gap in pixels between adjacent nodes of a row; the smaller gap if one of the two is a passage."""

_SWEEPS = 6


@dataclass(eq=False, slots=True)
class RowNode:
    """Node in a row: a box, a label, or a passage (a node of width 0 that leads an arrow through the row)."""

    width: float
    height: float
    above: list[RowNode] = field(default_factory=list)
    below: list[RowNode] = field(default_factory=list)
    x: float = 0.0
    """Horizontal center of the node."""


def link(upper: RowNode, lower: RowNode) -> None:
    """Link two nodes of adjacent rows."""
    upper.below.append(lower)
    lower.above.append(upper)


def arrange(rows: Sequence[list[RowNode]]) -> float:
    """Order each row, set each node's x (the drawing begins at 0), and return the total width."""
    for row in rows:
        _spread(row, [0.0] * len(row))
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            wanted = {node: _mean(node.above if down else node.below, node.x) for node in row}
            row.sort(key=wanted.__getitem__)  # stable: ties keep the caption's order
            _spread(row, [wanted[node] for node in row])
    for row in rows:
        _spread(row, [_mean(node.above + node.below, node.x) for node in row])
    nodes = [node for row in rows for node in row]
    left = min((node.x - node.width / 2 for node in nodes), default=0.0)
    for node in nodes:
        node.x -= left
    return max((node.x + node.width / 2 for node in nodes), default=0.0)


def row_width(widths: Sequence[float]) -> float:
    """Return the minimum width of a row of nodes with these widths."""
    return sum(widths) + _GAP * max(0, len(widths) - 1)


def _mean(nodes: Sequence[RowNode], otherwise: float) -> float:
    return sum(node.x for node in nodes) / len(nodes) if nodes else otherwise


def _spread(row: Sequence[RowNode], wanted: Sequence[float]) -> None:
    """Set each node's x as near to its wanted position as order, widths and gaps allow (least squares)."""
    # Relative to the tightest row, positions only need to be non-decreasing: isotonic regression, solved by pooling.
    offsets: list[float] = []
    packed = 0.0
    for i, node in enumerate(row):
        if i:
            gap = _GAP if row[i - 1].width and node.width else _PASSAGE_GAP
            packed += (row[i - 1].width + node.width) / 2 + gap
        offsets.append(packed)
    pools: list[tuple[float, int]] = []  # (mean, size)
    for position, offset in zip(wanted, offsets, strict=True):
        pool = (position - offset, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, size = pools.pop()
            count = size + pool[1]
            pool = ((mean * size + pool[0] * pool[1]) / count, count)
        pools.append(pool)
    bases = [mean for mean, size in pools for _ in range(size)]
    for node, base, offset in zip(row, bases, offsets, strict=True):
        node.x = base + offset
