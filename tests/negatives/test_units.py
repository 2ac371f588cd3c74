"""Units of a caption and their foils: both are English, the unit is true, the foil is surely false."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sclip.evaluate.benchmarks import About
from sclip.evaluate.kinds import KINDS
from sclip.negatives import UnitPair, half_truth_of, natural, unit_of
from sclip.scenegraph import Parser
from support.commands import command
from support.pictures import encoded, noise
from support.tars import tar_bytes

# caption, a unit, its foil, and the true part of the half-truth
MADE = [
    ("A small dog chases a red ball", "a red ball", "a green ball", "a ball"),
    ("Two goats eat an orange carrot on a hill", "an orange carrot", "a white carrot", "a carrot"),
    ("an old wagon near a lake", "an old wagon", "a modern wagon", "a wagon"),
    ("A cat is lying under the green table", "a cat lying under the green table", "a cat lying on the green table",
     "a cat"),
    ("The boy who is holding a kite kicks a ball", "the boy holding a kite", "the boy holding a frisbee", "the boy"),
    ("A woman and a man riding horses", "a woman riding horses", "a woman feeding horses", "a woman"),
    ("An astronaut rides a horse", "an astronaut rides a horse", "a horse rides an astronaut", "a horse"),
    ("A monkey sits near a lake", "a monkey", "a tiger", "a monkey"),
    ("A man on a bench", "a man on a bench", "a woman on a bench", None),
    ("There is a girl standing", "a girl standing", "a girl walking", "a girl"),
]  # fmt: skip

# caption -> a text that must not be a foil
NEVER = [
    ("A man on a bench", "a woman"),  # a woman may be there as well
    ("A cup on a chair", "a bed"),
    ("Three cups on a shelf", "two cups"),
    ("A woman and a man ride a horse", "a man leads a horse"),  # the unit would be "a man ride"
    ("A man in a black hat", "a black hat in a man"),
    ("a dog and another cat", "another dog"),
    ("a red ball, a blue cube and a blue ball", "a blue ball"),  # the caption has a blue ball
    ("a black cat on a white sofa and a white cat on a black chair", "a black cat"),
    ("a dog chasing a cat and a cat chasing a dog", "a cat chasing a dog"),
    ("a red car behind a blue truck and a blue car in front of a red truck", "a red truck behind a blue car"),
]


def pairs_of(parser: Parser, caption: str) -> list[tuple[UnitPair, str | None]]:
    """Return the pairs of a caption, each with the true part of its half-truth."""
    (graph,) = parser.parse([caption])
    units = [(unit_of(graph, negative), half_truth_of(graph, negative)) for negative in natural(graph)]
    return [(pair, half and half.unit) for pair, half in units if pair]


@pytest.mark.parametrize(("caption", "unit", "foil", "true"), MADE)
def test_a_unit_is_written_with_its_foil_and_its_half_truth(
    parser: Parser, caption: str, unit: str, foil: str, true: str | None
) -> None:
    pairs = pairs_of(parser, caption)
    assert (unit, foil) in {(p.unit.caption, p.foil.caption) for p, _ in pairs}
    (pair, half), *_ = ((p, h) for p, h in pairs if p.foil.caption == foil)
    assert half == true
    for graph in (pair.unit, pair.foil):
        for obj in graph.objects:  # each span holds the words of its part
            assert obj.name.split()[-1][:3] in graph.caption[slice(*obj.span)].lower()
        for a in graph.attributes:
            assert graph.caption[slice(*a.span)] in (a.attribute, "two")
    assert pair.unit.triples() != pair.foil.triples() or pair.kind == "replaced object"


@pytest.mark.parametrize(("caption", "foil"), NEVER)
def test_a_text_that_may_be_true_or_is_broken_english_is_no_foil(
    parser: Parser, caption: str, foil: str
) -> None:
    assert foil not in {pair.foil.caption for pair, _ in pairs_of(parser, caption)}


def test_a_benchmark_of_half_truths_is_made_from_shards_and_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = encoded(noise(8, 8))
    members = {
        "a.jpg": picture, "a.txt": b"A small cat is lying under a green table\nA photo", "b.jpg": picture,
        "b.txt": b"a view", "c.txt": b"a red ball",
    }  # fmt: skip
    (tmp_path / "0.tar").write_bytes(tar_bytes(members.items()))
    job, out = command("halftruth"), tmp_path / "made.jsonl"
    assert job(tmp_path / "0.tar", out, "--seed", "3") == 0
    output = capsys.readouterr().out
    assert "1 half-truths (1 " in output
    assert "of 3 captions, 1 images; 1 unusable samples left out" in output
    first = out.read_text()
    assert job(tmp_path / "0.tar", out, "--seed", "3") == 0
    assert out.read_text() == first
    (tmp_path / "others").mkdir()
    other_tar = tar_bytes((members | {"a.jpg": encoded(noise(9, 9))}).items())
    (tmp_path / "others" / "0.tar").write_bytes(other_tar)  # a shard and a sample of the same names
    assert job(tmp_path / "others" / "0.tar", tmp_path / "others.jsonl", "--seed", "3") == 0
    entry = json.loads(first)
    assert (tmp_path / "images" / entry["image"]).read_bytes() == picture
    (case,) = KINDS["half-truth"].read(About("made", "half-truth", ""), out).cases
    assert (case.true, case.false) == (entry["unit"], (entry["half_truth"],))
    assert case.group == entry["kind"] in ("attribute", "relation", "object")
    assert case.picture.image == str(tmp_path / "images" / entry["image"])
