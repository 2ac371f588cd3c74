"""Pictures of a benchmark are recognised by their names and by their looks, and are not packed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sclip.data.shards import Sample, read_shard
from sclip.evaluate.exclusion import MOST_BITS, Exclusion, ExclusionError, Exclusions, name_of, phash
from sclip.prepare.exclude import excluded, write_list
from sclip.prepare.pack import RawSample, Skips, write_shards
from support.commands import command
from support.pictures import encoded, noise, picture

pack, exclude = command("pack"), command("exclude")


def photograph(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Return a picture of soft shapes, different for each seed."""
    return noise(7, 6, seed).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("train2017/000000391895.jpg", "000000391895"), ("val2014/COCO_val2014_000000391895.jpg", "000000391895"),
        ("VG_100K_2\\2370799.JPG", "2370799"), ("my.photo.jpeg", "my_photo"), ("folder/00001.jpg", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_picture_has_one_name_in_any_folder(key: str, name: str) -> None:
    assert name_of(key) == name
    match = Exclusions([Exclusion("coco-test", name or "other", phash(photograph(0)))]).match(key)
    assert match == ("excluded: named like a picture of coco-test" if name else None)


CHANGES: dict[str, Callable[[Image.Image], bytes | Image.Image]] = {
    "poor JPEG": lambda p: encoded(p, "JPEG", quality=30),
    "WebP": lambda p: encoded(p, "WEBP", quality=50),
    "small": lambda p: encoded(p.resize((96, 72)), "JPEG"),
    "square": lambda p: encoded(p.resize((224, 224))),
    "grey": lambda p: encoded(p.convert("L")),
    "opened": lambda p: p.resize((640, 480)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_is_excluded_by_its_looks_under_another_name_and_others_are_kept(change: str) -> None:
    exclusions = Exclusions([Exclusion(f"benchmark {n}", "", phash(photograph(n))) for n in range(20)])
    matches = [exclusions.match("other", CHANGES[change](photograph(seed))) for seed in (7, *range(20, 60))]
    assert matches == ["excluded: looks like a picture of benchmark 7", *[None] * 40]


def test_a_hash_matches_if_at_most_the_allowed_number_of_bits_differ() -> None:
    original = phash(photograph(0))
    for bits in (MOST_BITS, MOST_BITS + 1):
        other = int(original, 16) ^ ((1 << bits) - 1)
        match = Exclusions([Exclusion("b", "", f"{other:016x}")]).match("", photograph(0))
        assert (match is not None) == (bits <= MOST_BITS)


def test_a_plain_surface_and_a_broken_picture_match_nothing() -> None:
    exclusions = Exclusions([Exclusion("benchmark", "", phash(photograph(0)))])
    assert phash(picture("white")) == ""
    for image in (picture("white"), b"no picture", encoded(photograph(0))[:200]):
        assert exclusions.match("key", image) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "line 2: must be"),
        ('{"source": "x", "file": "y"}', "line 2: must be .*file"),
        ('{"key": "x"}', "line 2: must be .*source"),
        ('{"source": "x"}', "line 2: names no picture"),
        ('{"source": "x", "phash": "xyz"}', "line 2: phash 'xyz' is not 16 hexadecimal digits"),
    ],
)
def test_a_line_that_names_no_picture_is_an_error_with_file_and_line(
    line: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"source": "x", "key": "y"}\n' + line + "\n")
    with pytest.raises(ExclusionError, match=message) as caught:
        Exclusions.read([path])
    assert str(path) in str(caught.value)


def test_a_list_written_by_hand_may_hold_paths(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"source": "x", "key": "val2014/COCO_val2014_000000391895.jpg"}\n')
    assert Exclusions.read([path]).match("train2017/000000391895")


