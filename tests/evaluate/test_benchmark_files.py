"""Benchmarks in their authors' formats, written down small, and what is said of files that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sclip.evaluate.benchmarks import About, BenchmarkDataError, Task
from sclip.evaluate.picture import Picture, contents
from sclip.evaluate.readers import aro, captions, karpathy, sugarcrepe, valse, winoground
from support.pictures import noise

ABOUT = About("made", "kind", "What is asked.")
Reader = Callable[..., Task]


def written(folder: Path, content: Any, name: str = "cases.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


# ARO


def aro_entry(**changes: Any) -> dict[str, Any]:
    entry = {
        "image_id": "2410753", "image_path": "a.png", "relation_name": "on",
        "bbox_x": 10, "bbox_y": 20, "bbox_w": 30, "bbox_h": 40,
        "true_caption": "the cup is on the table", "false_caption": "the table is on the cup",
    }  # fmt: skip
    return entry | changes


def test_a_relation_file_is_read_as_aro_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    noise(100, 100).save(tmp_path / "images" / "a.png")
    first, symmetric = aro.relations(
        ABOUT, written(tmp_path, [aro_entry(), aro_entry(relation_name="next to")])
    ).cases
    assert (first.group, first.counted) == ("on", True)
    assert (symmetric.group, symmetric.counted) == ("next to", False)
    assert (first.true, first.false) == ("the cup is on the table", ("the table is on the cup",))
    ((_, crop),) = contents([first.picture])
    with Image.open(tmp_path / "images" / "a.png") as whole:
        assert crop.tobytes() == whole.crop((10, 20, 40, 60)).tobytes()


def test_symmetric_relations_alone_are_left_out() -> None:
    assert {"next to", "near", "beside", "with", "on the other side of", "by"} <= aro.LEFT_OUT
    assert aro.LEFT_OUT.isdisjoint({"to the left of", "on", "below", "wearing", "riding", "sitting on", ""})


def test_a_pair_of_attributes_keeps_its_order_and_needs_25_cases(tmp_path: Path) -> None:
    entries = [aro_entry(attributes=["open", "white"]), aro_entry(attributes=["white", "open"])]
    choice = aro.attributes(ABOUT, written(tmp_path, entries))
    assert [case.group for case in choice.cases] == ["open_white", "white_open"]
    assert (choice.macro, choice.least_cases) == (True, 25)


def test_the_image_folder_may_be_elsewhere(tmp_path: Path) -> None:
    choice = aro.relations(ABOUT, written(tmp_path, [aro_entry()]), tmp_path / "elsewhere")
    assert choice.pictures() == [Picture(str(tmp_path / "elsewhere" / "a.png"), (10, 20, 40, 60))]


# SugarCrepe


def crepe(negative: str) -> dict[str, Any]:
    entry = {"filename": "000000000139.jpg", "caption": "a cat on a mat", "negative_caption": negative}
    return {"3": entry}


def test_a_file_of_sugarcrepe_is_one_kind(tmp_path: Path) -> None:
    choice = sugarcrepe.read(ABOUT, written(tmp_path, crepe("a mat on a cat")), tmp_path)
    (case,) = choice.cases
    assert (case.name, case.true, case.false) == ("3", "a cat on a mat", ("a mat on a cat",))
    assert case.picture == Picture(str(tmp_path / "000000000139.jpg"))
    assert not choice.ties_win


def test_the_folder_of_sugarcrepe_has_the_papers_means_of_kinds(tmp_path: Path) -> None:
    for kind in sugarcrepe.KINDS:
        written(tmp_path, crepe(f"{kind} on a cat"), f"{kind}.json")
    choice = sugarcrepe.read(ABOUT, tmp_path, tmp_path)
    assert [case.group for case in choice.cases] == list(sugarcrepe.KINDS)
    assert choice.means["replace"] == ("replace_obj", "replace_att", "replace_rel")
    assert choice.means["swap"] == ("swap_obj", "swap_att")
    assert choice.means["add"] == ("add_obj", "add_att")
    (tmp_path / "swap_att.json").unlink()
    with pytest.raises(BenchmarkDataError, match=r"without swap_att\.json"):
        sugarcrepe.read(ABOUT, tmp_path, tmp_path)


# Winoground


WINOGROUND = json.dumps(
    {"id": 0, "image_0": "a", "image_1": "b", "caption_0": "some plants", "caption_1": "plants some"}
)
"""The least that a line has."""


def test_winogrounds_lines_are_read_with_pictures_named_as_there(tmp_path: Path) -> None:
    line = {
        "id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1.png", "collapsed_tag": "Object",
        "caption_0": "an old person kisses a young person", "caption_1": "a young person kisses an old person",
    }  # fmt: skip
    file = tmp_path / "examples.jsonl"
    file.write_text(json.dumps(line) + "\n\n")
    (pair,) = winoground.read(ABOUT, file, tmp_path).cases
    assert [Path(p.path).name for p in pair.pictures] == ["ex_0_img_0.png", "ex_0_img_1.png"]
    assert pair.captions == (line["caption_0"], line["caption_1"])
    assert (pair.name, pair.group) == ("0", "Object")


# Our own form, and VALSE


def test_our_own_form_takes_several_false_captions_groups_ids_and_boxes(tmp_path: Path) -> None:
    entries = [
        {"image": "a.jpg", "caption": "a dog", "false_captions": ["a cat", "a cow"]},
        {
            "image": "a.jpg", "caption": "a dog", "false_captions": ["a cat"],
            "group": "swap", "id": "17", "box": [1, 2, 30, 40],
        },
    ]  # fmt: skip
    choice = captions.read(ABOUT, written(tmp_path, entries), tmp_path)
    first, second = choice.cases
    assert (first.name, first.false, first.picture.box) == ("0", ("a cat", "a cow"), None)
    assert (second.name, second.group, second.picture.box) == ("17", "swap", (1, 2, 31, 42))
    assert choice.macro


def test_of_valse_only_captions_count_that_two_annotators_chose(tmp_path: Path) -> None:
    def entry(votes: int, caption: Any) -> dict[str, Any]:
        return {
            "image_file": "v.jpg", "caption": caption, "foil": "There are no animals.",
            "mturk": {"foil": 0, "caption": votes, "other": 0},
        }  # fmt: skip

    entries = {"existence_0": entry(2, "There are animals."), "existence_1": entry(1, ["There is a dog."])}
    first, second = valse.read(ABOUT, written(tmp_path, entries), tmp_path).cases
    assert (first.name, first.true, first.false, first.counted) == (
        "existence_0", "There are animals.", ("There are no animals.",), True,
    )  # fmt: skip
    assert (second.true, second.counted) == ("There is a dog.", False)


# Retrieval


def test_karpathys_json_gives_its_test_split_and_five_captions_an_image(tmp_path: Path) -> None:
    def image(name: str, split: str, count: int, **more: str) -> dict[str, Any]:
        sentences = [{"raw": f"{name} {number}", "tokens": []} for number in range(count)]
        return {"filename": name, "split": split, "sentences": sentences, **more}

    images = [
        image("a.jpg", "test", 6, filepath="val2014"),
        image("b.jpg", "train", 5),
        image("c.jpg", "test", 5),
    ]
    file = written(tmp_path, {"dataset": "coco", "images": images})
    task = karpathy.read(ABOUT, file, tmp_path)
    assert [i.name for i in task.images] == ["val2014/a.jpg", "c.jpg"]
    assert task.images[0].picture == Picture(str(tmp_path / "val2014" / "a.jpg"))
    assert [len(i.captions) for i in task.images] == [5, 5]
    assert [len(i.captions) for i in karpathy.read(ABOUT, file, tmp_path, captions=0).images] == [6, 5]
    assert karpathy.read(ABOUT, file, tmp_path, split="train").captions()[0] == "b.jpg 0"
    with pytest.raises(BenchmarkDataError, match="no image with a caption in split 'val'"):
        karpathy.read(ABOUT, file, tmp_path, split="val")


def test_blips_list_gives_all_of_its_captions(tmp_path: Path) -> None:
    entries = [{"image": "val2014/a.jpg", "caption": [f"caption {number}" for number in range(7)]}]
    (image,) = karpathy.read(ABOUT, written(tmp_path, entries), tmp_path).images
    assert (image.name, len(image.captions)) == ("val2014/a.jpg", 7)


def test_cocos_annotations_are_joined_by_image(tmp_path: Path) -> None:
    tree = {
        "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 8, "file_name": "8.jpg"}, {"id": 9, "file_name": "9.jpg"}],
        "annotations": [
            {"image_id": 8, "caption": "eight"}, {"image_id": 7, "caption": "seven"}, {"image_id": 8, "caption": "8"},
        ],
    }  # fmt: skip
    images = karpathy.read(ABOUT, written(tmp_path, tree), tmp_path).images
    assert [(i.name, i.captions) for i in images] == [("7.jpg", ("seven",)), ("8.jpg", ("eight", "8"))]


def test_a_picture_that_is_there_twice_would_be_its_own_rival(tmp_path: Path) -> None:
    entries = [{"image": "a.jpg", "caption": ["one"]}, {"image": "a.jpg", "caption": ["two"]}]
    with pytest.raises(BenchmarkDataError, match=r"a\.jpg is there twice"):
        karpathy.read(ABOUT, written(tmp_path, entries), tmp_path)


def test_the_image_folder_may_be_the_one_that_karpathys_names_lead_to(tmp_path: Path) -> None:
    entry = {"split": "test", "filename": "a.jpg", "filepath": "val2014", "sentences": [{"raw": "one"}]}
    (tmp_path / "coco" / "val2014").mkdir(parents=True)
    (tmp_path / "coco" / "val2014" / "a.jpg").write_bytes(b"")
    for folder in (tmp_path / "coco", tmp_path / "coco" / "val2014"):
        (image,) = karpathy.read(ABOUT, written(tmp_path, {"images": [entry]}), folder).images
        assert image.picture.path == str(tmp_path / "coco" / "val2014" / "a.jpg")
        assert image.name == "val2014/a.jpg"


# What is no benchmark


@pytest.mark.parametrize(
    ("read", "content", "found"),
    [
        (aro.relations, {}, "must hold a list"),
        (aro.relations, [], "must hold a list"),
        (aro.relations, [aro_entry(), {}], "case 1: no field 'bbox_x'"),
        (aro.relations, [aro_entry(bbox_w=0)], "case 0: bbox_w, bbox_h=0"),
        (aro.relations, [aro_entry(true_caption=None)], "case 0: true_caption=None"),
        (aro.relations, [aro_entry(), "text"], "case 1: 'text' is no object with fields"),
        (aro.relations, [aro_entry(bbox_x="left")], "case 0: "),
        (aro.relations, [aro_entry(bbox_x=float("inf"))], "case 0: cannot convert float infinity"),
        (aro.relations, [aro_entry(true_caption="\ud800")], "case 0: true_caption='\\ud800' is no text"),
        (aro.attributes, [aro_entry(attributes=["red"])], "case 0: attributes=['red'] is no list of two"),
        (aro.attributes, [aro_entry()], "case 0: no field 'attributes'"),
        (sugarcrepe.read, [], "must hold an object"),
        (sugarcrepe.read, {"3": {"filename": "a.jpg", "caption": "a"}}, "case 3: no field 'negative_caption'"),
        (captions.read, [{"image": "a.jpg", "caption": "a", "false_captions": []}], "false_captions=[] is no list"),
        (captions.read, [{"image": "a.jpg", "caption": "a", "false_captions": "b"}], "false_captions='b'"),
        (captions.read, [{"id": "1", "image": "a", "caption": "a", "false_captions": ["b"]}] * 2, "two cases of one"),
        (valse.read, {"0": {"image_file": "a.jpg", "caption": [], "foil": "b"}}, "case 0: "),
        (karpathy.read, {"images": [{"split": "test", "filename": "a"}]}, "image 0: no field 'sentences'"),
        (karpathy.read, {"pictures": []}, "must be Karpathy's JSON"),
        (karpathy.read, {"images": 3}, "images=3: must be a list"),
        (karpathy.read, {"images": [7]}, "image 0: 7 is no object with fields"),
        (karpathy.read, {"images": [], "annotations": None}, "annotations=None: must be a list"),
        (karpathy.read, [{"image": "a.jpg", "caption": [1]}], "case 0: caption=[1]"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_with_the_case(tmp_path: Path, read: Reader, content: Any, found: str) -> None:
    with pytest.raises(BenchmarkDataError, match=r"cases\.json: ") as raised:
        read(ABOUT, written(tmp_path, content))
    assert found in str(raised.value)


def test_a_missing_file_and_one_that_is_no_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkDataError, match=r"nothing\.json: no such file"):
        aro.relations(ABOUT, tmp_path / "nothing.json")
    (tmp_path / "cut.json").write_text("[{")
    with pytest.raises(BenchmarkDataError, match=r"cut\.json: cannot be read as JSON"):
        aro.relations(ABOUT, tmp_path / "cut.json")
    with pytest.raises(BenchmarkDataError, match=r"nothing\.jsonl: no such file"):
        winoground.read(ABOUT, tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("", "must hold a line for each case"),
        ("[3]", "case 0: '[3]' is no object with fields"),
        ("{}\n", "case 0: no field 'image_0'"),
        ("[" * 100_000, "case 0: maximum recursion depth"),
        (f"{WINOGROUND}\n{WINOGROUND}", "two cases of one id, 0"),
    ],
)
def test_a_bad_line_of_winoground_is_named(tmp_path: Path, lines: str, found: str) -> None:
    (tmp_path / "examples.jsonl").write_text(lines)
    with pytest.raises(BenchmarkDataError, match=r"examples\.jsonl: ") as raised:
        winoground.read(ABOUT, tmp_path / "examples.jsonl", tmp_path)
    assert found in str(raised.value)


def test_a_line_of_winoground_may_hold_any_character_of_text(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text(
        "\ufeff" + WINOGROUND.replace("some", "some\u2028"), encoding="utf-8"
    )
    (pair,) = winoground.read(ABOUT, tmp_path / "examples.jsonl", tmp_path).cases
    assert pair.captions[0] == "some\u2028 plants"
