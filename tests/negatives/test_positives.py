"""Positives have other words and the same scene graph. Texts with another meaning or broken English are not made."""

from __future__ import annotations

import pytest

from sclip.negatives.positives import draw_positives, wordings
from sclip.negatives.same_graph import says_the_same
from sclip.scenegraph import Parser
from sclip.scenegraph.window import Window

# caption -> one of its wordings
MADE = [
    ("A cup next to a bowl.", "A bowl next to a cup."),
    ("two lamps are above an old bed", "an old bed is below two lamps"),
    ("a photo of a cat to the left of a box", "a photo of a box to the right of a cat"),
    ("a woman rides an elephant", "an elephant is ridden by a woman"),
    ("A boy is pushing two carts.", "Two carts are being pushed by a boy."),
    ("an image of a girl wearing a hat", "an image of a hat worn by a girl"),
    ("a spoon and an apple on a plate", "an apple and a spoon on a plate"),
    ("a shop with an orange and white awning", "a shop with a white and orange awning"),
    ("A monkey holds a red ball.", "A monkey holds a ball that is red."),
    ("a goat on a wall that is red", "a goat on a red wall"),
    ("A cat sleeps on the sofa", "A cat sleeps on the couch"),
    ("an automobile in the rain", "a car in the rain"),
]

# caption -> a text that must not be made of it
NEVER = [
    ("a cup next to a bowl with a spoon", "a bowl next to a cup with a spoon"),  # the spoon changes its owner
    ("a dog on a sofa", "a sofa on a dog"),
    ("a man holding a dog with a red collar", "a dog held by a man with a red collar"),
    ("a man riding his horse", "his horse being ridden by a man"),
    ("a lamp near a road", "a road near a lamp"),
    ("a girl in a hat and a coat", "a girl in a coat and a hat"),
    ("a plate of bread and butter", "a plate of butter and bread"),
    ("a black and white photo", "a white and black photo"),
    ("a tent in the open air", "a tent in the air that is open"),
    ("cars at a red light", "cars at a light that is red"),
    ("a large intestine", "a big intestine"),
    ("no dog next to a cat", "a cat next to no dog"),
]


@pytest.fixture(scope="module")
def parser() -> Parser:
    return Parser()


def test_a_caption_has_the_wordings_that_keep_its_graph(parser: Parser) -> None:
    graphs = parser.parse([caption for caption, _ in MADE])
    for graph, (_, wording), parsed in zip(
        graphs, MADE, parser.parse([text for _, text in MADE]), strict=True
    ):
        assert wording in dict(wordings(graph)), wording
        assert says_the_same(graph, parsed), wording


def test_a_wording_with_another_meaning_is_not_made(parser: Parser) -> None:
    graphs = parser.parse([caption for caption, _ in NEVER])
    for graph, (_, wording) in zip(graphs, NEVER, strict=True):
        assert wording not in dict(wordings(graph))


def test_a_draw_depends_only_on_the_visit_and_skips_wordings_that_parse_differently(parser: Parser) -> None:
    graph = parser.parse(["A cup next to a large red bowl."])[0]
    windows = [Window.of(graph, len(graph.caption), 6)] * 30

    def drawn(parse: object = parser.parse) -> list[object]:
        return draw_positives(windows, ["k"] * 30, parse, seed=3, epochs=range(30))  # type: ignore[arg-type, return-value]

    first = drawn()
    assert first == drawn()
    assert {positive.kind for positive in first} == {"place", "synonym"}  # type: ignore[attr-defined]
    unrelated = parser.parse(["a dog"])
    assert drawn(lambda texts: unrelated * len(texts)) == [None] * 30
