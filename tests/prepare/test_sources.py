"""Reading users' files: each image gets its own captions only, and each row is packed or counted with its line."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.data.patterns import expand
from sclip.data.shards import Sample, read_shard
from sclip.prepare.sources import read_source
from sclip.prepare.writing import PackError
from support import caption_sources
from support.caption_sources import CAT, DOG, LISTS, NAMES, PAIRS, ROWS, image_bytes, read, table
from support.commands import command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return caption_sources.folder_of_images(tmp_path)


KARPATHY = [
    {"filename": name.split("/")[-1], "filepath": name.rpartition("/")[0], "split": split, "cocoid": number,
     "sentences": [{"raw": text, "tokens": text.split()} for text in captions]}
    for number, ((name, captions), split) in enumerate(zip(PAIRS.items(), ("train", "train", "restval"), strict=True))
]  # fmt: skip
COCO = {
    "images": [{"id": number, "file_name": name} for number, name in enumerate(NAMES)],
    "annotations": [{"id": 9, "image_id": NAMES.index(name), "caption": text} for name, text in ROWS],
}
NEGATIVES = [[name, text, "7", repr(["a cat's", 'a "dog"'])] for name, text in ROWS]

TEXTS = {
    "captions_train.json": json.dumps(COCO),
    "dataset_coco.json": json.dumps({"images": KARPATHY, "dataset": "coco"}),
    "results_20130124.token": "".join(f"{name}#{n}\t{text}\n" for n, (name, text) in enumerate(ROWS)),
    "results.csv": "image_name| comment_number| comment\n"
    + "".join(f"{name}| {n}| {text}\n" for n, (name, text) in enumerate(ROWS)),
    "captions.txt": table([["image", "caption"], *ROWS]),
    "coco_karpathy_train.json": json.dumps([{"image": n, "caption": t, "image_id": "coco_1"} for n, t in ROWS]),
    "lists.json": json.dumps([{"image": name, "caption": texts} for name, texts in LISTS]),
    "structure_clip.json": json.dumps([{"image": n, "text": t, "triples": [["a", "b", "c"]]} for n, t in ROWS]),
    "open_clip.csv": table([["filepath", "title"], *ROWS], delimiter="\t"),
    "negclip.csv": table([["filepath", "title", "image_id", "neg_caption"], *NEGATIVES], delimiter="\t"),
    "by_hand.tsv": "filepath\ttitle\n" + "".join(f"{name}\t{text}\n" for name, text in ROWS),
    "all_quoted.tsv": table([["image", "caption"], *ROWS], delimiter="\t", quoting=csv.QUOTE_ALL),
    "windows.csv": "\ufeff" + table([["image", "caption"], *ROWS]).replace("\n", "\r\n"),
    "semicolons.csv": table([["image", "caption"], *ROWS], delimiter=";"),
    "json_cells.csv": table([["image", "captions"], *([name, json.dumps(texts)] for name, texts in LISTS)]),
    "python_cells.csv": table([["image", "captions"], *([name, repr(texts)] for name, texts in LISTS)]),
    "metadata.jsonl": "".join(json.dumps({"file_name": n, "text": t}) + "\n" for n, t in ROWS),
    "lines.json": "".join(json.dumps({"image": n, "captions": t}) + "\n" for n, t in LISTS),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_each_form_of_file_gives_each_image_its_own_captions(folder: Path, name: str) -> None:
    (folder / name).write_text(TEXTS[name], encoding="utf-8", newline="")
    packed, skips = read(folder / name)
    assert packed == PAIRS
    assert not skips.counts


@pytest.mark.parametrize(
    ("name", "text", "pairs", "skipped"),
    [
        ("x.tsv", 'image\tcaption\na.jpg\t"A dog\nb.jpg\tcat"\n', {"a.jpg": ('"A dog',), "b.jpg": ('cat"',)}, {}),
        ("x.tsv", 'image\tcaption\na.jpg\t"Go" it says\nb.jpg\t"Go"\n',
         {"a.jpg": ('"Go" it says',), "b.jpg": ('"Go"',)}, {}),
        ("x.csv", "image,caption\na.jpg,a dog, brown\nb.jpg,a cat\nb.jpg\n", {"b.jpg": CAT},
         {"more cells": "line 2", "fewer cells": "line 4"}),
        ("x.csv", 'image,caption\n\na.jpg,"a dog\n\non grass"\nb.jpg,a cat,\n', {"a.jpg": ("a dog\n\non grass",)},
         {"more cells": "line 6"}),
        ("captions.txt", "image,caption\na.jpg,a dog, brown, runs\n", {"a.jpg": ("a dog, brown, runs",)}, {}),
        ("x.csv", "image_name| comment_number| comment\na.jpg| 4   A dog .\nb.jpg| 0| a | cat\nb.jpg| 1| a cat\n",
         {"b.jpg": CAT}, {"fewer cells": "line 2", "more cells": "line 3"}),
        ("x.token", "a.jpg#0\ta\tdog\u2028runs\nno token\nb.jpg#1\ta cat\n",
         {"a.jpg": ("a\tdog\u2028runs",), "b.jpg": CAT}, {"line is not IMAGE#NUMBER": "line 2"}),
        ("x.csv", "image,caption\na.jpg,[sic]\nb.jpg,\"['a' 'b']\"\nb.jpg,[]\nb.jpg,[1]\nb.jpg,\"['', 'a cat']\"\n",
         {"a.jpg": ("[sic]",), "b.jpg": ("", "a cat")},
         {"without commas": "line 3", "row without caption": "line 4", "holds int, not text": "line 5"}),
        ("x.csv", "image,caption\n../a.jpg,up\nhttp://x/a.jpg,web\na\0.jpg,nul\n,none\nsub/../a.jpg,a\n./a.jpg,b\n",
         {"a.jpg": ("a", "b")}, {"leaves the": "line 2", "is a URL": "line 3", "not a valid": "line 4",
                                 "row without image": "line 5"}),
        ("x.jsonl", '{"image": "a.jpg", "text": "a dog"}\n[]\n{"image": 3, "text": "x"}\n'
         '{"image": "b.jpg", "text": 3}\n{"image": "b.jpg", "text": "\\ud800"}\n', {"a.jpg": ("a dog",)},
         {"not a JSON object": "line 2", "holds int, not a path": "line 3", "holds int, not text": "line 4",
          "not UTF-8": "line 5"}),
        ("x.json", '[{"image": "a.jpg", "text": "a dog"}, "b.jpg"]', {"a.jpg": ("a dog",)},
         {"not a JSON object": "row 2"}),
        ("x.csv", "image,caption,subset,fold\na.jpg,a dog,cc3m,1\nb.jpg,a cat,,2\n",
         {"a.jpg": ("a dog",), "b.jpg": CAT}, {}),
    ],
)  # fmt: skip
def test_an_invalid_row_is_counted_with_its_line_and_shifts_no_caption(
    folder: Path, name: str, text: str, pairs: dict[str, tuple[str, ...]], skipped: dict[str, str]
) -> None:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    packed, skips = read(folder / name)
    assert packed == pairs
    assert len(skips.counts) == len(skipped)
    for reason, location in skipped.items():
        (line,) = [line for line in skips.lines() if reason in line]
        assert line.startswith("1 skipped: ")
        assert f"{folder / name} {location})" in line


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", 'image,caption\na.jpg,"a dog\nb.jpg,a cat\nb.jpg,a bird\n', "line 2: a quote .* by line 4"),
        ("x.csv", 'image,caption\nb.jpg,x\na.jpg,"a dog\nb.jpg,a cat"\n', "line 3: .* another row, up to line 4"),
        ("x.csv", 'caption,image\n"a dog,a.jpg\na cat",b.jpg\n', "line 2: .* runs into another row"),
        ("x.csv", 'image,caption\na.jpg,"' + 40_000 * "a dog\n", "line 2: a quote opens a cell"),
        ("x.csv", "image,caption\nb.jpg,x\na.jpg,a\rb\n", "line 3: not readable"),
        ("x.csv", "image,caption,caption\n", "two columns are named 'caption'"),
        ("x.csv", "image,caption,text\na.jpg,a,b\n", "caption and text could each be the caption.*--caption-field"),
        ("x.tsv", "a dog\thttp://x/a\na\tb\n", "no field image .*fields: a dog, http://x/a.*--image-field"),
        ("x.csv", "0.jpg,a dog\n", "no header line, but 0.jpg in its first line; add a header .* 'image,caption'"),
        ("x.csv", "image,caption\ra.jpg,a dog\r", "carriage return alone; save it with line feeds"),
        ("x.csv", "image,caption," + 140_000 * "a" + "\na.jpg,a dog,b\n", "not readable as a header: field"),
        ("x.json", '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}]}', "KeyError 'caption'"),
        ("x.jsonl", '{"image": "a", "text": "b"}\n{"image": "a", "text": "b", "split": "test"}\n',
         r"the splits \(none\) \(1\), test \(1\); choose with --split"),
        ("x.json", '[{"image": "a", "text": "b"}, {"image": "a", "text": "b", "Partition": "Val"}]',
         r"the splits \(none\) \(1\), Val \(1\); choose with --split"),
        ("x.csv", "image,text,SPLIT\na,b,\na,b,test\n", r"the splits \(none\) \(1\), test \(1\); choose with --split"),
        ("x.csv", "image,text,subset\na,b,train\na,b,dev\n", r"the splits train \(1\), dev \(1\); choose with --split"),
        ("x.csv", "image,text,fold,split\na,b,1,test\n", r"the splits test \(1\); choose with --split"),
        ("x.json", "{", r"x\.json: not readable"),
        ("x.json", '{"images": []}', r"x\.json: not a COCO caption file.*annotations"),
        ("x.csv", "file,label\na.jpg,3\n", r"x\.csv: no field captions or caption.*--caption-field"),
        ("x.csv", b"image,caption\n\xff\xfe,a\n", r"x\.csv: not UTF-8 at byte 14 \(line 2\)"),
        ("x.parquet", "PAR1", r"x\.parquet: not readable as Parquet"),
        ("missing.csv", None, r"missing\.csv: No such file"),
    ],
)  # fmt: skip
def test_an_ambiguous_or_unreadable_source_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str | bytes | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(PackError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["image_field", "caption_field"])
def test_a_missing_field_is_reported_with_the_option_that_names_it(folder: Path, option: str) -> None:
    (folder / "x.csv").write_text("image,caption\na.jpg,a dog\n")
    pq.write_table(pa.table({"image": ["a.jpg"], "caption": ["a dog"]}), folder / "x.parquet")
    (folder / "x.jsonl").write_text('{"image": "a.jpg", "caption": "a dog"}\n')
    message = rf"no field nowhere \(fields: image, caption\); set --{option.replace('_', '-')}"
    for name in ("x.csv", "x.parquet", "x.jsonl"):
        with pytest.raises(PackError, match=message):
            read(folder / name, **{option: "nowhere"})


SPLIT = [
    image | {"split": split} for image, split in zip(KARPATHY, ("train", "test", "restval"), strict=True)
]


@pytest.mark.parametrize(
    ("splits", "names"),
    [
        (["train"], ["a.jpg", "sub/a.jpg"]),
        (["test"], ["b.jpg"]),
        (["restval", "test"], ["b.jpg", "sub/a.jpg"]),
        ([], r"x\.json: has the splits train \(1\), test \(1\), restval \(1\); choose with --split"),
        (["val"], r"x\.json: has no split 'val', only train \(1\), test \(1\), restval \(1\)"),
    ],
)
def test_splits_are_chosen_and_a_test_split_is_never_packed_unasked(
    folder: Path, splits: list[str], names: list[str] | str
) -> None:
    (folder / "x.json").write_text(json.dumps({"images": SPLIT}))
    if isinstance(names, str):
        with pytest.raises(PackError, match=names):
            read(folder / "x.json", splits=splits)
        return
    packed, skips = read(folder / "x.json", splits=splits)
    assert packed == {name: PAIRS[name] for name in names}
    assert skips.counts.total() == 3 - len(names)
    (folder / "x.csv").write_text("image,caption\na.jpg,a dog\n")
    with pytest.raises(PackError, match=r"x\.csv: has no splits; leave out --split"):
        read(folder / "x.csv", splits=splits)


def test_karpathys_images_may_lie_in_one_folder_unless_two_share_a_name(folder: Path) -> None:
    images = [{**image, "filepath": "val2014"} for image in KARPATHY[:2]]
    (folder / "x.json").write_text(json.dumps({"images": images}))
    assert read(folder / "x.json")[0] == {"a.jpg": DOG, "b.jpg": CAT}
    images.append({**KARPATHY[2], "filepath": "train2014"})
    (folder / "x.json").write_text(json.dumps({"images": images}))
    packed, skips = read(folder / "x.json")
    assert packed == {"b.jpg": CAT}
    assert skips.counts.total() == 2


@pytest.mark.parametrize(
    ("name", "file"), [("a.jpg", "images/a.jpg"), ("images/a.jpg", "images/a.jpg"), ("a.jpg", "a.jpg")]
)
def test_paths_are_relative_to_the_sources_folder_or_to_its_images_folder(
    tmp_path: Path, name: str, file: str
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / file).write_bytes(image_bytes("a.jpg"))
    (tmp_path / "x.csv").write_text(f"image,caption\n{name},a dog\n")
    (tmp_path / "x.json").write_text(json.dumps([{"image": name, "caption": "a dog"}]))
    for source in ("x.csv", "x.json"):
        assert read(tmp_path / source)[0] == {"a.jpg": ("a dog",)}


def test_images_without_a_row_and_fields_that_are_not_packed_are_reported(folder: Path) -> None:
    (folder / "sub" / "other.gif").write_bytes(b"")
    (folder / "x.csv").write_text("image,caption,url\nsub/a.jpg,a dog,a god\n")
    unpacked = "fields that are not packed: url"
    unnamed = "images in the image folder have no row (first:"
    assert read(folder / "x.csv")[1].notes == [unpacked, f"1 {unnamed} {folder / 'sub' / 'other.gif'})"]
    assert read(folder / "x.csv", images=folder)[1].notes == [unpacked, f"3 {unnamed} {folder / 'a.jpg'})"]


def test_coco_images_without_an_annotation_or_with_a_shared_id_are_counted(folder: Path) -> None:
    images = [{"id": number, "file_name": name} for number, name in zip((1, 2, 2), NAMES, strict=True)]
    annotations = [{"image_id": number, "caption": "a dog"} for number in (2, 99)]
    (folder / "x.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    packed, skips = read(folder / "x.json")
    assert not packed
    assert [line.split(" (first")[0] for line in skips.lines()] == [
        "1 skipped: annotation of an image id that two images share",
        "1 skipped: annotation of an image that the file does not list",
        "1 skipped: row without caption",
    ]  # fmt: skip


def test_a_folder_has_one_caption_per_line_and_counts_files_without_a_partner(folder: Path) -> None:
    (folder / "a.txt").write_text("a dog\n\n  \na\u2028b\r\n", newline="")
    (folder / "a.json").write_text('{"width": 8}')
    (folder / "b.json").write_text('{"caption": "no", "alt": ["a cat", "a brown cat"]}')
    (folder / "LICENSE.txt").write_text("free\n")
    packed, skips = read(folder, caption_field="alt")
    assert packed == {"a.jpg": ("a dog", "a\u2028b"), "b.jpg": ("a cat", "a brown cat")}
    assert skips.sum(2) == "3 images read = 2 packed + 1 skipped"
    assert "sub/a.jpg" in skips.lines()[0]
    assert skips.notes == [
        f"1 .txt or .json files without an image of the same name (first: {folder / 'LICENSE.txt'})"
    ]
    with pytest.raises(PackError, match="--split is for tables"):
        read(folder, splits=["train"])


def test_a_folder_is_read_through_links_with_each_picture_once_and_without_hidden_folders(
    tmp_path: Path,
) -> None:
    folder, linked = tmp_path / "folder", tmp_path / "behind"
    (folder / ".thumbs").mkdir(parents=True)
    (folder / ".thumbs" / "a.jpg").write_bytes(image_bytes("a.jpg"))
    (folder / ".thumbs" / "metadata.csv").write_text("file_name,text\na.jpg,a dog\n")
    linked.mkdir()
    (linked / "b.jpg").write_bytes(image_bytes("b.jpg"))
    (linked / "b.txt").write_text("a cat")
    for link, target in ((folder / "one", linked), (folder / "two", linked), (linked / "back", folder)):
        link.symlink_to(target)
    samples, _ = read_source(folder)
    assert [(sample.key, sample.captions) for sample in samples] == [("one/b", ("a cat",))]
    (linked / "metadata.csv").write_text("file_name,text\nb.jpg,a bird\n")
    assert read(folder)[0] == {"b.jpg": ("a bird",)}


def test_a_folder_is_read_by_its_metadata_file_and_two_metadata_files_are_refused(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,text\na.jpg,a dog\n")
    assert read(folder)[0] == {"a.jpg": ("a dog",)}
    (folder / "sub" / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "a bird"}\n')
    with pytest.raises(PackError, match=r"metadata\.csv and .*sub/metadata\.jsonl; pack one of them"):
        read(folder)
    assert read(folder / "sub")[0] == {"sub/a.jpg": ("a bird",)}


NASTY = st.text(alphabet="\",\t|\n\r\u2028\0\\'[] a", max_size=8)
WRITERS: dict[str, Callable[[list[list[str]]], str]] = {
    **{f"written by hand with {mark!r}": lambda rows, mark=mark: "".join(mark.join(row) + "\n" for row in rows)
       for mark in "\t|,"},
    **{f"written by csv with {mark!r}": lambda rows, mark=mark: table(rows, delimiter=mark) for mark in "\t|,"},
    "all quoted with tabs": lambda rows: table(rows, delimiter="\t", quoting=csv.QUOTE_ALL),
    "token": lambda rows: "".join(f"{name}#{n}\t{text}\n" for n, (name, text) in enumerate(rows[1:])),
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
@given(nasty=st.lists(st.tuples(NASTY, NASTY), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_no_caption_ever_reaches_another_image_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, writer: str, nasty: list[tuple[str, str]]
) -> None:
    source = tmp_path_factory.getbasetemp() / "nasty"
    rows = [[f"{n}.jpg", f"{before}<{n}>{after}"] for n, (before, after) in enumerate(nasty)]
    source.write_text(WRITERS[writer]([["image", "caption"], *rows]), encoding="utf-8", newline="")
    try:
        samples, skips = read_source(source)
    except PackError:
        return
    packed = list(samples)
    assert skips.sum(sum(sample.rows for sample in packed))
    for sample in packed:
        assert isinstance(sample.image, Path)
        name = sample.image.name  # a name of no row is the rest of a broken line
        other_numbers = [n for n in range(5) if f"{n}.jpg" != name] if re.fullmatch(r"\d\.jpg", name) else []
        assert not any(f"<{n}>" in text for n in other_numbers for text in sample.captions)


@pytest.mark.parametrize("mark", ["\t", ","])
@given(captions=st.lists(NASTY.filter(str.strip), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_a_csv_writer_quotes_throughout_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, mark: str, captions: list[str]
) -> None:
    source = tmp_path_factory.getbasetemp() / "quoted"
    rows = [[f"{n}.jpg", f"c{caption}"] for n, caption in enumerate(captions)]  # "c": not a list
    text = table([["image", "caption"], *rows], delimiter=mark, quoting=csv.QUOTE_ALL)
    source.write_text(text, "utf-8", newline="")
    samples, skips = read_source(source)
    assert [text for sample in samples for text in sample.captions] == [caption for _, caption in rows]
    assert not skips.counts


def test_the_command_packs_each_image_with_its_caption_counts_rows_and_asks_for_a_split(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.jpg").write_bytes(b"broken")
    lines = "image,caption|a.jpg,a dog|none.jpg,gone|none.jpg,gone too|b.jpg,a cat|sub/a.jpg,a bird|x"
    (folder / "x.csv").write_text(lines.replace("|", "\n"))
    assert command("pack")(folder / "x.csv", folder / "out", "--processes", "1") == 0
    output = capsys.readouterr()
    packed = [item for url in expand([f"{folder}/out/*.tar"]) for item in read_shard(url)]
    assert [(caption_sources.NAME_OF[item.image], item.captions) for item in packed if isinstance(item, Sample)] == [
        ("a.jpg", ("a dog",)), ("sub/a.jpg", ("a bird",)),
    ]  # fmt: skip
    assert (
        f"6 rows read = 2 packed + 4 skipped; all skipped rows: {folder / 'out' / 'skipped.jsonl'}"
        in output.out
    )
    skipped = [json.loads(line) for line in (folder / "out" / "skipped.jsonl").read_text().splitlines()]
    assert sorted((row["place"].split(" line ")[1].split(":")[0], row["rows"]) for row in skipped) == [
        ("3", 2), ("5", 1), ("7", 1),
    ]  # fmt: skip
    missing = folder / "none.jpg"
    assert (
        f"pack: 2 skipped: image file is missing (first: {folder / 'x.csv'} line 3: {missing})" in output.err
    )
    assert f"1 skipped: fewer cells than the header has (first: {folder / 'x.csv'} line 7)" in output.err
    (folder / "x.json").write_text(json.dumps({"images": SPLIT}))
    arguments = (folder / "x.json", folder / "split", "--processes", "1")
    assert command("pack")(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert command("pack")(*arguments, "--split", "train", "--split", "test") == 0
    assert "3 rows read = 2 packed + 1 skipped;" in capsys.readouterr().out