def folder_of(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "images"
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(photograph(seed), "JPEG"))
    return folder


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_folders_and_shards_are_listed_with_names_and_hashes_and_unreadable_pictures_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, "VG_100K/2370799.jpg", "1.jpg")
    (folder / "broken-one.jpg").write_bytes(b"no picture")
    (folder / "VG_100K").rename(tmp_path / "elsewhere")
    (folder / "VG_100K").symlink_to(tmp_path / "elsewhere")
    (folder / ".thumbs").mkdir()
    (folder / ".thumbs" / "hidden.jpg").write_bytes(b"no picture")
    assert exclude(folder, "--out", tmp_path / "new" / "list.jsonl", "--name", "aro") == 0
    output = capsys.readouterr()
    assert "3 pictures, 2 with a perceptual hash" in output.out
    assert "1 skipped: hash of an unreadable picture, only its name is listed" in output.err
    write_shards([RawSample("photo-0", encoded(photograph(0)), ("a caption",))], tmp_path)
    assert list(excluded(f"{tmp_path}/*.tar", "mine", Skips())) == [
        Exclusion("mine", "photo-0", phash(photograph(0)))
    ]
    entries = lines_of(tmp_path / "new" / "list.jsonl")
    assert {entry["source"] for entry in entries} == {"aro"}
    assert [entry["key"] for entry in entries] == ["", "2370799", "broken-one"]


def test_the_test_split_of_a_karpathy_file_is_listed(tmp_path: Path) -> None:
    folder_of(tmp_path, "val2014/COCO_val2014_000000000001.jpg")
    images = [
        {"filename": f"COCO_val2014_{n:012d}.jpg", "filepath": "val2014", "split": split, "sentences": []}
        for n, split in ((1, "test"), (2, "test"), (3, "train"))
    ]
    source = tmp_path / "dataset_coco.json"
    source.write_text(json.dumps({"images": images, "dataset": "coco"}))
    assert exclude(source, "--out", tmp_path / "list.jsonl", "--images", tmp_path / "images") == 0
    first, second = lines_of(tmp_path / "list.jsonl")
    assert (first["source"], first["key"]) == ("dataset_coco", "000000000001")
    assert len(first["phash"]) == 16
    assert (second["key"], second["phash"]) == ("000000000002", "")


NO_TEST_SPLIT = '{"images": [{"filename": "x.jpg", "split": "train"}]}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "not a folder of images"),
        ("broken.json", "{", "not a Karpathy file"),
        ("coco.json", '{"images": [{"file_name": "x.jpg"}]}', "not a Karpathy file: KeyError 'split'"),
        ("train.json", NO_TEST_SPLIT, "no picture of the split 'test'"),
        ("empty.tar", None, "empty.tar"),
        ("junk.tar", "not a tar", "no picture in any source: 1 skipped: sample that cannot be read"),
    ],
)
def test_an_unusable_source_is_refused_in_one_line_with_status_2(
    name: str, content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content:
        (tmp_path / name).write_text(content)
    assert exclude(tmp_path / name, "--out", tmp_path / "list.jsonl") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "list.jsonl").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_excluded_pictures_are_not_packed_but_counted_and_a_broken_list_stops_packing_first(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, "a-dog.jpg", "000000391895.jpg", "copy-of-seven.jpg", "a-cat.jpg")
    (folder / "copy-of-seven.jpg").write_bytes(encoded(photograph(7, (96, 72)), "JPEG", quality=40))
    for image in folder.glob("*.jpg"):
        image.with_suffix(".txt").write_text("a caption")
    named, alike = tmp_path / "coco.jsonl", tmp_path / "aro.jsonl"
    write_list([Exclusion("coco-test", "000000391895")], named)
    alike.write_text("nothing\n")
    arguments = [folder, tmp_path / "out", "--processes", workers, "--samples-per-shard", "2"]
    arguments += ["--exclude", named, "--exclude", alike]
    assert pack(*arguments) == 2
    assert "aro.jsonl line 1: must be" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    write_list([Exclusion("aro", "", phash(photograph(7)))], alike)
    assert pack(*arguments) == 0
    packed = [item for tar in sorted((tmp_path / "out").glob("*.tar")) for item in read_shard(str(tar))]
    assert [item.key for item in packed if isinstance(item, Sample)] == ["a-cat", "a-dog"]
    errors = capsys.readouterr().err
    assert "1 skipped: excluded: named like a picture of coco-test (first: " in errors
    assert "1 skipped: excluded: looks like a picture of aro (first: " in errors
