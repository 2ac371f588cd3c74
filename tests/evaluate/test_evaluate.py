"""The runner over real files: benchmarks in their authors' formats, pictures, shards, a small model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sclip.config import DataConfig, EvaluateConfig
from sclip.evaluate import runner, suite
from sclip.evaluate.benchmarks import BenchmarkDataError
from sclip.evaluate.exclusion import Exclusion, phash
from sclip.evaluate.features import FeatureEncoder, Here, encode
from sclip.evaluate.picture import Picture
from sclip.inference.scorer import Scorer
from sclip.prepare.exclude import write_list
from support.made_features import brute_force
from support.pictures import picture, speckled
from support.small_model import small_scorer
from support.tars import Member, tar_bytes

COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return small_scorer()


def aro_entries() -> list[dict[str, Any]]:
    pairs = ((a, b) for a in COLOURS for b in COLOURS if a != b)
    return [
        {
            "image_id": str(number), "image_path": f"picture-{number % 6}.png", "attributes": ["red", "blue"],
            "relation_name": "on" if number % 3 else "near",
            "bbox_x": 10, "bbox_y": 20, "bbox_w": 30, "bbox_h": 40,
            "true_caption": f"a {a} cup on a {b} table", "false_caption": f"a {b} cup on a {a} table",
        }
        for number, (a, b) in enumerate(pairs)
    ]  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with an ARO file of each kind, their pictures, two shards and the suite of the files."""
    (tmp_path / "images").mkdir()
    for number in range(6):
        (tmp_path / "images" / f"picture-{number}.png").write_bytes(speckled(number))
    (tmp_path / "relation.json").write_text(json.dumps(aro_entries()))
    (tmp_path / "attribution.json").write_text(json.dumps(aro_entries() * 3))
    files = {"attribute": "vg-attribution, file: attribution.json"}
    suite_file(tmp_path, relation="vg-relation, file: relation.json", **files)
    for shard in range(2):
        write_shard(tmp_path / f"{shard}.tar", range(shard * 4, shard * 4 + 4))
    return tmp_path


def suite_file(folder: Path, **benchmarks: str) -> EvaluateConfig:
    """Write a suite of benchmarks of these kinds and options; return its config."""
    text = "".join(f"{name}: {{kind: {options}}}\n" for name, options in benchmarks.items())
    (folder / "suite.yaml").write_text(text)
    return EvaluateConfig(suite=str(folder / "suite.yaml"), batch_size=4)


def captions_of(number: int) -> list[str]:
    return [f"picture {number} of a {colour} thing" for colour in COLOURS[: 1 + number % 3]]


def write_shard(
    path: Path, numbers: Iterable[int], field: str = "captions", broken: int = -1, front: str = ""
) -> None:
    members: list[Member] = []
    for number in numbers:
        members.append((f"{front}{number:04d}.png", b"broken" if number == broken else speckled(number)))
        members.append((f"{front}{number:04d}.json", json.dumps({field: captions_of(number)}).encode()))
    path.write_bytes(tar_bytes(members))


def test_the_choices_of_the_runner_equal_a_case_by_case_computation(scorer: Scorer, made: Path) -> None:
    config = EvaluateConfig(suite=str(made / "suite.yaml"), batch_size=4)
    evaluation = runner.evaluate(scorer, config, model="small")
    wins: dict[str, list[bool]] = {"on": [], "near": []}
    for entry in aro_entries():
        with Image.open(made / "images" / entry["image_path"]) as image:
            crop = image.convert("RGB").crop((10, 20, 40, 60))
        true, false = scorer.score([crop, crop], [entry["true_caption"], entry["false_caption"]])
        wins[entry["relation_name"]].append(bool(true > false))
    every = wins["on"] + wins["near"]
    assert evaluation.scores() == {
        "relation/accuracy": sum(wins["on"]) / 8, "relation/macro": sum(wins["on"]) / 8, "relation/cases": 8,
        "attribute/accuracy": pytest.approx(sum(every) / 12), "attribute/macro": pytest.approx(sum(every) / 12),
        "attribute/cases": 36,
    }  # fmt: skip
    assert (evaluation.model, evaluation.facts["weights"]) == ("small", scorer.facts()["weights"])


