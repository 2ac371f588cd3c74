"""Benchmarks measure peers in turns on the same work. No test asserts a speed."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sclip.benchmark import evaluate, scenegraph
from sclip.benchmark.captions import CaptionsError, generated, joined, read
from sclip.benchmark.foils import changed
from sclip.benchmark.rounds import rates_of
from sclip.benchmark.table import Line, Plain, Table
from sclip.inference.open_model import open_model
from support.commands import command
from support.paths import ROOT

JOB = [sys.executable, str(ROOT / "jobs" / "benchmark.py")]


def test_generated_captions_are_deterministic_and_read_like_captions() -> None:
    captions = generated(300)
    assert captions == generated(300) != generated(300, seed=1)
    assert len(set(captions)) == 300
    assert not [caption for caption in captions if set("{}-_") & set(caption) or "  " in caption]
    assert 8 < sum(len(caption.split()) for caption in captions) / 300 < 16


COCO = json.dumps({"annotations": [{"id": 1, "caption": "a dog\n"}, {"id": 2, "caption": "a cat"}]})


@pytest.mark.parametrize(
    ("name", "text", "captions"),
    [
        ("a.txt", "a dog\n\n a cat \n", ["a dog", "a cat"]), ("a.json", COCO, ["a dog", "a cat"]),
        ("a.txt", "\n", []), ("a.json", "{", []), ("a.json", '{"images": []}', []),
    ],
)  # fmt: skip
def test_captions_are_read_from_lines_and_from_coco(
    tmp_path: Path, name: str, text: str, captions: list[str]
) -> None:
    (tmp_path / name).write_text(text)
    if captions:
        assert read(tmp_path / name) == captions
    else:
        with pytest.raises(CaptionsError, match=name):
            read(tmp_path / name)


def test_every_peer_runs_every_round_in_alternating_order_and_the_first_round_is_not_counted() -> None:
    calls: list[tuple[str, int]] = []
    peers = {name: lambda work, name=name: calls.append((name, work[0])) for name in "ab"}
    finished: list[int] = []
    rates = rates_of(peers, [[0, 0], [1, 1], [2, 2]], finished.append)
    assert calls == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert finished == [0, 1, 2]
    assert [len(rate) for rate in rates.values()] == [2, 2]


def test_a_foil_is_compared_where_it_differs_from_its_caption() -> None:
    assert changed("A cat on a mat.", "A cat under a mat.") == ((6, 8), {"under"})
    assert changed("two red cups", "two cups") == ((4, 7), frozenset())
    assert changed("a man rides", "a man rides fast") == ((11, 11), {"fast"})


def test_a_ratio_compares_the_same_rounds() -> None:
    rates = {"a": [10.0, 20.0, 40.0], scenegraph.SAME: [5.0, 10.0, 20.0]}
    assert scenegraph.line_of("a", rates).found == "20 (10 to 40) captions/s, 2.00 x spaCy"
    with_both = rates | {scenegraph.SCENE_GRAPH_PARSER: [1.0, 20.0, 20.0]}
    assert scenegraph.line_of("a", with_both).found == "20 (10 to 40) captions/s, 2.00 x SGP, 2.00 x spaCy"


def test_joined_captions_have_the_requested_number_of_words_and_share_no_caption() -> None:
    captions = [f"a caption number {k}" for k in range(90)]
    short, long = joined(captions, 150), joined(captions, 1000)
    assert [len(text.split()) for text in short] == [150, 150]
    assert [len(text.split()) for text in long] == [1000, 1000]
    assert not set(short[0].split(". ")[:37]) & set(short[1].split(". ")[:37])
    assert all(one.startswith(other.removesuffix(".")) for one, other in zip(long, short, strict=True))


def test_the_job_prints_a_row_for_each_peer_and_writes_the_rows_as_json(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [*JOB, "scenegraph", "--count", "10", "--rounds", "2", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == [
        scenegraph.OURS, scenegraph.EXCHANGES, scenegraph.VERIFIED, scenegraph.POSITIVES, scenegraph.GRAPHS,
        scenegraph.PIPELINE, scenegraph.SAME, scenegraph.MORE,
        "sclip, 150 words", "sclip, 1,000 words", scenegraph.SCENE_GRAPH_PARSER,
    ]  # fmt: skip
    assert all(name in done.stdout for name in rows)
    assert all(len(row["figures"]["per_s"]) == 2 for row in rows.values() if row["figures"])
    assert ", 1.00 x spaCy, " in rows[scenegraph.SAME]["found"]
    assert "processor" in done.stdout
    missing = importlib.util.find_spec("sng_parser") is None
    peer = rows[scenegraph.SCENE_GRAPH_PARSER]
    assert (peer["found"] == scenegraph.MISSING) == (peer["figures"] == {}) == missing
    assert (scenegraph.MISSING in done.stdout) == ("SGP" not in rows[scenegraph.OURS]["found"]) == missing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("scenegraph --count 0", "--count and --rounds: 1 or more\n"),
        ("scenegraph --spacy-model no_such_pipeline", "spaCy pipeline 'no_such_pipeline' is not installed"),
        ("scenegraph --captions absent.txt", "[Errno 2] No such file or directory: 'absent.txt'\n"),
        ("scale --samples 1000", "--samples: 32,768 or more, 16 batches for each worker"),
        ("scale --workers 2", "--workers: must be two different numbers"),
        ("scale --workers 0 1", "--share, --workers: 1 or more; --image-size: 32 or more"),
        ("scenegraph --encoder ViT-B-32:", "--encoder goes with --gold"),
        ("evaluate --images 5", "--images: 10 or more; --rounds: 1 or more"),
        ("stream --samples 512 --processes 2", "--samples: 6,400 or more, as 2 processes"),
        ("stream --processes 0", "--batch, --rounds, --processes: 1 or more; --image-size: 32 or more"),
    ],
)
def test_a_benchmark_refuses_invalid_options_with_a_message(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("benchmark")(*arguments.split()) == 2
    assert capsys.readouterr().err.startswith(f"benchmark: {message}")


def test_the_evaluation_and_its_peer_compute_the_same_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = open_model("scenes-conv:")
    # Pictures as large as the model's are not resized. Rounding may exchange two candidates of nearly equal scores.
    images = evaluate.drawn(tmp_path, generated(150), side=48)
    assert evaluate.ours(scorer, images) == pytest.approx(evaluate.peer(scorer, images), abs=1.01 / 30)
    assert command("benchmark")("evaluate", "--images", "10", "--rounds", "1", "--json", "-") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["what"] for row in rows] == [evaluate.OURS, evaluate.PEER]
    assert all(rate > 0 for row in rows for rates in row["figures"].values() for rate in rates)


def test_the_table_prints_the_same_lines_with_and_without_rich(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        Line("a step", "a peer", "1.0 x", "1.07 x", {"s": [1.0]}, "more of it"),
        Line("b", "", "", "no", {}, traceback="why"),
    ]
    table = Table(rows, {"torch": "2"})
    console = Console(file=io.StringIO(), width=20, highlight=False)
    table.show(console)
    table.show(Plain())
    assert isinstance(console.file, io.StringIO)
    printed = capsys.readouterr().out
    assert printed == console.file.getvalue()
    assert [line.split() for line in printed.splitlines()[1:]] == [
        ["a", "step", "a", "peer", "1.0", "x", "1.07", "x"], ["b", "no"], ["torch", "2"], ["more", "of", "it"],
    ]  # fmt: skip
