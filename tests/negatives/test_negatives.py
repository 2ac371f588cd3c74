"""Negatives say something else in the same words, read like captions, and carry an aligned graph."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sclip.negatives import Negative, candidates, draw, draw_of, draw_several, natural
from sclip.negatives.drawing import EVENLY, KINDS, Shares
from sclip.negatives.exchange import Exchange
from sclip.scenegraph import Parser, SceneGraph
from sclip.scenegraph.lexicon import noun_lemma
from sclip.scenegraph.window import Window
from support.commands import command
from support.sentences import table

# caption -> a negative that must be among its candidates
MADE = table(
    """
a small red circle to the left of a blue square -> a blue square to the left of a small red circle
a small red circle to the left of a blue square -> a small blue circle to the left of a red square
A green triangle is above a yellow star. -> A yellow star is above a green triangle.
A man riding a horse next to an elephant. -> A horse riding a man next to an elephant.
An old TV is on top of a table. -> A table is on top of an old TV.
Two dogs sit on an orange couch. -> An orange couch sits on two dogs.
a blue square with a red circle on its right -> a red square with a blue circle on its right
a red circle and a blue square -> a blue circle and a red square
the circle is red and the square is blue -> the square is red and the circle is blue
the bathroom is red and has blue tiles -> the bathroom is blue and has red tiles
an orange car near a white house -> a white car near an orange house
a man with a hat -> a hat with a man
two women and three men -> three women and two men
Two giraffes and a zebra are standing in a field. -> A giraffe and two zebras are standing in a field.
A woman is taking two turkeys out of the oven. -> Two women are taking a turkey out of the oven.
Two monkeys are sitting on some branches. -> Some monkeys are sitting on two branches.
A bunch of birds near a couple of waves. -> A couple of birds near a bunch of waves.
Some dogs chase a cat. -> A dog chases some cats.
Dozens of birds fly over a boat. -> A bird flies over dozens of boats.
A chef watches a woman as she eats. -> A woman watches a chef as she eats.
A box of six doughnuts and a pie. -> Six boxes of a doughnut and a pie.
A black cat sits on a mat. -> A cat sits on a black mat.
Red scissors lie on a desk. -> Scissors lie on a red desk.
A cat sits on an old red mat. -> An old red cat sits on a mat.
A very tall man with a small dog. -> A small man with a very tall dog.
A tall vase with red and white tulips. -> A red and white vase with tall tulips.
A clock tower next to a stone bridge. -> A stone tower next to a clock bridge.
A red fire hydrant near a blue gas pump. -> A blue gas hydrant near a red fire pump.
A dog surfing on a wave with a man swimming behind it. -> A dog swimming on a wave with a man surfing behind it.
A young man kisses a woman on top of her head. -> A woman kisses a young man on top of his head.
A woman pats an elephant as two men watch. -> Two men pat an elephant as a woman watches.
People sit on a bench as a woman walks by. -> A woman sits on a bench as people walk by.
A tall old house is near a dog. Red cats see a cup. -> Red cats are near a dog. A tall old house sees a cup.
A tall cat sits on a wide mat. The big dog sees small birds. ->
    A tall cat sits on the big dog. A wide mat sees small birds.
