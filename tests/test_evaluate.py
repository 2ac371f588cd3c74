"""The benchmark definitions against hand-computed cases, and the runner over real files."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import speckled
from PIL import Image
from small_model import small_scorer
from torch.nn import functional as F

from sclip.config import EvaluateConfig
from sclip.evaluate import benchmarks, metrics, runner
from sclip.evaluate.benchmarks import BenchmarkError
from sclip.scorer import Scorer

COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return small_scorer()


# The definitions


def test_accuracy_by_hand_over_relations_of_different_size() -> None:
    true = torch.tensor([0.9, 0.2, 0.7, 0.5])
    false = torch.tensor([0.1, 0.3, 0.1, 0.4])
    result = metrics.choice(true, false, ["on", "on", "on", "under"])
    assert result.accuracy == 3 / 4
    assert result.macro() == pytest.approx((2 / 3 + 1) / 2)


def test_a_tie_and_a_diverged_model_count_as_wrong() -> None:
    same, nan = torch.ones(2), torch.full((2,), torch.nan)
    assert metrics.choice(same, same, ["on", "on"]).accuracy == 0
    assert metrics.choice(nan, nan, ["on", "on"]).accuracy == 0
    features = F.normalize(torch.ones(20, 4), dim=1)
    assert set(metrics.recall(features, features, torch.arange(20)).values()) == {0.0}
    assert set(metrics.recall(features * torch.nan, features, torch.arange(20)).values()) == {0.0}


def test_a_pair_of_attributes_below_25_cases_is_no_part_of_the_mean() -> None:
    groups = ["black_white"] * 25 + ["red_blue"] * 24
    wins = torch.tensor([1.0] * 20 + [-1.0] * 5 + [1.0] * 24)
    result = metrics.choice(wins, torch.zeros(49), groups)
    assert result.macro(benchmarks.LEAST_ATTRIBUTE_CASES) == 20 / 25
    assert result.accuracy == 44 / 49
    assert metrics.choice(wins[25:], torch.zeros(24), groups[25:]).macro(25) is None


def test_recall_by_hand_with_two_captions_of_the_first_image() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    angles = torch.tensor([1.2, 0.1, 0.9])  # of the captions; images lie at 0 and at pi / 2
    texts = torch.stack([angles.cos(), angles.sin()], dim=1)
    scores = metrics.recall(images, texts, torch.tensor([0, 0, 1]))
    # Image 0: its caption at 0.1 is nearest. Image 1: caption 1.2 (image 0's) is nearer than its own at 0.9.
    assert scores["image_to_text_r1"] == 0.5
    assert scores["image_to_text_r5"] == 1.0
    # Caption 1.2 is nearer to image 1, and belongs to image 0; the other two find theirs.
    assert scores["text_to_image_r1"] == pytest.approx(2 / 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 2**31))
def test_recall_equals_sorting_every_candidate(images: int, more_captions: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    owner = torch.cat([torch.arange(images), torch.randint(images, (more_captions,), generator=generator)])
    image_features = F.normalize(torch.randn(images, 6, generator=generator, dtype=torch.float64), dim=1)
    text_features = F.normalize(torch.randn(len(owner), 6, generator=generator, dtype=torch.float64), dim=1)
    expected = brute_force(image_features.tolist(), text_features.tolist(), owner.tolist())
    assert metrics.recall(image_features, text_features, owner) == pytest.approx(expected)


def brute_force(images: list[list[float]], texts: list[list[float]], owner: list[int]) -> dict[str, float]:
    """Recall written down from its definition, in plain Python."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    scores = {}
    for k in (1, 5, 10):
        hits = 0
        for i, image in enumerate(images):
            ranked = sorted(range(len(texts)), key=lambda t: -cosine(image, texts[t]))
            hits += any(owner[t] == i for t in ranked[:k])
        scores[f"image_to_text_r{k}"] = hits / len(images)
        hits = 0
        for t, text in enumerate(texts):
            ranked = sorted(range(len(images)), key=lambda i: -cosine(images[i], text))
            hits += owner[t] in ranked[:k]
        scores[f"text_to_image_r{k}"] = hits / len(texts)
    return scores


def test_recall_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features = F.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    owner = torch.arange(50) % 23
    whole = metrics.recall(features[:23], features, owner)
    monkeypatch.setattr(metrics, "_CHUNK", 7)
    assert metrics.recall(features[:23], features, owner) == whole


