"""Captions are shown as plain text, cut into pieces that the graph names or that a negative exchanged."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclip.negatives import candidates
from sclip.report.texts import compared, described, visible
from sclip.scenegraph import Parser
from support.made_negatives import negative_of


@given(st.text(max_size=60))
def test_visible_text_is_as_long_as_the_text_and_holds_nothing_hidden(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in shown)
    assert not set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200b\ufeff") & set(shown)
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog", "a dog"), ("כלב על ספה", "כלב על ספה"), ("👩‍👧 smiling", "👩‍👧 smiling"),
        ("red \x1b[31m", "red ␛[31m"), ("a\tdog\n", "a dog "), ("a \u202egod", "a \ufffdgod"),
    ],
)  # fmt: skip
def test_only_misleading_characters_are_replaced(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_caption_is_cut_into_its_objects_attributes_and_predicates(parser: Parser) -> None:
    pieces = described(parser.parse(["A small dog sits on two mats"])[0])
    assert [(piece.text, piece.role) for piece in pieces if piece.role] == [
        ("small", "attribute"), ("dog", "object"), ("sits on", "predicate"), ("two", "attribute"), ("mats", "object"),
    ]  # fmt: skip
    assert "".join(piece.text for piece in pieces) == "A small dog sits on two mats"


@pytest.mark.parametrize(
    ("caption", "negative"),
    [
        ("An [old] man on a [red] bus", "A [red] man on an [old] bus"),
        ("[A man] on [a horse]", "[A horse] on [a man]"),
        ("a dog near the [dog] near a [cat]", "a dog near the [cat] near a [dog]"),
        ("[the street] under [the street lights]", "[the street lights] under [the street]"),
        ("a laptop [computer] and a [desktop computer]", "a laptop [desktop computer] and a [computer]"),
        ("[a] dog and [two] eggs", "[two] dogs and [an] egg"),
        ("[<b>x</b>] on <i>y[</i>]", "[</i>] on <i>y[<b>x</b>]"),
    ],
)
def test_exchanged_phrases_are_marked_in_both_texts(caption: str, negative: str) -> None:
    first, second = re.findall(r"\[(.*?)\]", caption)
    texts = [re.sub(r"[\[\]]", "", text) for text in (caption, negative)]
    pieces = compared(texts[0], negative_of(texts[1], (first, second)))
    marked = ["".join(f"[{p.text}]" if p.role else p.text for p in side) for side in pieces]
    assert marked == [caption, negative]


def test_a_word_that_only_moved_is_marked_at_its_old_and_new_place() -> None:
    before, after = compared("a red ball and a red cat", negative_of("a ball and a red red cat", ("red", "")))
    assert [(p.text, p.role) for p in before if p.role] == [("red", "exchanged")]
    assert [(p.text, p.role) for p in after if p.role] == [("red", "exchanged")]


def test_every_negative_of_a_caption_is_marked(parser: Parser) -> None:
    captions = [
        "A small red circle to the left of a blue square.",
        "an old man rides a bike past an orange umbrella",
    ]
    for graph in parser.parse(captions):
        for negative in candidates(graph):
            before, after = compared(graph.caption, negative)
            swapped = [text.lower() for text in negative.swapped if text]
            marked = [" ".join(p.text.lower() for p in pieces if p.role) for pieces in (before, after)]
            if negative.is_replacement:
                assert all(text in mark for text, mark in zip(swapped, marked, strict=True))
                continue
            assert marked == [" ".join(swapped), " ".join(swapped[::-1])]
