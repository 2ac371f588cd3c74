"""Which part of a long caption is parsed, and which of its triples a model keeps."""

from __future__ import annotations

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclip.negatives import natural
from sclip.scenegraph import Attribute, Object, Parser, Relation, SceneGraph, parser_version
from sclip.scenegraph.window import MOST_WORDS, Window, parsed_part

TEXT = st.text(st.sampled_from("ab dog's 12,,--_ \t\n½éΣİ漢🐶'"), max_size=600) | st.text(max_size=300)


@pytest.mark.parametrize(
    ("caption", "read"),
    [
        ("", ""),
        ("a dog on a mat", "a dog on a mat"),
        ("dog " * 75, "dog " * 75),
        ("dog " * 76, "dog " * 75),
        ("a dog's mat, " * 20, "a dog's mat, " * 15),  # five tokens each: a, dog, 's, mat, and the comma
        ("1234567890 " * 10, "1234567890 " * 7 + "12345"),
        ("<" * 90 + " dog", "<" * 90 + " dog"),
        (", " * 2000, ", " * 75),
        ("#dog#cat" * 40, "#dog#cat" * 18 + "#dog#"),
        ("x" * 9000, "x" * 2000),
        ("\u72ac\u3001" * 80, "\u72ac\u3001" * 37 + "\u72ac"),
    ],
)
def test_only_the_words_that_a_tower_can_read_are_parsed(caption: str, read: str) -> None:
    part, rest = parsed_part(caption)
    assert (part, part + rest) == (read, caption)


@given(TEXT)
def test_no_tower_reads_beyond_what_is_parsed(caption: str) -> None:
    part, rest = parsed_part(caption)
    assert part + rest == caption
    if rest:
        assert len(open_clip.get_tokenizer("ViT-B-32").encode(part)) >= MOST_WORDS


@pytest.mark.parametrize("filler", ["dog ", "a dog's 12 mats, ", "- "])
def test_the_graph_has_nothing_beyond_the_parsed_part(parser: Parser, filler: str) -> None:
    caption = "A woman rides a brown horse. " + filler * 400 + " and a red car is next to a blue house"
    graph = parser.parse([caption])[0]
    assert graph.caption == caption
    assert ("woman", "ride", "horse") in graph.triples()
    assert not {"car", "house"} & {obj.name for obj in graph.objects}


def graph_of(relations: int, attributes: int) -> SceneGraph:
    """Return a graph of two objects at characters 0 and 1; relations and attributes start at character 10."""
    objects = (Object("a", (0, 1), (0, 1)), Object("b", (1, 2), (1, 2)))
    return SceneGraph(
        "." * 100,
        objects,
        tuple(Attribute(0, f"a{k}", (10 + k, 11 + k)) for k in range(attributes)),
        tuple(Relation(0, f"r{k}", 1, (10 + k, 11 + k)) for k in range(relations)),
    )


@pytest.mark.parametrize(
    ("relations", "attributes", "most", "kept"),
    [
        (2, 3, 6, "r0 r1 a0 a1 a2"), (9, 9, 6, "r0 r1 r2 r3 a0 a1"), (9, 1, 6, "r0 r1 r2 r3 r4 a0"),
        (9, 0, 6, "r0 r1 r2 r3 r4 r5"), (1, 9, 6, "r0 a0 a1 a2 a3 a4"), (0, 9, 2, "a0 a1"), (9, 9, 3, "r0 r1 a0"),
        (9, 9, 2, "r0 a0"), (9, 9, 1, "r0"), (0, 9, 1, "a0"), (0, 0, 6, ""),
    ],
)  # fmt: skip
def test_relations_and_attributes_share_the_triples_that_the_encoder_takes(
    relations: int, attributes: int, most: int, kept: str
) -> None:
    window = Window.of(graph_of(relations, attributes), 100, most)
    assert [r if r != "is" else h for h, r, _ in window.triples] == kept.split()


def test_triples_whose_words_the_tower_does_not_read_are_not_kept() -> None:
    graph = graph_of(3, 3)
    assert Window.of(graph, 12, 6).triples == [
        ("a", "r0", "b"), ("a", "r1", "b"), ("a0", "is", "a"), ("a1", "is", "a"),
    ]  # fmt: skip
    assert Window.of(graph, 1, 6).triples == []  # its second object is not read


def test_negated_relations_take_no_place_among_the_triples(parser: Parser) -> None:
    graph = graph_of(2, 0)
    denied = SceneGraph(
        graph.caption, graph.objects, (), (Relation(0, "no", 1, (5, 6), negated=True), *graph.relations)
    )
    assert Window.of(denied, 100, 2).triples == graph.triples()


def test_more_words_are_parsed_and_exchanged_for_a_model_of_long_context(parser: Parser) -> None:
    long = Parser(most_words=118)
    assert long.version == f"{parser.version}+words-118" == parser_version(most_words=118)
    assert Parser(most_words=22).version == parser.version == parser_version(most_words=22)
    caption = "It was very good. " * 18 + "A woman rides a brown horse." + " No one else is there." * 9
    for reader, seen in ((parser, False), (long, True)):
        graph = reader.parse([caption])[0]
        restored = SceneGraph.from_json(graph.to_json())
        assert (restored, restored.words) == (graph, 118 if seen else 0)
        assert (("woman", "ride", "horse") in graph.triples()) == seen
        exchanges = {negative.caption for negative in natural(restored)}
        assert (
            caption.replace("woman rides a brown horse", "horse rides a brown woman") in exchanges
        ) == seen
        assert all(text.endswith(parsed_part(caption, graph.words)[1]) for text in exchanges)