# ARO's files


def relation_entry(**changes: Any) -> dict[str, Any]:
    entry = {
        "image_id": "2410753", "image_path": "a.png", "relation_name": "on",
        "bbox_x": 10, "bbox_y": 20, "bbox_w": 30, "bbox_h": 40,
        "true_caption": "the cup is on the table", "false_caption": "the table is on the cup",
    }  # fmt: skip
    return entry | changes


def aro_file(folder: Path, entries: Any, name: str = "relation.json") -> str:
    (folder / "images").mkdir(exist_ok=True)
    file = folder / name
    file.write_text(json.dumps(entries))
    return str(file)


def test_a_relation_file_is_read_as_aro_wrote_it(tmp_path: Path) -> None:
    path = aro_file(tmp_path, [relation_entry(), relation_entry(relation_name="next to")])
    Image.effect_noise((100, 100), 90).convert("RGB").save(tmp_path / "images" / "a.png")
    (case,) = benchmarks.relation_cases(path)
    assert case.group == "on"
    assert (case.true_caption, case.false_caption) == ("the cup is on the table", "the table is on the cup")
    with Image.open(tmp_path / "images" / "a.png") as whole:
        assert case.crop().tobytes() == whole.crop((10, 20, 40, 60)).tobytes()


@pytest.mark.parametrize("relation", ["next to", "near", "beside", "with", "on the other side of", "by"])
def test_symmetric_relations_are_left_out(relation: str) -> None:
    assert relation in benchmarks.LEFT_OUT


@pytest.mark.parametrize("relation", ["to the left of", "on", "below", "wearing", "riding", "sitting on", ""])
def test_other_relations_are_counted(relation: str) -> None:
    assert relation not in benchmarks.LEFT_OUT


def test_a_pair_of_attributes_keeps_its_order_as_in_aro(tmp_path: Path) -> None:
    entry = relation_entry(attributes=["open", "white"])
    swapped = relation_entry(attributes=["white", "open"])
    path = aro_file(tmp_path, [entry, swapped])
    assert [case.group for case in benchmarks.attribute_cases(path)] == ["open_white", "white_open"]


def test_the_image_folder_may_be_elsewhere(tmp_path: Path) -> None:
    path = aro_file(tmp_path, [relation_entry()])
    (case,) = benchmarks.relation_cases(path, images=str(tmp_path / "elsewhere"))
    assert case.image == tmp_path / "elsewhere" / "a.png"


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ({}, "must hold a list"),
        ([], "must hold a list"),
        ([relation_entry(), {}], "case 1: no field 'bbox_x'"),
        ([relation_entry(bbox_w=0)], "case 0: bbox_w=0"),
        ([relation_entry(true_caption=None)], "case 0: true_caption=None"),
        ([relation_entry(), "text"], "case 1: "),
        ([relation_entry(bbox_x="left")], "case 0: "),
    ],
)
def test_a_bad_benchmark_file_is_named_with_the_case(tmp_path: Path, entries: Any, found: str) -> None:
    path = aro_file(tmp_path, entries)
    with pytest.raises(BenchmarkError, match=r"relation\.json: ") as raised:
        benchmarks.relation_cases(path)
    assert found in str(raised.value)


def test_a_missing_file_and_a_missing_image_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"nothing\.json: cannot be read"):
        benchmarks.relation_cases(str(tmp_path / "nothing.json"))
    (case,) = benchmarks.relation_cases(aro_file(tmp_path, [relation_entry()]))
    with pytest.raises(BenchmarkError, match=r"a\.png: cannot be read"):
        case.crop()


