"""The parser reads captions into graphs with spans in the text, and accepts any text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sclip.scenegraph import Parser, ParserError, SceneGraph, parser_version
from support.commands import command
from support.paths import ROOT


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


def test_graph_of_an_object_with_a_measure_word_survives_json(parser: Parser) -> None:
    caption = "a large group of people on a beach without a red car"
    graph = parser.parse([caption])[0]
    phrases = [caption[slice(*obj.phrase)] for obj in graph.objects]
    assert phrases == ["a large group of people", "a beach", "a red car"]
    assert SceneGraph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def test_pronoun_is_no_object(parser: Parser) -> None:
    graphs = parser.parse(["she is holding it", "they look at him", "this is a bench"])
    assert [[obj.name for obj in graph.objects] for graph in graphs] == [[], [], ["bench"]]


def test_version_names_rules_and_pipeline(parser: Parser) -> None:
    assert parser.version.startswith("rules-")
    assert "core_web_sm" in parser.version
    assert parser_version() == parser.version  # without loading the pipeline


def test_missing_pipeline_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(ParserError, match="'no_such_pipeline' is not installed; run `pip install") as caught:
        Parser("no_such_pipeline")
    assert "\n" not in str(caught.value)


TEXTS = [
    "", " ", "x", "\x00\x07\t\u200b", "🐶 sits on a 🛋️ next to 👩‍👩‍👧", "כלב יושב על ספה ליד חתול",
    "<b>a dog</b> on a <i>sofa</i> &amp; a cat", "ein Hund sitzt auf dem Sofa", "a dog " * 5000,
    "of of of on the left of and and , , 's 's is", "\ud800 a dog on a \udfff mat", "A\nDOG\r\nON A\x0bSOFA",
    "-" * 300, "a-" * 300,
]  # fmt: skip
_WORDS = st.sampled_from(
    """a an the two dog dogs man's woman red blue wooden small sitting sits is are on in of next to left side top with
    and , . who while holding covered by there it his glass plate group running very 's TV umbrella hour -""".split()
)


def examples(test: Callable[..., None]) -> Callable[..., None]:
    for text in TEXTS:
        test = example(text)(test)
    return test


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.lists(_WORDS, max_size=20).map(" ".join), st.text(max_size=80)))
@examples
def test_any_text_gives_a_graph_whose_spans_lie_inside_it(parser: Parser, text: str) -> None:
    graph = parser.parse([text])[0]
    assert graph.caption == text
    for part in (*graph.objects, *graph.attributes, *graph.relations):
        assert 0 <= part.span[0] <= part.span[1] <= len(text)
    for obj in graph.objects:
        assert 0 <= obj.phrase[0] <= obj.span[0] < obj.span[1] <= obj.phrase[1] <= len(text)
    count = len(graph.objects)
    assert all(0 <= a.object < count for a in graph.attributes)
    assert all(0 <= r.subject < count and 0 <= r.object < count for r in graph.relations)


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
