"""Pictures that a model was trained on are left out of its benchmarks, counted, and told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from sclip.config import EvaluateConfig
from sclip.evaluate import runner
from sclip.evaluate.benchmarks import BenchmarkDataError
from sclip.evaluate.exclusion import Exclusion, phash
from sclip.inference.scorer import Scorer
from sclip.prepare.exclude import write_list
from sclip.prepare.pack import RawSample, write_shards
from support.pictures import encoded, noise
from support.small_model import small_scorer


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return small_scorer()


def photograph(seed: int, size: tuple[int, int] = (320, 240)) -> bytes:
    """Return a picture of soft shapes, different for each seed."""
    return encoded(noise(7, 6, seed).resize(size, Image.Resampling.BICUBIC), "JPEG", quality=90)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Twelve cases on six pictures, each shown in two crops, and a shard of the same pictures."""
    entries = []
    for number in range(6):
        (tmp_path / f"picture-{number}.jpg").write_bytes(photograph(number))
        entries += [
            {
                "image_path": f"picture-{number}.jpg", "relation_name": "on",
                "bbox_x": left, "bbox_y": 0, "bbox_w": 150, "bbox_h": 200,
                "true_caption": f"a {colour} cup on a table", "false_caption": f"a table on a {colour} cup",
            }
            for left, colour in ((0, "red"), (160, "blue"))
        ]  # fmt: skip
    (tmp_path / "relation.json").write_text(json.dumps(entries))
    samples = [RawSample(f"sample-{n}", photograph(n), "jpg", (f"picture {n}",)) for n in range(6)]
    write_shards(samples, tmp_path / "shards")
    (tmp_path / "suite.yaml").write_text(
        "relation: {kind: vg-relation, file: relation.json}\nretrieval: {kind: shards, shards: shards/*.tar}\n"
    )
    return tmp_path


def excluding(made: Path, *entries: Exclusion) -> EvaluateConfig:
    write_list(entries, made / "trained.jsonl")
    return EvaluateConfig(suite=str(made / "suite.yaml"), exclude=(str(made / "trained.jsonl"),))


def test_pictures_named_or_alike_are_left_out_with_all_their_crops_and_counted(
    scorer: Scorer, made: Path
) -> None:
    smaller = Image.open(made / "picture-3.jpg").resize((96, 72))
    named, alike = Exclusion("coco-train", "picture-1"), Exclusion("mine", "", phash(smaller))
    relation, retrieval = runner.evaluate(scorer, excluding(made, named, alike)).results
    assert relation.counts["cases"] == 8
    assert relation.notes == [
        "1 picture excluded: looks like a picture of mine",
        "1 picture excluded: named as a picture of coco-train",
        "partial: 8 of 12 cases, not comparable with published figures",
    ]
    assert retrieval.counts["images"] == 5
    assert retrieval.notes[0] == "1 picture excluded: looks like a picture of mine"


def test_a_list_that_meets_no_picture_changes_nothing(scorer: Scorer, made: Path) -> None:
    config = excluding(made, Exclusion("coco-train", "another"), Exclusion("mine", "", "0123456789abcdef"))
    plain = EvaluateConfig(suite=str(made / "suite.yaml"))
    found, expected = (runner.evaluate(scorer, asked) for asked in (config, plain))
    assert found.results == expected.results


def test_a_benchmark_all_of_whose_pictures_are_excluded_is_an_error_before_anything_is_encoded(
    made: Path,
) -> None:
    everything = [Exclusion("coco-train", f"picture-{number}") for number in range(6)]
    told = (
        "relation: all its pictures are 6 pictures excluded: named as a picture of coco-train; leave it out"
    )
    with pytest.raises(BenchmarkDataError, match=re.escape(told)):
        runner.check_files(excluding(made, *everything))


@pytest.mark.parametrize(
    ("content", "found"), [(None, "cannot be read"), ("nothing\n", r"trained\.jsonl line 1: is no")]
)
def test_a_list_that_cannot_be_read_is_an_error_with_its_place(
    made: Path, content: str | None, found: str
) -> None:
    config = excluding(made)
    if content is None:
        (made / "trained.jsonl").unlink()
    else:
        (made / "trained.jsonl").write_text(content)
    with pytest.raises(BenchmarkDataError, match=found):
        runner.check_files(config)
