"""Replacements: a word is replaced by one that excludes it, the text stays English, and the graph changes too."""

from __future__ import annotations

import re

import pytest

from sclip.negatives import Negative, candidates, drawing
from sclip.scenegraph import Parser, SceneGraph, Span

# caption -> one of its replacements
MADE = [
    # attributes
    ("a red kite over a house", "a blue kite over a house"),
    ("an orange cup on a shelf", "a white cup on a shelf"),
    ("The cup on the shelf is green.", "The cup on the shelf is red."),
    ("a wooden chair", "a metal chair"),
    ("an old man with a dog", "a young man with a dog"),
    ("Two goats near a fence", "Three goats near a fence"),
    ("an open window", "a closed window"),
    ("A soccer player waits", "A tennis player waits"),
    # relations
    ("a cat under a chair", "a cat on a chair"),
    ("a lamp above a bed", "a lamp below a bed"),
    ("a boy sitting behind a bench", "a boy sitting in front of a bench"),
    ("a cup on the left of a bowl", "a cup on the right of a bowl"),
    ("A woman is riding a bike", "A woman is pushing a bike"),
    ("a man sits on a bench", "a man stands on a bench"),
    ("a girl catches a frisbee", "a girl throws a frisbee"),
    ("a skier going down a slope", "a skier going up a slope"),
    # things
    ("A man feeds a parrot", "A woman feeds a parrot"),
    ("several horses by a lake", "several cows by a lake"),
    ("a small kitchen with blue tiles", "a small bathroom with blue tiles"),
    ("a monkey sits on a bed", "a monkey sits on a couch"),
    ("a boy plays tennis", "a boy plays golf"),
]

# caption -> a text that must not be made of it
NEVER = [
    # the replacement may be true as well
    ("a cup near a bowl", "a cup next to a bowl"),
    ("a man walks down the street", "a man walks up the street"),
    ("a man next to a car", "a person next to a car"),
    ("a big house", "a large house"),
    ("a gray wall", "a white wall"),
    ("a kitchen with a chair", "a kitchen with a table"),
    ("a boat near a bed", "a boat near a chair"),
    ("a truck on a road", "a van on a road"),
    ("a dog on the beach", "a dog next to the beach"),
    # the caption has both words, or mentions a thing twice
    ("a red and blue kite", "a green and blue kite"),
    ("a man and a woman on a sofa", "a woman and a woman on a sofa"),
    ("a dog and another dog", "a cat and another dog"),
    ("two cups, both of them red", "three cups, both of them red"),
    ("a man ties his shoe", "a woman ties his shoe"),
    # negated
    ("a room with no red chair", "a room with no blue chair"),
    ("a man not wearing a hat", "a man not holding a hat"),
    # broken English
    ("a dog lying down", "a dog standing down"),
    ("a young child", "an old child"),
    ("a woman walking a dog", "a woman sitting a dog"),
    ("a man walks through a gate", "a man sits through a gate"),
    ("a bunch of sheep eating grass", "a bunch of dog eating grass"),
    ("a woman cutting some cake", "a woman cutting some donut"),
    ("a child in bed with a book", "a child in table with a book"),
    ("a man hits a tennis ball", "a man hits a volleyball ball"),
    ("boats on calm waters", "boats on calm grasses"),
    ("a black-and-white cat", "a red-and-white cat"),
    ("a plane in the sky", "a plane next to the sky"),
]


@pytest.fixture
def every(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try all replacements of a caption."""
    monkeypatch.setattr(drawing, "MOST_TRIED", 1000)


def _replaced(parser: Parser, caption: str) -> tuple[SceneGraph, list[Negative]]:
    graph = parser.parse([caption])[0]
    return graph, [negative for negative in candidates(graph) if negative.is_replacement]


def _without_articles(text: str) -> str:
    return re.sub(r"\ban?\b", "a", text, flags=re.I)


@pytest.mark.usefixtures("every")
@pytest.mark.parametrize(("caption", "text"), MADE)
def test_a_word_is_replaced_by_one_that_excludes_it_in_the_text_and_in_the_graph(
    parser: Parser, caption: str, text: str
) -> None:
    graph, replacements = _replaced(parser, caption)
    assert text in [negative.caption for negative in replacements]
    for negative in replacements:
        changed = negative.graph
        assert Negative.from_json(negative.to_json()) == negative
        assert len(graph.triples()) == len(changed.triples())
        assert graph.triples() != changed.triples() or not graph.triples()
        for one, two in zip(_spans(graph), _spans(changed), strict=True):
            old, new = caption[slice(*one)], changed.caption[slice(*two)]
            assert old == new or _without_articles(old.replace(*negative.swapped)) == _without_articles(new)


def _spans(graph: SceneGraph) -> list[Span]:
    parts = [*graph.objects, *graph.attributes, *graph.relations]
    return [part.span for part in parts] + [obj.phrase for obj in graph.objects]


@pytest.mark.usefixtures("every")
@pytest.mark.parametrize(("caption", "negative"), NEVER)
def test_replacements_that_may_be_true_or_break_the_english_are_not_made(
    parser: Parser, caption: str, negative: str
) -> None:
    assert negative not in [replacement.caption for replacement in _replaced(parser, caption)[1]]


def test_a_verb_of_two_relations_changes_in_both(parser: Parser) -> None:
    graph, replacements = _replaced(parser, "a man sits on a bench next to a dog")
    standing = next(negative for negative in replacements if " stands " in negative.caption)
    assert graph.triples() == [("man", "sit on", "bench"), ("man", "sit next to", "dog")]
    assert standing.graph.triples() == [("man", "stand on", "bench"), ("man", "stand next to", "dog")]


def test_exchanges_come_before_replacements(parser: Parser) -> None:
    (graph,) = parser.parse(["a red cup on a blue table"])
    flags = [negative.is_replacement for negative in candidates(graph)]
    assert flags == sorted(flags)
    assert set(flags) == {False, True}
