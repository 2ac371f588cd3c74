"""The parser reads what captions say, finds it in the text, and takes any text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sclip.scenegraph import Parser, ParserError, SceneGraph, parser_version
from support.commands import command
from support.paths import ROOT

# caption -> (relations, attributes as "object: attribute"), as FACTUAL's annotators write them
CAPTIONS = {
    "people sitting in bleachers": ({"people sit in bleacher"}, set()),
    "a small red circle to the left of a blue square": (
        {"circle at the left of square"},
        {"circle: small", "circle: red", "square: blue"},
    ),
    "A green triangle is above a yellow star.": (
        {"triangle above star"},
        {"triangle: green", "star: yellow"},
    ),
    "there is a red square below the large blue circle": (
        {"square under circle"},
        {"square: red", "circle: large", "circle: blue"},
    ),
    "a blue square with a red circle on its right": (
        {"circle on the right side of square"},
        {"square: blue", "circle: red"},
    ),
    "two dogs sit on an orange couch": ({"dog sit on couch"}, {"dog: 2", "couch: orange"}),
    "the car is covered in snow": ({"snow cover car"}, set()),
    "a house surrounded by trees": ({"tree surround house"}, set()),
    "zebra's head": ({"zebra have head"}, set()),
    "the wheels of the bus": ({"bus have wheel"}, set()),
    "a traffic light hanging from a metal pole": ({"traffic light hang from pole"}, {"pole: metal"}),
    "trees and bushes growing on green lawn": ({"tree grow on lawn", "bush grow on lawn"}, {"lawn: green"}),
    "a man wearing a blue shirt and black pants": (
        {"man wear shirt", "man wear pant"},
        {"shirt: blue", "pant: black"},
    ),
    "the grass is tall": (set(), {"grass: tall"}),
    "a black and white dog": (set(), {"dog: black", "dog: white"}),
    "a woman who is holding an umbrella": ({"woman hold umbrella"}, set()),
    "a cat on top of a car in front of a house": ({"cat on top of car", "cat in front of house"}, set()),
    "a bowl with a spoon in it": ({"spoon in bowl"}, set()),
    "a pair of shoes on the floor": ({"shoe on floor"}, {"shoe: 2"}),
    "a bunch of bananas on a table": ({"banana on table"}, set()),
    "TWO GIRAFFES STANDING IN THE SHADE": ({"giraffe stand in shade"}, {"giraffe: 2"}),
    "a man rides a horse": ({"man ride horse"}, set()),
    "a dark blue car parked on the street": ({"car park on street"}, {"car: dark blue"}),
    "he is wearing a hat": (set(), set()),
}


def _said(graph: SceneGraph) -> tuple[set[str], set[str]]:
    name = [obj.name for obj in graph.objects]
    return (
        {f"{name[r.subject]} {r.predicate} {name[r.object]}" for r in graph.relations},
        {f"{name[a.object]}: {a.attribute}" for a in graph.attributes},
    )


@pytest.mark.parametrize("caption", CAPTIONS)
def test_caption_gives_the_graph_that_a_person_writes(parser: Parser, caption: str) -> None:
    assert _said(parser.parse([caption])[0]) == CAPTIONS[caption]


def test_spans_cut_names_phrases_attributes_and_predicates_out_of_the_caption(parser: Parser) -> None:
    caption = "A small red circle to the left of two traffic lights."
    graph = parser.parse([caption])[0]
    assert [caption[slice(*obj.phrase)] for obj in graph.objects] == [
        "A small red circle",
        "two traffic lights",
    ]
    assert [caption[slice(*obj.span)] for obj in graph.objects] == ["circle", "traffic lights"]
    assert [caption[slice(*a.span)] for a in graph.attributes] == ["small", "red", "two"]
    assert [caption[slice(*r.span)] for r in graph.relations] == ["to the left of"]


def test_phrase_of_a_measured_object_holds_the_measure(parser: Parser) -> None:
    caption = "a large group of people on a beach"
    graph = parser.parse([caption])[0]
    assert [caption[slice(*obj.phrase)] for obj in graph.objects] == ["a large group of people", "a beach"]


def test_pronoun_is_no_object(parser: Parser) -> None:
    graphs = parser.parse(["she is holding it", "they look at him", "this is a bench"])
    assert [[obj.name for obj in graph.objects] for graph in graphs] == [[], [], ["bench"]]


def test_graphs_come_in_the_order_of_the_captions_and_do_not_depend_on_the_batch(parser: Parser) -> None:
    captions = list(CAPTIONS)
    alone = [parser.parse([caption])[0] for caption in captions]
    assert parser.parse(captions) == alone
    assert [graph.caption for graph in alone] == captions


def test_graph_survives_its_json(parser: Parser) -> None:
    for graph in parser.parse(list(CAPTIONS)):
        assert SceneGraph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def test_version_names_rules_and_pipeline(parser: Parser) -> None:
    assert parser.version.startswith("rules-")
    assert "core_web_sm" in parser.version
    assert parser_version() == parser.version  # without loading it


def test_missing_pipeline_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(ParserError, match="'no_such_pipeline' is not installed; run `pip install") as caught:
        Parser("no_such_pipeline")
    assert "\n" not in str(caught.value)


def _check_spans(graph: SceneGraph, length: int) -> None:
    for start, end in [
        *(obj.span for obj in graph.objects),
        *(obj.phrase for obj in graph.objects),
        *(a.span for a in graph.attributes),
        *(r.span for r in graph.relations),
    ]:
        assert 0 <= start <= end <= length
    count = len(graph.objects)
    assert all(0 <= a.object < count for a in graph.attributes)
    assert all(0 <= r.subject < count and 0 <= r.object < count for r in graph.relations)
    for obj in graph.objects:
        assert obj.phrase[0] <= obj.span[0] < obj.span[1] <= obj.phrase[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "\x00\x07\t\u200b",
        "🐶 sits on a 🛋️ next to 👩‍👩‍👧",
        "כלב יושב על ספה ליד חתול",
        "<b>a dog</b> on a <i>sofa</i> &amp; a cat",
        "ein Hund sitzt auf dem Sofa",
        "a dog " * 5000,
        "of of of on the left of and and , , 's 's is",
        "\ud800 a dog on a \udfff mat",
        "A\nDOG\r\nON A\x0bSOFA",
        "-" * 300,
        "a-" * 300,
    ],
)
def test_any_text_gives_a_graph_inside_it(parser: Parser, text: str) -> None:
    graph = parser.parse([text])[0]
    assert graph.caption == text
    _check_spans(graph, len(text))


_WORDS = st.sampled_from(
    """a an the two dog dogs man's woman red blue wooden small sitting sits is are on in of next to left side top with
    and , . who while holding covered by there it his glass plate group running very 's TV umbrella hour -""".split()
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.lists(_WORDS, max_size=20).map(" ".join), st.text(max_size=80)))
def test_spans_of_any_text_lie_inside_it(parser: Parser, text: str) -> None:
    _check_spans(parser.parse([text])[0], len(text))


