"""Find what a model reads of a caption and its graph: the text tower's tokens, the knowledge encoder's triples."""

from __future__ import annotations

from sclip.model import Tokenizer
from sclip.scenegraph import SceneGraph
from sclip.scenegraph.window import Window

__all__ = ["Window", "window_of"]


def window_of(graph: SceneGraph, tokenizer: Tokenizer) -> Window:
    """Return the part of a clean caption and its graph that the tokenizer's model reads."""
    return Window.of(graph, tokenizer.read_end(graph.caption), tokenizer.most_triples)
