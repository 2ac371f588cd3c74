"""Compare two scene graphs, with synonyms and inverse relations as equals."""

from __future__ import annotations

from sclip.negatives.meaning import is_symmetric, synonym
from sclip.negatives.senses import place_of, reverses
from sclip.scenegraph.graph import SceneGraph

__all__ = ["says_the_same"]


def says_the_same(one: SceneGraph, other: SceneGraph) -> bool:
    """Return whether two graphs differ only in synonyms and in the direction of inverse or symmetric relations."""
    return _statements(one) == _statements(other)


def _statements(graph: SceneGraph) -> list[tuple[object, ...]]:
    names = [_alike(obj.name) for obj in graph.objects]
    statements: list[tuple[object, ...]] = [
        (name, obj.negated) for name, obj in zip(names, graph.objects, strict=True)
    ]
    statements += [(names[a.object], _alike(a.attribute), a.negated) for a in graph.attributes]
    for r in graph.relations:
        one, other, predicate = names[r.subject], names[r.object], _alike(r.predicate)
        place = place_of(predicate)
        if place and reverses(predicate, _FLIPPED.get(place, "")):
            one, other, predicate = other, one, _FLIPPED[place]
        predicate = place_of(predicate) or predicate
        if is_symmetric(predicate, one, other):
            one, other = sorted((one, other))
        statements.append((one, predicate, other, r.negated))
    return sorted(statements, key=repr)


_FLIPPED = {"under": "above", "behind": "in front of", "right": "at the left of"}


def _alike(text: str) -> str:
    text = _LIKE.get(text, text)
    return " ".join(synonym(word) for word in text.split())


_LIKE = {
    "beside": "next to", "near": "next to", "close to": "next to", "underneath": "under", "beneath": "under",
    "atop": "on top of", "cell phone": "cellphone", "mobile phone": "cellphone", "smart phone": "smartphone",
    "fill with": "full of", "guy": "man", "photograph": "photo", "close-up": "closeup", "hamburger": "burger",
    "in center of": "in middle of", "in the center of": "in the middle of", "seat": "sit", "seat on": "sit on",
    "seat at": "sit at", "seat in": "sit in", "number of": "several", "a number of": "several",
}  # fmt: skip
