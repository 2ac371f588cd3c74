"""Small benchmark files in their authors' formats are read, and malformed files are refused with a message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sclip.evaluate.benchmarks import About, BenchmarkDataError, Task
from sclip.evaluate.picture import Picture, contents
from sclip.evaluate.readers import aro, captions, half_truth, karpathy, sugarcrepe, valse, winoground
from support.pictures import noise

ABOUT = About("made", "kind", "What is asked.")
Reader = Callable[..., Task]


def written(folder: Path, content: Any, name: str = "cases.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def aro_entry(**changes: Any) -> dict[str, Any]:
    entry = {
        "image_id": "2410753", "image_path": "a.png", "relation_name": "on",
        "bbox_x": 10, "bbox_y": 20, "bbox_w": 30, "bbox_h": 40,
        "true_caption": "the cup is on the table", "false_caption": "the table is on the cup",
    }  # fmt: skip
    return entry | changes


def test_a_relation_file_is_read_in_aros_format(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    noise(100, 100).save(tmp_path / "images" / "a.png")
    file = written(tmp_path, [aro_entry(), aro_entry(relation_name="next to")])
    first, symmetric = aro.relations(ABOUT, file).cases
    assert (first.group, first.counted) == ("on", True)
    assert (symmetric.group, symmetric.counted) == ("next to", False)
    assert (first.true, first.false) == ("the cup is on the table", ("the table is on the cup",))
    ((_, crop),) = contents([first.picture])
    with Image.open(tmp_path / "images" / "a.png") as whole:
        assert crop.tobytes() == whole.crop((10, 20, 40, 60)).tobytes()
    elsewhere = aro.relations(ABOUT, file, tmp_path / "elsewhere").pictures()[0]
    assert elsewhere == Picture(str(tmp_path / "elsewhere" / "a.png"), (10, 20, 40, 60))


def test_only_symmetric_relations_are_left_out() -> None:
    assert {"next to", "near", "beside", "with", "on the other side of", "by"} <= aro.LEFT_OUT
    assert aro.LEFT_OUT.isdisjoint({"to the left of", "on", "below", "wearing", "riding", "sitting on", ""})


def test_a_pair_of_attributes_keeps_its_order_and_needs_25_cases(tmp_path: Path) -> None:
    entries = [aro_entry(attributes=["open", "white"]), aro_entry(attributes=["white", "open"])]
    choice = aro.attributes(ABOUT, written(tmp_path, entries))
    assert [case.group for case in choice.cases] == ["open_white", "white_open"]
    assert (choice.macro, choice.least_cases) == (True, 25)


def test_a_sugarcrepe_file_is_one_kind_and_its_folder_has_the_papers_means_over_kinds(
    tmp_path: Path,
) -> None:
    for kind in sugarcrepe.KINDS:
        entry = {"filename": "139.jpg", "caption": "a cat on a mat", "negative_caption": f"a mat {kind}"}
        written(tmp_path, {"3": entry}, f"{kind}.json")
    single = sugarcrepe.read(ABOUT, tmp_path / "swap_obj.json", tmp_path)
    (case,) = single.cases
    assert (case.name, case.true, case.false) == ("3", "a cat on a mat", ("a mat swap_obj",))
    assert case.picture == Picture(str(tmp_path / "139.jpg"))
    assert not single.ties_win
    choice = sugarcrepe.read(ABOUT, tmp_path, tmp_path)
    assert [case.group for case in choice.cases] == list(sugarcrepe.KINDS)
    assert choice.means == {kind: (kind,) for kind in sugarcrepe.KINDS} | {
        "replace": ("replace_obj", "replace_att", "replace_rel"),
        "swap": ("swap_obj", "swap_att"),
        "add": ("add_obj", "add_att"),
    }
    (tmp_path / "swap_att.json").unlink()
    with pytest.raises(BenchmarkDataError, match=r"lacks swap_att\.json"):
        sugarcrepe.read(ABOUT, tmp_path, tmp_path)


WINOGROUND = json.dumps(
    {"id": 0, "image_0": "a", "image_1": "b.png", "caption_0": "some plants", "caption_1": "plants some"}
)
"""The minimum fields of a line."""


def test_winoground_lines_are_read_with_their_picture_names_and_any_character(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    tagged = json.dumps(json.loads(WINOGROUND) | {"id": 1, "collapsed_tag": "Object"})
    odd = "\ufeff" + WINOGROUND.replace("some", "some\u2028")
    file.write_text(f"{odd}\n{tagged}\n\n", encoding="utf-8")
    first, second = winoground.read(ABOUT, file, tmp_path).cases
    assert [Path(p.path).name for p in first.pictures] == ["a.png", "b.png"]
    assert first.captions[0] == "some\u2028 plants"
    assert second.captions == ("some plants", "plants some")
    assert (second.name, second.group) == ("1", "Object")


def test_our_own_form_takes_several_false_captions_groups_ids_and_boxes(tmp_path: Path) -> None:
    entry = {"image": "a.jpg", "caption": "a dog", "false_captions": ["a cat", "a cow"]}
    more = {"group": "swap", "id": "17", "box": [1, 2, 30, 40]}
    choice = captions.read(ABOUT, written(tmp_path, [entry, entry | more]), tmp_path)
    first, second = choice.cases
    assert (first.name, first.false, first.picture.box) == ("0", ("a cat", "a cow"), None)
    assert (second.name, second.group, second.picture.box) == ("17", "swap", (1, 2, 31, 42))
    assert choice.macro


def test_valse_captions_count_only_if_two_annotators_chose_them(tmp_path: Path) -> None:
    def entry(votes: int, caption: Any) -> dict[str, Any]:
        mturk = {"foil": 0, "caption": votes, "other": 0}
        return {"image_file": "v.jpg", "caption": caption, "foil": "There is none.", "mturk": mturk}

    entries = {"existence_0": entry(2, "There are pens."), "existence_1": entry(1, ["There is a dog."])}
    first, second = valse.read(ABOUT, written(tmp_path, entries), tmp_path).cases
    assert (first.name, first.true, first.counted) == ("existence_0", "There are pens.", True)
    assert first.false == ("There is none.",)
    assert (second.true, second.counted) == ("There is a dog.", False)


# Retrieval


def test_karpathys_json_gives_its_test_split_and_five_captions_per_image(tmp_path: Path) -> None:
    def image(name: str, split: str, count: int, **more: str) -> dict[str, Any]:
        sentences = [{"raw": f"{name} {number}", "tokens": []} for number in range(count)]
        return {"filename": name, "split": split, "sentences": sentences, **more}

    images = [
        image("a.jpg", "test", 6, filepath="val2014"), image("b.jpg", "train", 5), image("c.jpg", "test", 5),
    ]  # fmt: skip
    file = written(tmp_path, {"dataset": "coco", "images": images})
    task = karpathy.read(ABOUT, file, tmp_path)
    assert [i.name for i in task.images] == ["val2014/a.jpg", "c.jpg"]
    assert task.images[0].picture == Picture(str(tmp_path / "val2014" / "a.jpg"))
    assert [len(i.captions) for i in task.images] == [5, 5]
    assert [len(i.captions) for i in karpathy.read(ABOUT, file, tmp_path, captions=0).images] == [6, 5]
    assert karpathy.read(ABOUT, file, tmp_path, split="train").captions()[0] == "b.jpg 0"
    with pytest.raises(BenchmarkDataError, match="no image with a caption in split 'val'"):
        karpathy.read(ABOUT, file, tmp_path, split="val")
    (tmp_path / "coco" / "val2014").mkdir(parents=True)  # the folder that the image names contain
    (tmp_path / "coco" / "val2014" / "a.jpg").touch()
    first_image, _ = karpathy.read(ABOUT, file, tmp_path / "coco" / "val2014").images
    assert first_image.picture.path == str(tmp_path / "coco" / "val2014" / "a.jpg")
    assert first_image.name == "val2014/a.jpg"


COCO = {
    "images": [{"id": n, "file_name": f"{n}.jpg"} for n in (7, 8, 9)],
    "annotations": [{"image_id": n, "caption": text} for n, text in ((8, "eight"), (7, "seven"), (8, "8"))],
}
BLIP = [{"image": "val2014/a.jpg", "caption": [f"caption {number}" for number in range(7)]}]


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (BLIP, [("val2014/a.jpg", tuple(BLIP[0]["caption"]))]),
        (COCO, [("7.jpg", ("seven",)), ("8.jpg", ("eight", "8"))]),
    ],
    ids=["BLIP's list", "COCO's annotations"],
)
def test_captions_of_other_forms_are_joined_by_image(tmp_path: Path, content: Any, read: Any) -> None:
    images = karpathy.read(ABOUT, written(tmp_path, content), tmp_path).images
    assert [(image.name, image.captions) for image in images] == read


# Malformed files


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (aro.relations, {}, "must hold a list"),
        (aro.relations, [], "must hold a list"),
        (aro.relations, [aro_entry(), {}], "case 1: no field 'bbox_x'"),
        (aro.relations, [aro_entry(bbox_w=0)], "case 0: bbox_w, bbox_h=0"),
        (aro.relations, [aro_entry(true_caption=None)], "case 0: true_caption=None"),
        (aro.relations, [aro_entry(), "text"], "case 1: 'text' must be an object with fields"),
        (aro.relations, [aro_entry(bbox_x="left")], "case 0: "),
        (aro.relations, [aro_entry(bbox_x=float("inf"))], "case 0: cannot convert float infinity"),
        (aro.relations, [aro_entry(true_caption="\ud800")], "case 0: true_caption='\\ud800' must be text"),
        (aro.attributes, [aro_entry(attributes=["red"])], "case 0: attributes=['red'] must be a list of two"),
        (aro.attributes, [aro_entry()], "case 0: no field 'attributes'"),
        (sugarcrepe.read, [], "must hold an object"),
        (sugarcrepe.read, {"3": {"filename": "a.jpg", "caption": "a"}}, "case 3: no field 'negative_caption'"),
        (captions.read, [{"image": "a.jpg", "caption": "a", "false_captions": []}], "false_captions=[] must be a list"),
        (captions.read, [{"image": "a.jpg", "caption": "a", "false_captions": "b"}], "false_captions='b'"),
        (captions.read, [{"id": "1", "image": "a", "caption": "a", "false_captions": ["b"]}] * 2, "two cases have"),
        (valse.read, {"0": {"image_file": "a.jpg", "caption": [], "foil": "b"}}, "case 0: "),
        (karpathy.read, {"images": [{"split": "test", "filename": "a"}]}, "image 0: no field 'sentences'"),
        (karpathy.read, {"pictures": []}, "must be Karpathy's JSON"),
        (karpathy.read, {"images": 3}, "images=3: must be a list"),
        (karpathy.read, {"images": [7]}, "image 0: 7 must be an object with fields"),
        (karpathy.read, {"images": [], "annotations": None}, "annotations=None: must be a list"),
        (karpathy.read, [{"image": "a.jpg", "caption": [1]}], "case 0: caption=[1]"),
        (karpathy.read, [{"image": "a.jpg", "caption": ["one"]}] * 2, "a.jpg occurs twice"),
        (winoground.read, "", "must hold a line for each case"),
        (winoground.read, "[3]", "case 0: '[3]' must be an object with fields"),
        (winoground.read, "{}\n", "case 0: no field 'image_0'"),
        (winoground.read, "[" * 100_000, "case 0: maximum recursion depth"),
        (winoground.read, f"{WINOGROUND}\n{WINOGROUND}", "two cases have the id 0"),
        (winoground.read, None, "no such file"),
        (half_truth.read, '{"image": "a.jpg", "unit": "a dog"}', "case 0: no field 'half_truth'"),
        (aro.relations, "[{", "cannot be read as JSON"),
        (aro.relations, None, "no such file"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused_with_its_name_and_the_case(
    tmp_path: Path, read: Reader, content: Any, message: str
) -> None:
    file = tmp_path / "cases.json"
    if content is not None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BenchmarkDataError, match=r"cases\.json: |made: ") as raised:
        read(ABOUT, file, tmp_path)
    assert message in str(raised.value)
