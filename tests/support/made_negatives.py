"""Negatives with any text: a test sets some fields, and a real negative provides the others."""

from __future__ import annotations

from functools import cache
from typing import Any

from sclip.negatives import Negative, candidates, draw
from sclip.scenegraph import Parser, SceneGraph


def negative_of(
    caption: str,
    swapped: tuple[str, str] = ("a", "b"),
    kind: str = "relation",
    graph: SceneGraph | None = None,
) -> Negative:
    graph = graph or SceneGraph(caption)
    fields = {"caption": caption, "swapped": list(swapped), "kind": kind, "graph": graph.to_json()}
    return Negative.from_json(_real() | fields)


@cache
def _real() -> dict[str, Any]:
    drawn = draw(candidates(Parser().parse(["a red cat on a blue mat"])[0]), seed=0, epoch=0, identity="")
    assert drawn is not None
    return drawn.to_json()
