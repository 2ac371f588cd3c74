"""Draws are written to be labelled, refused while labels are missing, and counted with the agreement of two readers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from support.commands import command

label = command("label")
SCENES = [
    f"a {one} {first} chasing a {other} {second}"
    for one, other in (("red", "blue"), ("small", "white"))
    for first, second in (("dog", "cat"), ("boy", "horse"), ("girl", "sheep"))
]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(["sky", "", SCENES[0], *SCENES]) + "\n")
    return path


def fill(path: Path, **labels: list[str]) -> Path:
    """Write the labels of each column into the first rows of a table, as a spreadsheet saves it."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, dialect="excel-tab"))
    for name, words in labels.items():
        for row, word in zip(rows, words, strict=False):
            row[name] = word
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, list(rows[0]), dialect="excel-tab")
        table.writeheader()
        table.writerows(rows)
    return path


def test_a_draw_takes_each_caption_once_and_a_smaller_draw_is_a_prefix_of_a_larger_one(
    captions: Path, tmp_path: Path
) -> None:
    few, all_ = tmp_path / "few.tsv", tmp_path / "all.tsv"
    assert label("draw", captions, few, "--count", 3) == label("draw", captions, all_) == 0
    lines = all_.read_text().splitlines()
    assert few.read_text().splitlines() == lines[:4]
    assert lines[0].split("\t") == ["form", "meaning", "source", "caption", "negative", "kind", "swapped"]
    rows = list(csv.DictReader(lines, dialect="excel-tab"))
    assert sorted(row["caption"] for row in rows) == sorted(SCENES)
    caption_lines = captions.read_text().split("\n")
    assert all(row["caption"] == caption_lines[int(row["source"].split(":")[1]) - 1] for row in rows)


def test_rows_without_a_label_are_named(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["good"] * 4, "form is empty in line 6, 7; write good or broken"),
        (["good"] * 5 + ["fine"], "form is 'fine' in line 7; write good or broken"),
    ):
        out = tmp_path / f"{len(words)}.tsv"
        label("draw", captions, out)
        fill(out, form=words, meaning=["changed"] * 6)
        assert label("count", out) == 2
        assert capsys.readouterr().err == f"label count: {out}: {message}\n"


def test_two_readers_are_counted_and_compared_and_digests_keep_their_labels(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, digests = tmp_path / "one.tsv", tmp_path / "other.tsv", tmp_path / "kept.jsonl"
    label("draw", captions, one)
    label("draw", captions, other, "--count", 4)
    fill(one, form=["broken", "Good", "broken", "good", "good", "good"], meaning=["changed"] * 6)
    fill(other, form=["broken", "good", "good", "good"], meaning=["changed"] * 4)
    capsys.readouterr()
    assert label("count", one, "--second", other, "--digests", digests) == 0
    assert capsys.readouterr().out.splitlines() == [
        "one.tsv: form broken: 2 of 6, 0.333 (0.043 to 0.777)",
        "other.tsv: form broken: 1 of 4, 0.250 (0.006 to 0.806)",
        "form: the two agree on 0.750 of 4, Cohen's kappa 0.50",
        "one.tsv: meaning kept: 0 of 6, 0.000 (0.000 to 0.459)",
        "other.tsv: meaning kept: 0 of 4, 0.000 (0.000 to 0.602)",
        "meaning: the two agree on 1.000 of 4, Cohen's kappa not defined, both use one label only",
    ]
    assert not [scene for scene in SCENES if scene in digests.read_text()]
    assert json.loads(digests.read_text().splitlines()[1])["form"] == "good"
    assert label("count", digests, "--second", one) == 0
    assert "the two agree on 1.000 of 6" in capsys.readouterr().out
    digests.write_text("\n\n" + digests.read_text().replace('"good"', '"fine"', 1))
    assert label("count", digests) == 2
    named = next(n for n, line in enumerate(digests.read_text().splitlines(), start=1) if '"fine"' in line)
    assert f"form is 'fine' in line {named};" in capsys.readouterr().err


def test_graphs_are_written_as_their_triples(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions.write_text(SCENES[0])
    for subject, triples in (
        ("graphs", "(dog, chase, cat) (red, is, dog) (blue, is, cat)"),
        ("triples", "(dog, chase, cat)"),
    ):
        out = tmp_path / f"{subject}.tsv"
        assert label("draw", captions, out, "--of", subject) == 0
        assert out.read_text().splitlines()[1].split("\t") == ["", "captions.txt:1", SCENES[0], triples]
    fill(out, wrong=["no", "yes", "no"])
    capsys.readouterr()
    assert label("count", out) == 0
    assert capsys.readouterr().out.startswith("triples.tsv: wrong yes: ")


def test_positives_and_replacements_can_be_drawn_alone(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions.write_text("A lamp above a bed.\n")
    out, replacements = tmp_path / "positives.tsv", tmp_path / "replacements.tsv"
    assert label("draw", captions, out, "--of", "positives") == 0
    row = ["", "", "captions.txt:1", "A lamp above a bed.", "A bed below a lamp.", "place"]
    assert out.read_text().splitlines()[1].split("\t") == row
    fill(out, form=["good"], meaning=["kept"])
    capsys.readouterr()
    assert label("count", out) == 0
    assert "meaning changed: 0 of 1" in capsys.readouterr().out
    assert label("draw", captions, replacements, "--of", "replacements") == 0
    assert "\treplaced " in replacements.read_text()


def test_an_impossible_draw_or_count_is_refused_in_one_line(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (("draw", captions, captions), "exists and may hold labels; name another file"),
        (("draw", tmp_path / "absent", tmp_path / "out"), "No such file or directory"),
        (("count", captions), "not a table of labels; sclip label draw writes one"),
    ):
        assert label(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    captions.write_text("sky\n")
    assert label("draw", captions, tmp_path / "out") == 2
    assert "none of its 1 captions gives any negatives" in capsys.readouterr().err
