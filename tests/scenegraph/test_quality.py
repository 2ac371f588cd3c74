"""The quality of graphs and negatives: by annotators' graphs, SugarCrepe's swaps, and labels given one by one.

`labelled_negatives.jsonl` holds 200 negatives that training draws from captions of COCO val2017, drawn and labelled
with `sclip label`. It identifies captions by digest, so that they need not be copied here.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sclip.benchmark.artefacts import text_only_auc
from sclip.config import ModelConfig
from sclip.data.caption_text import clean_caption
from sclip.data.window import window_of
from sclip.model import Tokenizer
from sclip.negatives import drawn_in_training
from sclip.scenegraph import Parser
from sclip.seeding import digest64
from support.commands import command
from support.paths import SHARED

DATA, BENCH = SHARED / "data", SHARED / "bench"
LABELS_SEED = 13

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is missing")


def _score(script: str, truth: Path, predicted: Path) -> dict[str, float]:
    command = [sys.executable, str(BENCH / script), str(truth), str(predicted)]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    return {name: float(value) for name, value in (pair.split("=") for pair in line.split())}


def _lines(path: Path, captions: list[str]) -> str:
    path.write_text("".join(caption.replace("\n", " ") + "\n" for caption in captions))
    return str(path)


@pytest.mark.shared
@needs_data
def test_graphs_agree_with_those_of_factuals_annotators(tmp_path: Path) -> None:
    truth = DATA / "factual" / "dev.csv"
    with truth.open(newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    out = tmp_path / "graphs.jsonl"
    assert command("graph")(_lines(tmp_path / "captions.txt", captions), "--out", out) == 0
    score = _score("score_scenegraph.py", truth, out)
    assert score["micro_f1"] >= 0.85
    assert score["relations"] >= 0.74
    assert score["exact"] >= 0.68


@pytest.mark.shared
@needs_data
@pytest.mark.parametrize("kind", ["swap_obj", "swap_att"])
def test_negatives_contain_most_swaps_of_sugarcrepe(kind: str, tmp_path: Path) -> None:
    truth = DATA / "sugarcrepe" / f"{kind}.json"
    captions = [case["caption"] for case in json.loads(truth.read_text()).values()]
    out = tmp_path / "negatives.jsonl"
    source = _lines(tmp_path / "captions.txt", captions)
    assert command("negatives")(source, "--max-candidates", "12", "--out", out) == 0
    score = _score("score_negatives.py", truth, out)
    assert score["recall"] >= 0.60
    assert score["unchanged"] == 0


@pytest.fixture(scope="module")
def drawn() -> list[tuple[str, str | None, int]]:
    """Return (caption, drawn negative or None, image id) of each caption of COCO val2017."""
    entries = json.loads((DATA / "coco_captions_val2017.json").read_text())["annotations"]
    parser, model = Parser(), ModelConfig()
    tokenizer = Tokenizer(model)
    captions = [clean_caption(entry["caption"]) for entry in entries]
    windows = [window_of(graph, tokenizer) for graph in parser.stream(captions)]
    negatives = drawn_in_training(windows, captions, parser.shapes, seed=LABELS_SEED)
    return [
        (caption, negative.caption if negative else None, entry["image_id"])
        for entry, caption, negative in zip(entries, captions, negatives, strict=True)
    ]


@pytest.mark.shared
@needs_data
def test_most_captions_get_a_negative_that_text_alone_hardly_gives_away(
    drawn: list[tuple[str, str | None, int]],
) -> None:
    pairs = [(caption, false, image) for caption, false, image in drawn if false]
    assert len(pairs) >= 0.85 * len(drawn)
    assert text_only_auc(pairs) < 0.68


@pytest.mark.shared
@needs_data
def test_the_labelled_negatives_are_those_that_training_draws_today(
    drawn: list[tuple[str, str | None, int]],
) -> None:
    today = {
        format(digest64(caption), "016x"): format(digest64(false), "016x")
        for caption, false, _ in drawn
        if false
    }
    assert [(row["caption"], today.get(row["caption"])) for row in _labels()] == [
        (row["caption"], row["negative"]) for row in _labels()
    ]


@pytest.mark.parametrize(
    ("labelled", "fault", "most"),
    [
        ("negatives", {"form": "broken"}, 0.06),
        ("negatives", {"meaning": "kept"}, 0.06),
        ("replacements", {"form": "broken"}, 0.05),
        ("replacements", {"meaning": "kept"}, 0.05),
        ("positives", {"form": "broken"}, 0.03),
        ("positives", {"meaning": "changed"}, 0.03),
    ],
)
def test_few_of_200_labelled_draws_have_a_fault(labelled: str, fault: dict[str, str], most: float) -> None:
    labels = _labels(labelled)
    assert len({row["caption"] for row in labels}) == 200
    assert sum(fault.items() <= row.items() for row in labels) <= most * len(labels)


def _labels(labelled: str = "negatives") -> list[dict[str, object]]:
    lines = Path(__file__).with_name(f"labelled_{labelled}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
