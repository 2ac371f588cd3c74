"""What a model reads of a caption and its graph: tokens of its text tower, triples of its knowledge encoder."""

from __future__ import annotations

from sclip.model import Tokenizer
from sclip.scenegraph import SceneGraph
from sclip.scenegraph.window import Window

__all__ = ["Window", "window_of"]


def window_of(graph: SceneGraph, tokenizer: Tokenizer) -> Window:
    """Return what the tokenizer's model reads of a clean caption and its graph."""
    return Window.of(graph, tokenizer.read_end(graph.caption), tokenizer.most_triples)
