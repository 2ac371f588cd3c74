"""Drawn negatives are English: exchanges that break a caption's grammar are candidates but are never drawn."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sclip.negatives import Negative, draw_several, drawing, natural, sound
from sclip.scenegraph import Parser

# caption -> a text that training must not draw from it
NOT_DRAWN = [
    # articles and mass nouns
    ("a red car near blue water", "a red water near blue car"),
    ("a red car near the blue water", "a red water near the blue car"),
    # bare nouns of idioms
    ("a dog runs to a house at night", "a dog runs to night at a house"),
    ("a red car for sale near a house", "a red sale for car near a house"),
    ("a boy playing ball on a sidewalk", "a boy playing a sidewalk on ball"),
    ("a girl and dog on a mat", "a girl and a mat on dog"),
    ("woman riding horse", "horse riding woman"),
    ("hand drawn sketch on a wall", "sketch drawn hand on a wall"),
    # names, compounds and idioms torn apart
    ("a three door fridge in a clean kitchen", "a three clean door fridge in a kitchen"),
    ("a stainless steel fridge near a red wall", "a stainless fridge near a red steel wall"),
    ("a vegetable garden near a girl", "a garden near a vegetable girl"),
    ("a dirt road near two children", "a road near two dirt children"),
    ("a light wooden car near a wide house", "a wooden car near a light wide house"),
    ("someone holds a black plate", "black someone holds a plate"),
    ('the word "stop" is painted on a wall', 'a wall "stop" is painted on the word'),
    # possessors
    ("the desk's surface shows two cups", "the desk's two cups show surface"),
    # adjectives that identify a thing
    ("the upper shelf holds a small cup", "the small shelf holds an upper cup"),
    ("the workers are busy serving meals in a tent", "the serving workers are busy meals in a tent"),
    # number stated again elsewhere in the caption
    ("there stand two cats, both near a dog", "there stand a cat, both near two dogs"),
    ("Two boys sit by a dog, and both smile.", "A boy sits by two dogs, and both smile."),
]  # fmt: skip

# caption -> a text that training may draw from it
DRAWN = [
    ("a red car near a blue house", "a blue car near a red house"),
    ("a brick wall behind a wooden fence", "a wooden wall behind a brick fence"),
    ("Man riding a tall horse", "Tall horse riding a man"),
    ("a red cup on the wall holds cold water", "cold water on the wall holds a red cup"),
    # a verb far from its subject agrees with it in number, a participle does not
    ("Several cars in a city pull a cart.", "A cart in a city pulls several cars."),
    ("A few people watch a dog.", "A dog watches a few people."),
    ("A dog often chases the cats.", "The cats often chase a dog."),
    ("A group of men is on a boat.", "A boat is on a group of men."),
]


CASES = [*((*case, False) for case in NOT_DRAWN), *((*case, True) for case in DRAWN)]


@pytest.mark.parametrize(("caption", "negative", "is_sound"), CASES)
def test_a_sound_exchange_is_drawn_and_a_broken_one_is_not(
    parser: Parser, caption: str, negative: str, is_sound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "MOST_STRANGE", float("inf"))
    monkeypatch.setattr(drawing, "MOST_DRAWN", 100)
    assert (negative in [drawn.caption for drawn in natural(parser.parse([caption])[0])]) == is_sound


# caption -> a text of the same words with another syntactic structure
OTHER_SHAPE = [
    ("the workers are busy serving meals in a tent", "the serving workers are busy meals in a tent"),
    ("a boy leads a goat to a gate", "a boy gate a goat to leads"),
]


@pytest.mark.parametrize(("caption", "broken"), OTHER_SHAPE)
def test_the_same_words_in_another_structure_have_another_shape(
    parser: Parser, caption: str, broken: str
) -> None:
    (graph,) = parser.parse([caption])
    assert graph.shape == next(parser.shapes([caption])) != next(parser.shapes([broken]))


def test_the_first_sound_negative_is_drawn_whether_or_not_all_negatives_are_parsed(parser: Parser) -> None:
    captions = ["a small red dog near a large blue house", "a thing", "Small red dog near large blue house"]
    known = [(graph, natural(graph)) for graph in parser.parse(captions)]
    broken: set[str] = set()

    def shapes(texts: Sequence[str]) -> list[int]:
        shape = {n.caption: graph.shape for graph, negatives in known for n in negatives}
        return [0 if text in broken else shape[text] for text in texts]

    def drawn(negatives: list[Negative], epoch: int, count: int) -> list[Negative]:
        return draw_several(negatives, count, seed=0, epoch=epoch, identity="k")

    for broken in (  # noqa: B007 - read by `shapes`
        set(),
        {n.caption for _, negatives in known for n in negatives[::2]},
        {n.caption for _, negatives in known for n in negatives},
    ):
        kept = sound(known, shapes)
        for epoch in range(6):
            orders = [(graph, drawn(negatives, epoch, len(negatives))) for graph, negatives in known]
            assert sound(orders, shapes, 1) == [drawn(negatives, epoch, 1) for negatives in kept]
    # if no shape fits, only a sentence keeps its negatives
    assert [bool(negatives) for negatives in kept] == [True, False, False]
    assert all(len(negatives) > 2 for _, negatives in known[::2])
