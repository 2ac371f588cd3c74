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
from sclip.evaluate.features import FeatureEncoder, Here, encode
from sclip.evaluate.picture import Picture
from sclip.evaluate.retrieval import Retrieval
from sclip.inference.scorer import Scorer
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
            "image_id": str(number), "image_path": f"{number % 6}.png", "attributes": ["red", "blue"],
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
        (tmp_path / "images" / f"{number}.png").write_bytes(speckled(number))
    (tmp_path / "relation.json").write_text(json.dumps(aro_entries()))
    (tmp_path / "attribution.json").write_text(json.dumps(aro_entries() * 3))
    (tmp_path / "suite.yaml").write_text(
        "relation: {kind: vg-relation, file: relation.json}\n"
        "attribute: {kind: vg-attribution, file: attribution.json}\n"
    )
    for shard in range(2):
        write_shard(tmp_path / f"{shard}.tar", range(shard * 4, shard * 4 + 4))
    return tmp_path


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
    evaluation = runner.evaluate(
        scorer, EvaluateConfig(suite=str(made / "suite.yaml"), batch_size=4), model="small"
    )
    wins: dict[str, list[bool]] = {"on": [], "near": []}
    for entry in aro_entries():
        with Image.open(made / "images" / entry["image_path"]) as image:
            crop = image.convert("RGB").crop((10, 20, 40, 60))
        true, false = scorer.score([crop, crop], [entry["true_caption"], entry["false_caption"]])
        wins[entry["relation_name"]].append(bool(true > false))
    every = wins["on"] + wins["near"]
    assert evaluation.scores() == {
        "relation/accuracy": sum(wins["on"]) / 8,
        "relation/macro": sum(wins["on"]) / 8,
        "relation/cases": 8,
        "attribute/accuracy": pytest.approx(sum(every) / 12),
        "attribute/macro": pytest.approx(sum(every) / 12),
        "attribute/cases": 36,
    }
    assert evaluation.model == "small"
    assert evaluation.facts["weights"] == scorer.facts()["weights"]


