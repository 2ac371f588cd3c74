"""Compute the drawn sizes of objects, attributes and predicates, before they are placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sclip.report.graph_rows import RowNode
from sclip.report.text_width import text_width
from sclip.report.texts import shortened
from sclip.scenegraph import Attribute, SceneGraph

MOST_PILLS = 24
"""Maximum number of attributes drawn for one object."""

NAME_HEIGHT, PILL_HEIGHT, LABEL_HEIGHT = 32.0, 19.0, 20.0
PILL_GAP = 5.0

_NAME_SIZE, _PILL_SIZE, _LABEL_SIZE = 15.0, 12.0, 12.5  # as in page.css
_PILLS_WIDTH = 150.0
_PAD, _PILL_PAD = 12.0, 7.0


@dataclass(frozen=True, slots=True)
class DrawnText:
    """A shortened text with its drawn size."""

    text: str
    full: str
    """The whole text, or its first 200 characters; shown on hover."""
    text_width: float
    width: float
    """Width in pixels, including the space around the text."""
    marked: bool = False


@dataclass(eq=False, slots=True)
class ObjectBox:
    """An object: its name, its attributes in rows, and the node that holds its size and its position."""

    name: DrawnText
    pills: list[list[DrawnText]]
    node: RowNode


def object_box(graph: SceneGraph, other: SceneGraph | None, index: int) -> ObjectBox:
    """Return the box of the object at `index`. A name or attribute that differs from that of `other` is marked."""
    # an object with a marked name has no marked attributes
    obj = graph.objects[index]
    name = _words(obj.name, 24, _NAME_SIZE, _PAD, other is not None and obj.name != other.objects[index].name)
    pills = [
        _pill(a.attribute, other is not None and not name.marked and _differs(a, other.attributes[k]))
        for k, a in enumerate(graph.attributes)
        if a.object == index
    ]
    pills += [_pill(f"↻ {r.predicate}") for r in graph.relations if r.subject == r.object == index]
    rows: list[list[DrawnText]] = []
    for pill in pills[:MOST_PILLS]:
        if not rows or pills_width([*rows[-1], pill]) > _PILLS_WIDTH:
            rows.append([])
        rows[-1].append(pill)
    width = max([name.width, *(pills_width(row) + 2 * _PAD for row in rows)])
    height = NAME_HEIGHT + len(rows) * (PILL_HEIGHT + PILL_GAP) + (2.0 if rows else 0.0)
    return ObjectBox(name, rows, RowNode(width, height))


def label_of(predicate: str, marked: bool) -> DrawnText:
    """Return the label of an arrow for a predicate."""
    return _words(predicate, 26, _LABEL_SIZE, _PILL_PAD, marked)


def pills_width(row: Sequence[DrawnText]) -> float:
    """Return the width of attributes side by side, including gaps."""
    return sum(pill.width for pill in row) + PILL_GAP * (len(row) - 1)


def _pill(attribute: str, marked: bool = False) -> DrawnText:
    return _words(attribute, 20, _PILL_SIZE, _PILL_PAD, marked)


def _words(text: str, most: int, size: float, pad: float, marked: bool = False) -> DrawnText:
    shown = shortened(text, most)
    width = text_width(shown, size)
    return DrawnText(shown, shortened(text, 200), round(width, 1), width + 2 * pad, marked)


def _differs(one: Attribute, other: Attribute) -> bool:
    return (one.object, one.attribute) != (other.object, other.attribute)
