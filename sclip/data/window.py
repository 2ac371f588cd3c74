"""Find the part of a caption and its graph that a model reads: tokens for the text tower, triples for the KEE."""

from __future__ import annotations

from sclip.model import Tokenizer
from sclip.scenegraph import SceneGraph
from sclip.scenegraph.window import Window

__all__ = ["Window", "window_of"]


def window_of(graph: SceneGraph, tokenizer: Tokenizer) -> Window:
    """Return the part of a clean caption and its graph that the tokenizer's model reads."""
    return Window.of(graph, tokenizer.read_end(graph.caption), tokenizer.most_triples)
