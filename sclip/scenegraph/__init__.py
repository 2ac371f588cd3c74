"""Types of scene graphs, and the parser that makes scene graphs from captions."""

from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph, Span, Triple
from sclip.scenegraph.parser import Parser, ParserError, parser_version

__all__ = ["Attribute", "Object", "Parser", "ParserError", "Relation", "SceneGraph", "Span", "Triple"]
__all__ += ["parser_version"]