# The runner


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A folder with an ARO file of each kind, its images, and two shards."""
    (tmp_path / "images").mkdir()
    for number in range(6):
        (tmp_path / "images" / f"{number}.png").write_bytes(speckled(number))
    entries = [
        relation_entry(
            image_path=f"{number % 6}.png", relation_name="on" if number % 3 else "near",
            attributes=["red", "blue"],
            true_caption=f"a {a} cup on a {b} table", false_caption=f"a {b} cup on a {a} table",
        )
        for number, (a, b) in enumerate((a, b) for a in COLOURS for b in COLOURS if a != b)
    ]  # fmt: skip
    aro_file(tmp_path, entries, "visual_genome_relation.json")
    aro_file(tmp_path, entries * 3, "visual_genome_attribution.json")
    for shard in range(2):
        write_shard(tmp_path / f"{shard}.tar", range(shard * 4, shard * 4 + 4))
    return tmp_path


def write_shard(path: Path, numbers: range, broken: int = -1) -> None:
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            captions = [f"picture {number} of a {colour} thing" for colour in COLOURS[: 1 + number % 3]]
            image = b"broken" if number == broken else speckled(number)
            for name, body in (("png", image), ("json", json.dumps({"captions": captions}).encode())):
                member = tarfile.TarInfo(f"{number:04d}.{name}")
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))


def test_the_choices_of_the_runner_equal_a_case_by_case_computation(scorer: Scorer, scenes: Path) -> None:
    config = EvaluateConfig(
        relation=str(scenes / "visual_genome_relation.json"),
        attribute=str(scenes / "visual_genome_attribution.json"),
        batch_size=4,
    )
    scores = runner.evaluate(scorer, config)
    wins = {"on": [], "near": []}  # type: dict[str, list[bool]]
    for entry in json.loads((scenes / "visual_genome_relation.json").read_text()):
        with Image.open(scenes / "images" / entry["image_path"]) as image:
            crop = image.crop((10, 20, 40, 60))
        true, false = scorer.score([crop, crop], [entry["true_caption"], entry["false_caption"]])
        wins[entry["relation_name"]].append(bool(true > false))
    every = wins["on"] + wins["near"]
    assert scores == {
        "relation/accuracy": sum(wins["on"]) / 8,
        "relation/macro": sum(wins["on"]) / 8,
        "relation/cases": 8,
        "attribute/accuracy": pytest.approx(sum(every) / 12),
        "attribute/macro": pytest.approx(sum(every) / 12),
        "attribute/cases": 36,
    }


def test_retrieval_of_the_runner_equals_brute_force(scorer: Scorer, scenes: Path) -> None:
    config = EvaluateConfig(retrieval=(str(scenes / "*.tar"),), batch_size=3)
    captions = [[f"picture {n} of a {c} thing" for c in COLOURS[: 1 + n % 3]] for n in range(8)]
    images = scorer.encode_image([speckled(number) for number in range(8)]).double().tolist()
    texts = scorer.encode_text([caption for some in captions for caption in some]).double().tolist()
    expected = brute_force(images, texts, [n for n, some in enumerate(captions) for _ in some])
    scores = runner.evaluate(scorer, config, training_shards=[])
    assert scores.pop("retrieval/images") == 8
    assert scores.pop("retrieval/captions") == len(texts)
    assert {name.removeprefix("retrieval/"): score for name, score in scores.items()} == pytest.approx(
        expected
    )


def test_retrieval_on_training_images_says_so(scorer: Scorer, scenes: Path) -> None:
    everything = [str(scenes / "{0..1}.tar")]
    of_training = runner.evaluate(scorer, EvaluateConfig(retrieval_images=5), everything)
    assert of_training["retrieval_on_training_images/images"] == 5
    overlapping = EvaluateConfig(retrieval=(str(scenes / "1.tar"),))
    assert "retrieval_on_training_images/images" in runner.evaluate(scorer, overlapping, everything)
    assert "retrieval/images" in runner.evaluate(scorer, overlapping, [str(scenes / "0.tar")])


def test_a_broken_image_of_a_shard_is_left_out_and_told(
    scorer: Scorer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shard(tmp_path / "a.tar", range(4), broken=2)
    scores = runner.evaluate(scorer, EvaluateConfig(retrieval=(str(tmp_path / "a.tar"),)))
    assert scores["retrieval/images"] == 3
    assert "0002" in caplog.text


def test_shards_without_a_readable_image_are_an_error(scorer: Scorer, tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", range(1), broken=0)
    with pytest.raises(BenchmarkError, match="no readable image"):
        runner.evaluate(scorer, EvaluateConfig(retrieval=(str(tmp_path / "a.tar"),)))


def test_a_relation_file_of_symmetric_relations_only_is_an_error(scorer: Scorer, tmp_path: Path) -> None:
    path = aro_file(tmp_path, [relation_entry(relation_name="near")])
    with pytest.raises(BenchmarkError, match=r"evaluate\.relation"):
        runner.evaluate(scorer, EvaluateConfig(relation=path))
