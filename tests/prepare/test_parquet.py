"""Parquet sources are streamed: embedded images or image paths, each with its own captions."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sclip.prepare.sources import read_source
from sclip.prepare.writing import PackError
from support.caption_sources import NAMES, PAIRS, ROWS, folder_of_images, image_bytes, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of_images(tmp_path)


def embedded(names: list[str | None], files: list[str], captions: list[Any]) -> dict[str, list[Any]]:
    images = [{"bytes": image_bytes(file), "path": name} for name, file in zip(names, files, strict=True)]
    return {"image": images, "caption": captions}


NAMED, TEXT = [name for name, _ in ROWS], [text for _, text in ROWS]
PARQUET: dict[str, dict[str, list[Any]]] = {
    "images and lists": embedded([*NAMES], [*NAMES], [[*texts] for texts in PAIRS.values()]),
    "a row a caption": embedded(NAMED, NAMED, TEXT),
    "shuffled": embedded(NAMED[::-1], NAMED[::-1], TEXT[::-1]),
    "one name for all": embedded(["0.jpg"] * 4, NAMED, TEXT),
    "no names": embedded([None] * 3, [*NAMES], [[*texts] for texts in PAIRS.values()]),
    "bytes": {"jpg": [image_bytes(name) for name in NAMED], "filename": NAMED, "text": TEXT},
    "objects": embedded([*NAMES], [*NAMES], [[{"raw": text} for text in texts] for texts in PAIRS.values()]),
    "paths": {"filepath": NAMED, "title": TEXT, "similarity": [0.1, 0.2, 0.3, 0.4]},
    "paths in a struct": {"image": [{"bytes": None, "path": name} for name in NAMED], "caption": TEXT},
    "Karpathy": {
        "filepath": ["", "", "sub"], "filename": ["a.jpg", "b.jpg", "a.jpg"],
        "sentences": [[*texts] for texts in PAIRS.values()], "split": ["train", "train", "restval"],
    },
}  # fmt: skip


@pytest.mark.parametrize("form", PARQUET)
def test_parquet_gives_each_image_its_own_captions(folder: Path, form: str) -> None:
    pq.write_table(pa.table(PARQUET[form]), folder / "x.parquet", row_group_size=2)
    pairs, skips = read(folder / "x.parquet")
    assert {name: set(captions) for name, captions in pairs.items()} == {n: set(c) for n, c in PAIRS.items()}
    assert not skips.counts


def test_parquet_files_of_a_pattern_or_folder_are_one_source_with_splits_from_file_names(
    tmp_path: Path,
) -> None:
    for split, name in (("train", "a.jpg"), ("test", "b.jpg")):
        file = tmp_path / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.table(embedded([None], [name], [split])), file)
    for source in (tmp_path, tmp_path / "*.parquet"):
        with pytest.raises(PackError, match=r"has the splits test \(1\), train \(1\); choose with --split"):
            read(source)
        pairs, skips = read(source, splits=["train"])
        assert pairs == {"a.jpg": ("train",)}
        test_file = tmp_path / "test-00000-of-00001.parquet"
        assert skips.lines() == [f"1 skipped: its split 'test' is not in --split (first: {test_file} row 1)"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_rows_with_one_image_name_are_one_image_for_any_type_of_names(
    tmp_path: Path, kind: pa.DataType
) -> None:
    texts = pa.array(NAMED).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(NAMED, kind)
    rows = {"image": [image_bytes(name) for name in NAMED], "file_name": texts, "caption": TEXT, "url": TEXT}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    pairs, skips = read(tmp_path / "x.parquet")
    assert {name: set(captions) for name, captions in pairs.items()} == {n: set(c) for n, c in PAIRS.items()}
    assert skips.notes == ["fields that are not packed: url"]


def test_parquet_files_whose_images_are_of_different_types_are_refused(folder: Path) -> None:
    message = r"1\.parquet: image holds \S.*, in 0\.parquet \S.*; pack the files one by one"
    for columns in permutations([["a.jpg"], [{"path": "a.jpg", "bytes": b"x"}], [b"x"]], 2):
        for name, images in zip("01", columns, strict=True):
            pq.write_table(pa.table({"image": images, "caption": ["a dog"]}), folder / f"{name}.parquet")
        with pytest.raises(PackError, match=message):
            read_source(folder / "*.parquet")


@pytest.mark.parametrize(
    ("names", "columns", "splits"),
    [
        (("train_0", "test_0"), ({}, {}), "test (1), train (1)"),
        (("train", "coco_test"), ({}, {}), "test (1), train (1)"),
        (("train-00000", "eval-00000"), ({}, {}), "eval (1), train (1)"),
        (("split=train/0", "split=test/0"), ({}, {}), "test (1), train (1)"),
        (("train2017/a", "Val2017/a"), ({}, {}), "val (1), train (1)"),
        (("train/a", "b"), ({}, {}), "(none) (1), train (1)"),
        (("0", "1"), ({}, {"split": "test"}), "(none) (1), test (1)"),
        (("0", "1"), ({"split": "train"}, {"Subset": "dev"}), "train (1), dev (1)"),
        (("train-0", "train-1"), ({}, {"subset": "cc3m"}), ""),
        (("contest-0", "latest-1"), ({}, {"fold": "3"}), ""),
    ],
)
@pytest.mark.parametrize(("pattern", "form"), [("", "images"), ("**/*.parquet", "paths")])
def test_a_test_split_among_parquet_files_is_never_packed_unasked(
    folder: Path, names: list[str], columns: list[dict[str, str]], splits: str, pattern: str, form: str
) -> None:
    source = folder / "test" / "x"  # the user names this path, so its "test" is not a split
    for name, image, more in zip(names, NAMES, columns, strict=False):
        file = source / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = embedded([image], [image], ["a dog"]) | {key: [value] for key, value in more.items()}
        pq.write_table(pa.table(rows if form == "images" else rows | {"image": [image]}), file)
    if splits:
        with pytest.raises(PackError) as caught:
            read(source / pattern, images=folder)
        hint = "choose with --split NAME, once for each (train takes restval too)"
        assert str(caught.value) == f"{source / pattern}: has the splits {splits}; {hint}"
    else:
        assert len(read(source / pattern, images=folder)[0]) == 2


def test_a_parquet_row_without_an_image_is_skipped_and_a_broken_file_is_refused(tmp_path: Path) -> None:
    rows = embedded([None, None], ["a.jpg", "b.jpg"], ["a dog", "a cat"])
    rows["image"][1] = None
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    pairs, skips = read(tmp_path / "x.parquet")
    assert pairs == {"a.jpg": ("a dog",)}
    assert skips.lines() == [f"1 skipped: row without image (first: {tmp_path / 'x.parquet'} row 2)"]
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-20])
    with pytest.raises(PackError, match=r"cut\.parquet: not readable as Parquet"):
        read(tmp_path / "cut.parquet")