a boy with a red kite next to a girl with a balloon -> a girl with a red kite next to a boy with a balloon
"""
)

# captions without any exchange that changes what they say
NONE = (
    "|a dog|a cat and a dog|a cat next to a dog|a man with a woman|a man sitting beside a woman|a large red ball|"
    "a black and white cat|a dog behind a dog|a red car and a red bus|they look at it"
).split("|")


def _exchanges(graph: SceneGraph) -> list[Negative]:
    return [negative for negative in candidates(graph) if not negative.is_replacement]


@pytest.mark.parametrize(("caption", "negative"), MADE)
def test_exchange_reads_like_a_caption(parser: Parser, caption: str, negative: str) -> None:
    assert negative in [exchange.caption for exchange in _exchanges(parser.parse([caption])[0])]


@pytest.mark.parametrize("caption", NONE)
def test_a_caption_has_no_exchange_if_every_exchange_would_keep_its_meaning(
    parser: Parser, caption: str
) -> None:
    graph = parser.parse([caption])[0]
    assert _exchanges(graph) == []
    assert all(negative.is_replacement for negative in natural(graph))


def test_a_negative_records_its_kind_and_texts_and_exchanges_head_and_tail_or_attributes(
    parser: Parser,
) -> None:
    (graph,) = parser.parse(["a red circle above a blue square"])
    assert graph.triples() == [
        ("circle", "above", "square"),
        ("red", "is", "circle"),
        ("blue", "is", "square"),
    ]
    assert {n.kind: (n.swapped, n.graph.triples()) for n in reversed(_exchanges(graph))} == {
        "relation": (
            ("a red circle", "a blue square"),
            [("square", "above", "circle"), ("red", "is", "circle"), ("blue", "is", "square")],
        ),
        "attribute": (
            ("red", "blue"),
            [("circle", "above", "square"), ("red", "is", "square"), ("blue", "is", "circle")],
        ),
    }


def _check(graph: SceneGraph, negative: Negative) -> None:
    text = negative.caption
    assert negative.graph.caption == text
    assert len(negative.graph.triples()) == len(graph.triples())
    assert len(negative.graph.objects) == len(graph.objects)
    assert negative.is_replacement or _parts(negative.graph) == _parts(graph)
    assert " ".join(text.split()).casefold() != " ".join(graph.caption.split()).casefold()
    for before, after in zip(graph.relations, negative.graph.relations, strict=True):
        assert 0 <= after.span[0] <= after.span[1] <= len(text)
        assert (before.span[0] == before.span[1]) == (after.span[0] == after.span[1])
    for obj in negative.graph.objects:
        assert 0 <= obj.phrase[0] <= obj.span[0] < obj.span[1] <= obj.phrase[1] <= len(text)
    for old, new in zip(graph.attributes, negative.graph.attributes, strict=True):
        assert 0 <= new.span[0] < new.span[1] <= len(text)
        if negative.is_replacement:
            continue
        if old.attribute == new.attribute:
            assert _words(text[slice(*new.span)]) == _words(graph.caption[slice(*old.span)])
        else:  # an exchanged verb
            assert text[slice(*new.span)].casefold() == new.attribute
    if graph.caption.isascii() and not negative.is_replacement:
        assert _heads(negative.graph) == _heads(graph)


def _heads(graph: SceneGraph) -> Counter[str]:
    """Return the last words of the names, as the caption writes them, in the singular."""
    return Counter(_lemma(graph.caption[slice(*o.span)].casefold().split()[-1]) for o in graph.objects)


def _lemma(noun: str) -> str:
    return _ONE_FORM.get(noun) or noun_lemma(noun)


def _parts(graph: SceneGraph) -> set[str]:
    """Return the words of all names, predicates and attributes of a graph."""
    texts = [*(o.name for o in graph.objects), *(r.predicate for r in graph.relations)]
    texts += [a.attribute for a in graph.attributes]
    return {_lemma(word) for text in texts for word in text.split()}


_ONE_FORM = {"people": "person"} | dict.fromkeys("is are was were be".split(), "be") | {"has": "have"} | dict.fromkeys(
    "he she it they him her them his its their himself herself itself themselves".split(), "they"
)  # fmt: skip


def _words(text: str) -> Counter[str]:
    """Count the words without articles, each in a form that does not depend on agreement."""
    words = re.findall(r"\w+", text.casefold())
    return Counter(_lemma(word) for word in words if word not in ("a", "an"))


_NOUNS = st.sampled_from("dog cats umbrella TV tables man's-hat hour women unicorn 🐶 box".split())
_PHRASES = st.tuples(
    st.sampled_from(["a ", "the ", "an ", "two ", "", "A ", "his ", "several ", "A group of ", "one "]),
    st.sampled_from(
        ["", "red ", "old ", "small orange ", "wooden ", "black and white ", "very tall ", "stone "]
    ),
    _NOUNS,
).map("".join)
_LINKS = st.sampled_from(
    " on | next to | and | is behind | sits on | with |, | of | holding | rides | sitting near | while her dog chases "
    "|. |  ".split("|")
)


@st.composite
def _captions(draw_: st.DrawFn) -> str:
    text = draw_(_PHRASES)
    for _ in range(draw_(st.integers(0, 3))):
        text += draw_(_LINKS) + draw_(_PHRASES)
    return text + draw_(st.sampled_from(["", ".", " .", "\n"]))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(_captions(), st.text(max_size=60)))
def test_every_negative_has_valid_spans_other_text_and_aligned_triples(parser: Parser, caption: str) -> None:
    graph = parser.parse([caption])[0]
    negatives = candidates(graph)
    for negative in negatives:
        _check(graph, negative)
    assert len({n.caption for n in negatives}) == len(negatives)


def _articles_alike(words: list[str]) -> list[str]:
    return ["a" if word.casefold() == "an" else word.casefold() for word in words]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_captions())
def test_an_exchange_keeps_all_words_up_to_agreement_and_a_second_exchange_restores_the_caption(
    parser: Parser, caption: str
) -> None:
    for negative in _exchanges(parser.parse([caption])[0]):
        assert _words(negative.caption) == _words(caption)
        assert isinstance(negative.source, tuple)
        assert len(negative.source) == 3
        _, plan, edit = negative.source
        if sorted(_articles_alike(negative.caption.split())) != sorted(_articles_alike(caption.split())):
            continue  # the number or a capital changed
        one, other = plan.first, plan.second
        if other[0] == other[1] or one[0] == one[1]:  # a piece moved, and moves back
            one = max(one, other, key=lambda piece: piece[1] - piece[0])
            pieces = [edit.content(one), (edit.slot(one)[0],) * 2]
        else:
            pieces = [edit.content(one), edit.content(other)]
        again = Exchange(negative.caption, *pieces).text
        assert _articles_alike(again.split()) == _articles_alike(caption.split())


def test_a_draw_depends_only_on_seed_epoch_and_identity(parser: Parser) -> None:
    graph = parser.parse(["a small red circle to the left of a large blue square"])[0]
    drawn = [draw(natural(graph), seed=7, epoch=epoch, identity="0001") for epoch in range(40)]
    assert drawn == [draw(natural(graph), seed=7, epoch=epoch, identity="0001") for epoch in range(40)]
    assert {n.kind for n in drawn if n} >= {"relation", "attribute"}
    assert len({n.caption for n in drawn if n}) > 2


@pytest.mark.parametrize(
    "shares", [EVENLY, EVENLY | {"exchange": 0}, dict.fromkeys(KINDS, 0) | {"exchange": 1}]
)
def test_a_lazy_draw_equals_a_draw_from_the_full_list(parser: Parser, shares: Shares) -> None:
    for graph in parser.parse(["a red dog near a blue car. A tall man rides a horse", "a thing"]):
        for window in (None, Window.of(graph, len(graph.caption), 2)):
            for epoch in range(6):
                visit: Any = {
                    "seed": 1,
                    "epoch": epoch,
                    "identity": "k",
                    "window": window,
                    "shares": shares,
                }
                assert list(draw_of(graph, **visit)) == draw_several(natural(graph), 99, **visit)


def test_a_stranger_negative_is_drawn_less_often(parser: Parser) -> None:
    usual = natural(parser.parse(["a small red circle to the left of a large blue square"])[0])[0]
    strange = dataclasses.replace(usual, caption="strange", strangeness=usual.strangeness + 1)
    drawn = Counter(draw([strange, usual], seed=0, epoch=0, identity=str(key)).caption for key in range(400))  # type: ignore[union-attr]
    assert 0 < drawn["strange"] < 0.5 * drawn[usual.caption]


def test_a_very_long_caption_gets_a_negative(parser: Parser) -> None:
    graph = parser.parse(["a red dog on a blue mat " * 2500])[0]
    assert draw(natural(graph), seed=0, epoch=0, identity="k") is not None


def test_command_writes_the_best_candidates_of_each_caption(tmp_path: Path) -> None:
    source, out = tmp_path / "captions.txt", tmp_path / "negatives.jsonl"
    source.write_text("a red circle above a blue square\na dog\n")
    assert command("negatives")(source, "--max-candidates", "1", "--out", out) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [len(row["negatives"]) for row in rows] == [1, 1]
    negative = rows[0]["negatives"][0]
    assert set(negative) == {"caption", "kind", "swapped", "strangeness", "certain", "graph"}
    assert SceneGraph.from_json(negative["graph"]).caption == negative["caption"]