class Counting:
    """An encoder that keeps what it was asked for."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._encoder = encoder
        self.seen: list[Any] = []

    def pictures(self, chunks: Any) -> Any:
        for chunk in chunks:
            self.seen += chunk
            yield from self._encoder.pictures([chunk])

    def captions(self, chunks: Any) -> Any:
        for chunk in chunks:
            self.seen += chunk
            yield from self._encoder.captions([chunk])


def test_what_several_benchmarks_show_is_encoded_once(scorer: Scorer, made: Path) -> None:
    encoder = Counting(Here(scorer, 4))
    tasks = [entry.task() for entry in suite.read(str(made / "suite.yaml"), made)]
    runner.measure(encoder, tasks, "small", {})
    assert len(encoder.seen) == len(set(encoder.seen)) == 6 + 12


def test_chunks_change_no_feature(scorer: Scorer, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Picture(str(made / "images" / f"{n}.png")) for n in range(6)]
    pictures[3:3] = [Picture(str(made / "0.tar"), sample=n) for n in (2, 0)]
    captions = [f"a {colour} thing" for colour in COLOURS]
    whole = encode(Here(scorer, 128), pictures, captions)
    monkeypatch.setattr("sclip.evaluate.features.CHUNK", 2)
    parts = encode(Here(scorer, 2), pictures, captions)
    torch.testing.assert_close(parts.of_pictures(pictures), whole.of_pictures(pictures))
    torch.testing.assert_close(parts.of_captions(captions), whole.of_captions(captions))
    direct = scorer.encode_image([speckled(n) for n in (0, 1, 2)] + [speckled(2), speckled(0)])
    torch.testing.assert_close(whole.of_pictures(pictures[:5]), direct)


# Pictures that are missing or broken


def test_partial_scores_what_is_there_and_says_so(scorer: Scorer, made: Path) -> None:
    (made / "images" / "2.png").unlink()
    (made / "images" / "4.png").write_bytes(b"broken")
    entries = suite.read(str(made / "suite.yaml"), made)
    tasks = [entry.task() for entry in entries]
    kept = runner.prepared(tasks, partial=True)
    with pytest.raises(BenchmarkDataError, match=r"relation: 1 of 5 pictures .*/4\.png: "):
        runner.measure(Here(scorer, 4), kept, "small", {})
    evaluation = runner.measure(Here(scorer, 4), kept, "small", {}, partial=True)
    relation, attribute = evaluation.results
    assert relation.counts["cases"] == 4  # of the 8 that count
    assert attribute.counts["cases"] == 24
    assert relation.notes == ["partial: 8 of 12 cases, not comparable with published figures"]


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


def test_pictures_of_one_shard_name_and_key_in_two_folders_are_two(tmp_path: Path) -> None:
    for folder, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / folder).mkdir()
        members = [("0.png", picture(colour)), ("0.txt", f"a {colour} wall".encode())]
        (tmp_path / folder / "0.tar").write_bytes(tar_bytes(members))
    config = EvaluateConfig(retrieval=(f"{tmp_path}/?/*.tar",))
    (task,) = runner.tasks_of(config, [], DataConfig())
    assert isinstance(task, Retrieval)
    assert [(image.name, image.captions) for image in task.images] == [
        ("0/a/0.tar/0", ("a red wall",)),
        ("0/b/0.tar/0", ("a blue wall",)),
    ]


def test_retrieval_on_training_images_says_so(scorer: Scorer, made: Path) -> None:
    everything = [str(made / "{0..1}.tar")]
    (of_training,) = runner.evaluate(scorer, EvaluateConfig(retrieval_images=5), everything).results
    assert (of_training.name, of_training.counts["images"]) == ("retrieval_on_training_images", 5)
    overlapping = EvaluateConfig(retrieval=(str(made / "1.tar"),))
    names = [
        runner.evaluate(scorer, overlapping, trained).results[0].name
        for trained in (everything, [str(made / "0.tar")])
    ]
    assert names == ["retrieval_on_training_images", "retrieval"]


def test_where_there_is_a_suite_training_shards_are_not_measured(scorer: Scorer, made: Path) -> None:
    config = EvaluateConfig(suite=str(made / "suite.yaml"))
    results = runner.evaluate(scorer, config, [str(made / "0.tar")]).results
    assert [result.name for result in results] == ["relation", "attribute"]


def test_how_training_reads_shards_reaches_the_pictures_of_retrieval(scorer: Scorer, tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", (0, 3, 6), field="alt", front="clip.")
    config = EvaluateConfig(retrieval=(str(tmp_path / "a.tar"),))
    data = DataConfig(caption_field="alt", key_ends_at="last_dot", min_objects=1)
    runner.check_files(config, data)
    (result,) = runner.evaluate(scorer, config, data=data).results
    assert list(result.won) == [f"0/a.tar/clip.{number:04d}#0" for number in (0, 3, 6)]
    suite = tmp_path / "suite.yaml"
    suite.write_text("held: {kind: shards, shards: a.tar, caption_field: alt, key_ends_at: last_dot}")
    assert runner.evaluate(scorer, EvaluateConfig(suite=str(suite))).results[0].won == result.won
    suite.write_text("held: {kind: shards, shards: a.tar, key_ends_at: dot}")
    with pytest.raises(BenchmarkDataError, match=r"held: .*data\.key_ends_at='dot': should be 'first_dot'"):
        runner.evaluate(scorer, EvaluateConfig(suite=str(suite)))


def test_the_shards_of_a_suite_have_the_configs_limit_and_caption_field(scorer: Scorer, made: Path) -> None:
    (made / "shards.yaml").write_text("held: {kind: shards, shards: '*.tar'}")
    config = EvaluateConfig(suite=str(made / "shards.yaml"), retrieval_images=5)
    runner.check_files(config)
    (result,) = runner.evaluate(scorer, config, data=DataConfig(caption_field="captions")).results
    assert (result.name, result.counts["images"]) == ("held", 5)
    with pytest.raises(BenchmarkDataError, match="no readable image"):
        runner.evaluate(scorer, config, data=DataConfig(caption_field="no_such_field"))


def test_a_broken_image_of_a_shard_is_left_out_and_told(
    scorer: Scorer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shard(tmp_path / "a.tar", range(4), broken=2)
    (result,) = runner.evaluate(scorer, EvaluateConfig(retrieval=(str(tmp_path / "a.tar"),))).results
    assert result.counts["images"] == 3
    assert "a.tar#2" in caplog.text


def test_shards_without_a_readable_image_are_an_error(scorer: Scorer, tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [0], broken=0)
    with pytest.raises(BenchmarkDataError, match="no readable image"):
        runner.evaluate(scorer, EvaluateConfig(retrieval=(str(tmp_path / "a.tar"),)))


# Photographs