class Counting:
    """An encoder that records every picture and caption that it encodes."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._encoder = encoder
        self.seen: list[Any] = []

    def pictures(self, chunks: Any) -> Any:
        return self._encoder.pictures(map(self._kept, chunks))

    def captions(self, chunks: Any) -> Any:
        return self._encoder.captions(map(self._kept, chunks))

    def _kept(self, chunk: Any) -> Any:
        self.seen += chunk
        return chunk


def test_pictures_and_captions_shared_by_benchmarks_are_encoded_once(scorer: Scorer, made: Path) -> None:
    encoder = Counting(Here(scorer, 4))
    tasks = [entry.task() for entry in suite.read(str(made / "suite.yaml"), made)]
    runner.measure(encoder, tasks, "small", {})
    assert len(encoder.seen) == len(set(encoder.seen)) == 6 + 12


def test_chunks_change_no_feature(scorer: Scorer, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Picture(str(made / "images" / f"picture-{n}.png")) for n in range(6)]
    pictures[3:3] = [Picture(str(made / "0.tar"), sample=n) for n in (2, 0)]
    captions = [f"a {colour} thing" for colour in COLOURS]
    whole = encode(Here(scorer, 128), pictures, captions)
    monkeypatch.setattr("sclip.evaluate.features.CHUNK", 2)
    parts = encode(Here(scorer, 2), pictures, captions)
    torch.testing.assert_close(parts.of_pictures(pictures), whole.of_pictures(pictures))
    torch.testing.assert_close(parts.of_captions(captions), whole.of_captions(captions))
    direct = scorer.encode_image([speckled(n) for n in (0, 1, 2, 2, 0)])
    torch.testing.assert_close(whole.of_pictures(pictures[:5]), direct)


def test_a_partial_evaluation_scores_the_available_cases_and_says_so(scorer: Scorer, made: Path) -> None:
    (made / "images" / "picture-2.png").unlink()
    (made / "images" / "picture-4.png").write_bytes(b"broken")
    tasks = [entry.task() for entry in suite.read(str(made / "suite.yaml"), made)]
    kept = runner.prepared(tasks, partial=True)
    with pytest.raises(BenchmarkDataError, match=r"relation: 1 of 5 pictures .*-4\.png: "):
        runner.measure(Here(scorer, 4), kept, "small", {})
    relation, attribute = runner.measure(Here(scorer, 4), kept, "small", {}, partial=True).results
    assert (relation.counts["cases"], attribute.counts["cases"]) == (4, 24)  # 4 of the 8 that count
    assert relation.notes == ["partial: 8 of 12 cases, not comparable with published figures"]


# Pictures that the model was trained on


def excluding(made: Path, *entries: Exclusion) -> EvaluateConfig:
    write_list(entries, made / "trained.jsonl")
    config = suite_file(made, relation="vg-relation, file: relation.json", held="shards, shards: '*.tar'")
    return EvaluateConfig(suite=config.suite, exclude=(str(made / "trained.jsonl"),))


def test_pictures_excluded_by_name_or_likeness_are_left_out_with_all_their_crops(
    scorer: Scorer, made: Path
) -> None:
    smaller = Image.open(made / "images" / "picture-3.png").resize((96, 72))
    named, alike = Exclusion("coco-train", "picture-1"), Exclusion("mine", "", phash(smaller))
    relation, held = runner.evaluate(scorer, excluding(made, named, alike, Exclusion("b", "another"))).results
    assert relation.counts["cases"] == 6  # of the 8 that count
    assert relation.notes == [
        "1 picture excluded: looks like a picture of mine",
        "1 picture excluded: named like a picture of coco-train",
        "partial: 8 of 12 cases, not comparable with published figures",
    ]
    assert held.counts["images"] == 7
    assert held.notes[0] == "1 picture excluded: looks like a picture of mine"


def test_a_benchmark_without_remaining_pictures_or_a_bad_list_is_refused_before_encoding(
    made: Path,
) -> None:
    config = excluding(made, *(Exclusion("coco-train", f"picture-{number}") for number in range(6)))
    message = (
        r"relation: no picture is left .6 .* excluded: named like a picture of coco-train.; leave it out"
    )
    with pytest.raises(BenchmarkDataError, match=message):
        runner.check_files(config)
    (made / "trained.jsonl").write_text("nothing\n")
    with pytest.raises(BenchmarkDataError, match=r"trained\.jsonl line 1: must be"):
        runner.check_files(config)
    (made / "trained.jsonl").unlink()
    with pytest.raises(BenchmarkDataError, match=r"trained\.jsonl: cannot be read"):
        runner.check_files(config)


# Shards


def test_retrieval_on_shards_equals_brute_force(scorer: Scorer, made: Path) -> None:
    captions = [captions_of(number) for number in range(8)]
    images = scorer.encode_image([speckled(number) for number in range(8)]).double().tolist()
    texts = scorer.encode_text([caption for some in captions for caption in some]).double().tolist()
    expected = brute_force(images, texts, [n for n, some in enumerate(captions) for _ in some])
    evaluation = runner.evaluate(scorer, EvaluateConfig(retrieval=(str(made / "*.tar"),), batch_size=3))
    (result,) = evaluation.results
    assert (result.name, result.counts["images"], result.counts["captions"]) == ("retrieval", 8, len(texts))
    assert {name: score.value for name, score in result.scores.items()} == pytest.approx(expected)


def test_pictures_with_the_same_shard_name_and_key_in_two_folders_stay_distinct(tmp_path: Path) -> None:
    for folder, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / folder).mkdir()
        members = [("0.png", picture(colour)), ("0.txt", f"a {colour} wall".encode())]
        (tmp_path / folder / "0.tar").write_bytes(tar_bytes(members))
    (task,) = runner.tasks_of(EvaluateConfig(retrieval=(f"{tmp_path}/?/*.tar",)), [], DataConfig())
    assert [(image.name, image.captions) for image in task.images] == [  # type: ignore[attr-defined]
        ("0/a/0.tar/0", ("a red wall",)),
        ("0/b/0.tar/0", ("a blue wall",)),
    ]


def test_retrieval_on_training_images_is_named_so_and_a_suite_replaces_it(scorer: Scorer, made: Path) -> None:
    both, first, second = ([str(made / f"{name}.tar")] for name in ("{0..1}", 0, 1))
    held_out = EvaluateConfig(retrieval=(second[0],))
    for config, trained, name, images in (
        (EvaluateConfig(retrieval_images=5), both, "retrieval_on_training_images", 5),
        (held_out, both, "retrieval_on_training_images", 4),
        (EvaluateConfig(retrieval=(both[0],)), first, "retrieval_on_training_images", 8),
        (held_out, first, "retrieval", 4),
    ):
        (result,) = runner.evaluate(scorer, config, trained).results
        assert (result.name, result.counts["images"]) == (name, images)
    config = EvaluateConfig(suite=str(made / "suite.yaml"))
    named = [task.about.name for task in runner.tasks_of(config, first, DataConfig())]
    assert named == ["relation", "attribute"]


def test_retrieval_reads_shards_with_the_data_config_of_training(scorer: Scorer, tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", (0, 3, 6), field="alt", front="clip.")
    config = EvaluateConfig(retrieval=(str(tmp_path / "a.tar"),))
    data = DataConfig(caption_field="alt", key_ends_at="last_dot", min_objects=1)
    runner.check_files(config, data)
    (result,) = runner.evaluate(scorer, config, data=data).results
    assert list(result.won) == [f"0/a.tar/clip.{number:04d}#0" for number in (0, 3, 6)]
    heldout = suite_file(tmp_path, held="shards, shards: a.tar, caption_field: alt, key_ends_at: last_dot")
    assert runner.evaluate(scorer, heldout).results[0].won == result.won
    heldout = suite_file(tmp_path, held="shards, shards: a.tar, key_ends_at: dot")
    with pytest.raises(BenchmarkDataError, match=r"held: .*data\.key_ends_at='dot': should be 'first_dot'"):
        runner.evaluate(scorer, heldout)


def test_shards_of_a_suite_use_the_configs_limit_and_caption_field(made: Path) -> None:
    suite = suite_file(made, held="shards, shards: '*.tar'").suite
    config = EvaluateConfig(suite=suite, retrieval_images=5)
    (task,) = runner.tasks_of(config, (), DataConfig(caption_field="captions"))
    assert (task.about.name, task.sizes()["images"]) == ("held", 5)
    with pytest.raises(BenchmarkDataError, match="no usable sample"):
        runner.check_files(config, DataConfig(caption_field="no_such_field"))


def test_a_broken_image_of_a_shard_is_skipped_and_logged_and_shards_without_images_are_refused(
    scorer: Scorer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = EvaluateConfig(retrieval=(str(tmp_path / "a.tar"),))
    write_shard(tmp_path / "a.tar", range(4), broken=2)
    (result,) = runner.evaluate(scorer, config).results
    assert result.counts["images"] == 3
    assert "a.tar#2" in caplog.text
    write_shard(tmp_path / "a.tar", [0], broken=0)
    with pytest.raises(BenchmarkDataError, match="none of its pictures can be read"):
        runner.evaluate(scorer, config)
