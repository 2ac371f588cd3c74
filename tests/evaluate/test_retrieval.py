"""Retrieval and zero-shot classification, each definition against a small example computed by hand."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sclip.evaluate import recall, zero_shot
from sclip.evaluate.benchmarks import About, BenchmarkDataError
from sclip.evaluate.picture import Picture
from sclip.evaluate.retrieval import Captioned, Retrieval
from sclip.evaluate.zero_shot import TEMPLATES, Labelled, ZeroShot
from support.made_features import at_angles, brute_force, cosines

ABOUT = About("made", "retrieval", "What is found.")
A, B = Picture("a.jpg"), Picture("b.jpg")


def test_recall_and_chance_equal_those_computed_by_hand() -> None:
    task = Retrieval(ABOUT, [Captioned("a.jpg", A, ("one", "two")), Captioned("b.jpg", B, ("three",))])
    result = task.result(at_angles({A: 0.0, B: math.pi / 2}, {"one": 1.2, "two": 0.1, "three": 0.9}))
    scores = result.scores
    # Image a: its caption at 0.1 is nearest. Image b: caption 1.2 (image a's) is nearer than its own at 0.9.
    assert (scores["image_to_text_r1"].value, scores["image_to_text_r5"].value) == (0.5, 1.0)
    # Caption 1.2 is nearer to image b, and belongs to image a; the other two find theirs.
    assert scores["text_to_image_r1"].value == pytest.approx(2 / 3)
    assert (scores["text_to_image_r1"].chance, scores["text_to_image_r5"].chance) == (1 / 2, 1)
    assert scores["image_to_text_r1"].chance == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert result.headline == "text_to_image_r1"
    assert result.won == {"a.jpg#0": False, "a.jpg#1": True, "b.jpg#0": True}
    assert result.counts == {"cases": 3, "images": 2, "captions": 3, "ties": 0}
    (example,) = result.examples
    assert (example.case, [c.text for c in example.candidates]) == ("b.jpg", ["three", "one", "two"])


@given(st.integers(1, 4), st.integers(0, 5), st.integers(1, 9))
def test_chance_of_captions_counts_the_draws_that_hold_an_own_caption(own: int, others: int, k: int) -> None:
    draws = list(combinations(range(own + others), min(k, own + others)))
    expected = sum(min(draw) < own for draw in draws) / len(draws)
    assert recall.chance_of_captions(own, own + others, k) == pytest.approx(expected)


def recall_of(images: torch.Tensor, texts: torch.Tensor, owner: torch.Tensor) -> dict[str, float]:
    return recall.rivals(images, texts, owner).recall()


def test_a_model_with_equal_or_nan_features_has_zero_recall() -> None:
    features = F.normalize(torch.ones(20, 4), dim=1)
    assert set(recall_of(features, features, torch.arange(20)).values()) == {0.0}
    assert set(recall_of(features * torch.nan, features, torch.arange(20)).values()) == {0.0}
    assert recall.rivals(features, features, torch.arange(20)).ties == 40


@settings(max_examples=25)
@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 2**31), st.sampled_from([7, 512]))
def test_recall_in_chunks_of_any_size_equals_brute_force(
    images: int, more_captions: int, seed: int, chunk: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    owner = torch.cat([torch.arange(images), torch.randint(images, (more_captions,), generator=generator)])
    image_features = F.normalize(torch.randn(images, 6, generator=generator, dtype=torch.float64), dim=1)
    text_features = F.normalize(torch.randn(len(owner), 6, generator=generator, dtype=torch.float64), dim=1)
    expected = brute_force(image_features.tolist(), text_features.tolist(), owner.tolist())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "_CHUNK", chunk)
        assert recall_of(image_features, text_features, owner) == pytest.approx(expected)


# Zero-shot classification


def classes_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "0.JPEG").touch()
        (folder / name / "notes.txt").touch()
    return folder


def test_a_folder_for_each_class_is_read_and_named_by_its_folder_or_a_file(tmp_path: Path) -> None:
    folder = classes_of(tmp_path, "tench", "great_white_shark")
    task = zero_shot.read(ABOUT, folder)
    assert task.classes == ("great white shark", "tench")
    assert [(i.name, i.label) for i in task.images] == [("great_white_shark/0.JPEG", 0), ("tench/0.JPEG", 1)]
    assert len(task.captions()) == 2 * 80
    simple = zero_shot.read(ABOUT, folder, templates="simple")
    assert simple.captions()[:2] == ["itap of a great white shark.", "a bad photo of the great white shark."]
    assert len(simple.captions()) == 2 * 7
    for names in ({"tench": "a fish", "great_white_shark": "a shark"}, ["a shark", "a fish"]):
        (tmp_path / "names.json").write_text(json.dumps(names))
        assert zero_shot.read(ABOUT, folder, tmp_path / "names.json").classes == ("a shark", "a fish")


def test_imagenets_thousand_folders_have_open_clips_names(tmp_path: Path) -> None:
    folder = classes_of(tmp_path, *(f"n{number:08d}" for number in range(1000)))
    assert zero_shot.read(ABOUT, folder).classes == tuple(open_clip.IMAGENET_CLASSNAMES)


def test_class_names_folders_and_templates_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder, file = tmp_path / "classes", tmp_path / "names.json"
    with pytest.raises(BenchmarkDataError, match="classes: cannot be read"):
        zero_shot.read(ABOUT, folder)
    folder.mkdir()
    with pytest.raises(BenchmarkDataError, match="two or more folders, one for each class"):
        zero_shot.read(ABOUT, folder)
    classes_of(folder, "a", "b")
    with pytest.raises(BenchmarkDataError, match="templates='best': must be openai or simple"):
        zero_shot.read(ABOUT, folder, templates="best")
    for names, message in (
        (["one"], "must name 2 classes"),
        ({"a": "x"}, "no name for 1 folders, the first is b"),
        (["x", 3], "must be text"),
    ):
        file.write_text(json.dumps(names))
        with pytest.raises(BenchmarkDataError, match=message):
            zero_shot.read(ABOUT, folder, file)


def test_a_class_feature_is_the_unit_mean_of_its_templates_as_in_open_clip() -> None:
    task = ZeroShot(ABOUT, [Labelled("a", A, 0)], ("dog", "cat"), "simple")
    features = F.normalize(torch.randn(14, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    task_features = cosines({(A, caption): 0.0 for caption in task.captions()})
    task_features = type(task_features)(
        task_features.picture_rows, task_features.caption_rows, features[:1], features, {}
    )

    class Model:
        def encode_text(self, texts: torch.Tensor, normalize: bool) -> torch.Tensor:
            return features[texts]

    expected = open_clip.build_zero_shot_classifier(
        Model(), lambda texts: torch.tensor([task.captions().index(text) for text in texts]), task.classes,
        TEMPLATES["simple"], num_classes_per_batch=2,
    )  # fmt: skip
    torch.testing.assert_close(task.class_features(task_features), expected.T)


def test_top1_and_mean_per_class_equal_those_computed_by_hand() -> None:
    pictures = [Picture(f"{n}.jpg") for n in range(5)]
    images = [Labelled(str(n), pictures[n], label) for n, label in enumerate((0, 0, 0, 1, 2))]
    task = ZeroShot(ABOUT, images, ("dog", "cat", "cow"), "simple")
    angles = {"dog": 0.0, "cat": 1.0, "cow": 2.0}
    captions = {c: angles[next(name for name in angles if name in c)] for c in task.captions()}
    result = task.result(at_angles(dict(zip(pictures, (0.1, 0.2, 0.9, 1.1, 1.2), strict=True)), captions))
    assert (result.scores["top1"].value, result.scores["top1"].chance) == (3 / 5, 1 / 3)
    assert result.scores["mean_per_class"].value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert "top5" not in result.scores
    groups = [(g.name, g.cases, g.correct) for g in result.groups]
    assert groups == [("cat", 1, 1), ("cow", 1, 0), ("dog", 3, 2)]
    assert [(e.group, e.candidates[0].text, e.candidates[1].text) for e in result.examples] == [
        ("dog", "dog", "cat"), ("cow", "cow", "cat"),
    ]  # fmt: skip


def test_top5_is_lost_if_five_other_classes_score_at_least_as_high() -> None:
    names = tuple("abcdefgh")
    images = [Labelled("x", A, 5), Labelled("y", B, 4)]
    task = ZeroShot(ABOUT, images, tuple(f"<{name}>" for name in names), "simple")
    captions = {c: 0.1 * names.index(c.partition("<")[2][0]) for c in task.captions()}
    result = task.result(at_angles({A: 0.0, B: 0.0}, captions))
    assert (result.scores["top5"].value, result.scores["top5"].chance) == (1 / 2, 5 / 8)
    tied = task.result(at_angles({A: 0.0, B: 0.0}, dict.fromkeys(task.captions(), 0.3)))
    assert (tied.scores["top5"].value, tied.counts["ties"]) == (0, 2)


def test_the_first_of_two_classes_with_one_name_is_chosen_as_by_an_argmax() -> None:
    images = [Labelled("x", A, 1), Labelled("y", B, 2)]
    task = ZeroShot(ABOUT, images, ("dog", "missile", "missile"), "simple")
    angles = {c: 0.0 if "dog" in c else 1.0 for c in task.captions()}
    assert task.result(at_angles({A: 1.0, B: 1.0}, angles)).won == {"x": True, "y": False}
