"""Tables of sentences and their expected results, one row per line, and a short form of scene graphs for them."""

from __future__ import annotations

from sclip.scenegraph import SceneGraph

Parts = tuple[set[str], set[str], set[str]]
"""Relations as "dog sit on sofa", attributes as "dog: red", and names of negated objects, which the first two lack."""


def table(text: str) -> list[tuple[str, str]]:
    """Return both sides of each line's arrow. An indented line continues the line before; # starts a comment."""
    rows = (line.split("->") for line in text.replace("\n    ", " ").splitlines())
    return [(row[0].strip(), row[1].strip()) for row in rows if not row[0].startswith("#") and row[1:]]


def parts_of_text(text: str) -> Parts:
    """Return the parts of "relations | attributes | negated objects", "; " between entries. It may end early."""
    parts = [part.strip().split("; ") for part in f"{text}||".split("|")]
    relations, attributes, negated = (set(filter(None, entries)) for entries in parts[:3])
    return relations, attributes, negated


def parts_of_graph(graph: SceneGraph) -> Parts:
    """Return the parts of a graph. In relations and attributes, * marks a name that no exchange enters."""
    name = {obj.name: "*" * obj.fixed + obj.name for obj in graph.objects}
    triples = graph.triples()
    return (
        {f"{name[one]} {verb} {name[other]}" for one, verb, other in triples if verb != "is"},
        {f"{name[obj]}: {word}" for word, verb, obj in triples if verb == "is"},
        {obj.name for obj in graph.objects if obj.negated},
    )
