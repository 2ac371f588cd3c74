"""Pictures of a benchmark are recognised by their names and by their looks, and are not packed."""

from __future__ import annotations

import json
import random
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
from support.paths import SHARED
from support.pictures import encoded, noise, picture

COCO = SHARED / "data" / "coco_mini" / "images"


def photograph(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Return a picture of soft shapes, different for each seed."""
    return noise(7, 6, seed).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pack() -> Callable[..., int]:
    return command("pack")


@pytest.fixture(scope="module")
def exclude() -> Callable[..., int]:
    return command("exclude")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("000000391895", "000000391895"),
        ("train2017/000000391895.jpg", "000000391895"),
        ("val2014/COCO_val2014_000000391895.jpg", "000000391895"),
        ("VG_100K_2\\2370799.JPG", "2370799"),
        ("my.photo.jpeg", "my_photo"),
        ("my_photo", "my_photo"),
        ("00001", ""),
        ("folder/1.jpg", ""),
        ("", ""),
    ],
)
def test_a_picture_has_one_name_wherever_it_lies(key: str, name: str) -> None:
    assert name_of(key) == name


@pytest.mark.parametrize("key", ["000000391895", "val2014/COCO_val2014_000000391895.jpg"])
def test_a_picture_is_excluded_by_its_name_alone(key: str) -> None:
    exclusions = Exclusions([Exclusion("coco-test", "000000391895")])
    assert exclusions.match(key) == "excluded: named as a picture of coco-test"
    assert exclusions.match("000000391896", encoded(photograph(0))) is None


def test_a_number_that_any_set_counts_with_excludes_nothing() -> None:
    assert Exclusions([Exclusion("vg", name_of("1.jpg"), phash(photograph(0)))]).match("1") is None


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "poor JPEG": lambda p: encoded(p, "JPEG", quality=30),
    "WebP": lambda p: encoded(p, "WEBP", quality=50),
    "small": lambda p: encoded(p.resize((96, 72)), "JPEG"),
    "square": lambda p: encoded(p.resize((224, 224))),
    "grey": lambda p: encoded(p.convert("L")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_is_excluded_by_its_looks_under_another_name(change: str) -> None:
    entries = [Exclusion(f"benchmark {seed}", "", phash(photograph(seed))) for seed in range(20)]
    changed = CHANGES[change](photograph(7))
    assert Exclusions(entries).match("other", changed) == "excluded: looks like a picture of benchmark 7"


def test_an_open_picture_looks_like_its_file() -> None:
    exclusions = Exclusions([Exclusion("benchmark", "", phash(encoded(photograph(1), "JPEG")))])
    assert exclusions.match("", photograph(1, (640, 480))) == "excluded: looks like a picture of benchmark"


def test_other_pictures_are_not_excluded() -> None:
    exclusions = Exclusions([Exclusion("benchmark", "", phash(photograph(seed))) for seed in range(60)])
    assert [s for s in range(60, 160) if exclusions.match(str(s), photograph(s))] == []


def test_the_nearest_hash_decides_up_to_the_most_bits_that_may_differ() -> None:
    found = phash(photograph(0))
    for bits in (MOST_BITS, MOST_BITS + 1):
        other = int(found, 16) ^ ((1 << bits) - 1)
        match = Exclusions([Exclusion("b", "", f"{other:016x}")]).match("", photograph(0))
        assert (match is not None) == (bits <= MOST_BITS)


def test_among_a_hundred_thousand_hashes_each_is_found() -> None:
    random_ = random.Random(0)
    hashes = [f"{random_.getrandbits(64):016x}" for _ in range(100_000)]
    hashes[54_321] = phash(photograph(3))
    exclusions = Exclusions([Exclusion(f"picture {n}", "", found) for n, found in enumerate(hashes)])
    assert exclusions.match("", photograph(3)) == "excluded: looks like a picture of picture 54321"


@pytest.mark.shared
@pytest.mark.skipif(not COCO.is_dir(), reason=f"{COCO} is not there")
def test_photographs_are_found_when_they_were_made_anew_and_no_two_of_them_are_one() -> None:
    files = sorted(COCO.glob("*.jpg"))
    hashes = [phash(file.read_bytes()) for file in files]
    for at, file in enumerate(files):
        others = Exclusions([Exclusion("other", "", found) for found in hashes[:at]])
        with Image.open(file) as photo:
            small = photo.convert("RGB").resize((photo.width // 3, photo.height // 3))
        assert Exclusions([Exclusion("same", "", hashes[at])]).match("", encoded(small, "JPEG", quality=50))
        assert others.match("", small) is None


def test_a_plain_surface_and_what_is_no_picture_look_like_nothing() -> None:
    plain = picture("white")
    assert phash(plain) == ""
    exclusions = Exclusions([Exclusion("benchmark", "", phash(photograph(0)))])
    assert exclusions.match("key", plain) is None
    assert exclusions.match("key", b"no picture") is None
    assert exclusions.match("key", encoded(photograph(0))[:200]) is None


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    entries = [
        Exclusion("a", "key", "0123456789abcdef"),
        Exclusion("b", "", "f" * 16),
        Exclusion("ç", "other"),
    ]
    assert write_list(entries, tmp_path / "list.jsonl") == 3
    read = Exclusions.read([tmp_path / "list.jsonl"])
    assert len(read) == 3
    assert read.match("other") == "excluded: named as a picture of ç"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is no"),
        ("[]", "line 2: is no"),
        ('{"source": "x", "file": "y"}', "line 2: is no .*file"),
        ('{"key": "x"}', "line 2: is no .*source"),
        ('{"source": "x"}', "line 2: names no picture"),
        ('{"source": "x", "phash": "xyz"}', "line 2: phash 'xyz' is not 16 hexadecimal digits"),
    ],
)
def test_a_line_that_names_no_picture_is_an_error_with_its_place(
    line: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"source": "x", "key": "y"}\n' + line + "\n")
    with pytest.raises(ExclusionError, match=message) as caught:
        Exclusions.read([path])
    assert str(path) in str(caught.value)


def test_a_list_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ExclusionError, match=r"nowhere\.jsonl: cannot be read"):
        Exclusions.read([Path("nowhere.jsonl")])


def folder_of(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "images"
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(photograph(seed), "JPEG"))
    return folder


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_is_listed_with_names_and_likenesses_and_what_cannot_be_read_by_name(
    exclude: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, "VG_100K/2370799.jpg", "1.jpg")
    (folder / "broken-one.jpg").write_bytes(b"no picture")
    (folder / "VG_100K").rename(tmp_path / "elsewhere")
    (folder / "VG_100K").symlink_to(tmp_path / "elsewhere")
    (folder / ".thumbs").mkdir()
    (folder / ".thumbs" / "hidden.jpg").write_bytes(b"no picture")
    assert exclude(folder, "--out", tmp_path / "new" / "list.jsonl", "--name", "aro") == 0
    said = capsys.readouterr()
    assert "3 pictures, 2 with their likeness" in said.out
    assert "1 skipped: likeness of a picture that cannot be read, its name is listed" in said.err
    assert [(entry["source"], entry["key"]) for entry in lines_of(tmp_path / "new" / "list.jsonl")] == [
        ("aro", ""),
        ("aro", "2370799"),
        ("aro", "broken-one"),
    ]


def test_of_a_karpathy_file_the_split_is_listed(exclude: Callable[..., int], tmp_path: Path) -> None:
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


def test_shards_are_listed(tmp_path: Path) -> None:
    samples = [RawSample(f"photo-{n}", encoded(photograph(n)), "png", ("a caption",)) for n in range(3)]
    write_shards(samples, tmp_path)
    entries = list(excluded(f"{tmp_path}/*.tar", "mine", Skips()))
    assert [entry.key for entry in entries] == ["photo-0", "photo-1", "photo-2"]
    assert entries[2].phash == phash(photograph(2))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "no folder of images"),
        ("broken.json", "{", "is no Karpathy file"),
        ("coco.json", '{"images": [{"file_name": "x.jpg"}]}', "is no Karpathy file: KeyError 'split'"),
        (
            "train.json",
            '{"images": [{"filename": "x.jpg", "split": "train"}]}',
            "no picture of the split 'test'",
        ),
        ("empty.tar", None, "empty.tar"),
        ("junk.tar", "no tar", "no picture in any of them: 1 skipped: sample that cannot be read"),
    ],
)
def test_a_source_that_is_none_is_one_line_and_status_2(
    name: str,
    content: str | None,
    message: str,
    exclude: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content:
        (tmp_path / name).write_text(content)
    assert exclude(tmp_path / name, "--out", tmp_path / "list.jsonl") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "list.jsonl").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_excluded_is_not_packed_and_counted_by_reason(
    workers: str, pack: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, "a-dog.jpg", "000000391895.jpg", "copy-of-seven.jpg", "a-cat.jpg")
    (folder / "copy-of-seven.jpg").write_bytes(encoded(photograph(7, (96, 72)), "JPEG", quality=40))
    for image in folder.glob("*.jpg"):
        image.with_suffix(".txt").write_text("a caption")
    lists = tmp_path / "coco.jsonl", tmp_path / "aro.jsonl"
    write_list([Exclusion("coco-test", "000000391895")], lists[0])
    write_list([Exclusion("aro", "", phash(photograph(7)))], lists[1])
    asked = [folder, tmp_path / "out", "--processes", workers, "--samples-per-shard", "2"]
    assert pack(*asked, "--exclude", lists[0], "--exclude", lists[1]) == 0
    packed = [item for tar in sorted((tmp_path / "out").glob("*.tar")) for item in read_shard(str(tar))]
    assert [item.key for item in packed if isinstance(item, Sample)] == ["a-cat", "a-dog"]
    said = capsys.readouterr().err
    assert "1 skipped: excluded: named as a picture of coco-test (first: " in said
    assert "1 skipped: excluded: looks like a picture of aro (first: " in said


def test_a_broken_list_stops_the_packing_before_anything_is_written(
    pack: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, "a-dog.jpg")
    (folder / "a-dog.txt").write_text("a dog")
    (tmp_path / "list.jsonl").write_text("nothing\n")
    assert pack(folder, tmp_path / "out", "--exclude", tmp_path / "list.jsonl") == 2
    assert "list.jsonl line 1: is no" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