def test_command_writes_one_graph_a_line_in_order(tmp_path: Path) -> None:
    source, out = tmp_path / "captions.txt", tmp_path / "graphs.jsonl"
    source.write_bytes(b"a dog on a mat\r\n\n\xff\xfe a cat\nlast line without end")
    assert command("graph")(source, "--out", out) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["caption"] for row in rows] == ["a dog on a mat", "", "�� a cat", "last line without end"]
    assert rows[0]["relations"][0] | {"subject": 0, "predicate": "on", "object": 1} == rows[0]["relations"][0]
    assert rows[1]["objects"] == []


def test_command_reads_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    source = tmp_path / "captions.txt"
    source.write_bytes(b"a red ball\n")
    with source.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert command("graph")("-") == 0
    assert json.loads(capsysbinary.readouterr().out)["attributes"][0]["attribute"] == "red"


def test_command_names_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("graph")(tmp_path / "absent.txt") == 2
    assert "absent.txt" in capsys.readouterr().err
    source = tmp_path / "captions.txt"
    source.write_text("a dog\n")
    assert command("graph")(source, "--spacy-model", "no_such_pipeline") == 2
    assert "pip install" in capsys.readouterr().err


def test_graphs_negatives_and_annotations_are_read_without_spacy() -> None:
    program = "import sys, sclip.scenegraph, sclip.negatives, sclip.data.annotation; assert 'spacy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
