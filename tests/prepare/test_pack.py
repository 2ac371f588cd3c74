"""Packing: every image with all its captions, whole shards or none, the same bytes for the same input."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from sclip.data.counts import count_samples
from sclip.data.patterns import expand
from sclip.data.shards import Rejected, Sample, read_shard
from sclip.prepare.pack import PackError, RawSample, write_shards
from sclip.prepare.sources import read_source
from support.commands import command
from support.paths import ROOT
from support.pictures import animated


def image_bytes(number: int = 0, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 90, 30)).save(buffer, kind)
    return buffer.getvalue()


def raw(number: int, captions: tuple[str, ...] = ("a dog", "a brown dog")) -> RawSample:
    return RawSample(f"{number:06d}", image_bytes(number), "jpg", captions)


def read_all(out: Path) -> list[Sample | Rejected]:
    return [item for url in expand([f"{out}/*.tar"]) for item in read_shard(url)]


def visible(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def job() -> Callable[..., int]:
    return command("pack")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.jpg", "sub/c.jpg")):
        (folder / name).write_bytes(image_bytes(number))
    return folder


def test_what_was_packed_is_read_back_with_every_caption_and_the_original_bytes(tmp_path: Path) -> None:
    index = write_shards((raw(n) for n in range(7)), tmp_path, samples_per_shard=3)
    assert [shard.samples for shard in index.shards] == [3, 3, 1]
    found = read_all(tmp_path)
    assert [item.key for item in found] == [f"{n:06d}" for n in range(7)]
    assert [item.image for item in found if isinstance(item, Sample)] == [image_bytes(n) for n in range(7)]
    assert {item.captions for item in found if isinstance(item, Sample)} == {("a dog", "a brown dog")}


def test_the_index_holds_counts_sizes_and_checksums_of_the_tars_beside_it(tmp_path: Path) -> None:
    write_shards((raw(n) for n in range(5)), tmp_path, samples_per_shard=2)
    index = json.loads((tmp_path / "index.json").read_text())
    assert (index["format"], index["samples"]) == (1, 5)
    for entry in index["shards"]:
        content = (tmp_path / entry["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
    assert sum(count_samples(expand([f"{tmp_path}/*.tar"])).samples.values()) == 5


def test_the_bytes_do_not_depend_on_time_or_on_the_number_of_workers(tmp_path: Path) -> None:
    write_shards((raw(n) for n in range(9)), tmp_path / "one", samples_per_shard=2)
    write_shards((raw(n) for n in range(9)), tmp_path / "two", samples_per_shard=2, workers=2)
    assert visible(tmp_path / "one") == visible(tmp_path / "two")
    with tarfile.open(tmp_path / "one" / "000000.tar") as tar:
        assert {(member.mtime, member.uname, member.uid) for member in tar} == {(0, "", 0)}


def test_a_shard_is_closed_before_its_byte_limit(tmp_path: Path) -> None:
    size = len(image_bytes())
    for limit, counts in ((2 * size, [2, 2, 1]), (3 * size - 1, [2, 2, 1]), (1, [1] * 5)):
        samples = (RawSample(f"{n}", image_bytes(), "jpg", ("a dog",)) for n in range(5))
        index = write_shards(samples, tmp_path / str(limit), bytes_per_shard=limit)
        assert [shard.samples for shard in index.shards] == counts


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (RawSample("x", image_bytes(), "jpg", ()), "no caption"),
        (RawSample("x", image_bytes(), "jpg", ("  ", "")), "no caption"),
        (RawSample("x", image_bytes(), "jpg", ("\ud800",)), "not UTF-8"),
        (RawSample("x", image_bytes(), "jpg", ("a" * 70_000,)), "more than 65536"),
        (RawSample("x", b"no image", "jpg", ("a dog",)), "no image"),
        (RawSample("x", b"", "jpg", ("a dog",)), "no image"),
        (RawSample("x", image_bytes(kind="PPM"), "ppm", ("a dog",)), "PPM; convert"),
        (RawSample("x", animated("GIF"), "gif", ("a dog",)), "3 frames"),
        (RawSample("x", Path("/nowhere/x.jpg"), "jpg", ("a dog",)), "missing"),
        (RawSample("x.y", image_bytes(), "jpg", ("a dog",)), "dot"),
        (RawSample("../x", image_bytes(), "jpg", ("a dog",)), "dot"),
        (RawSample("/x", image_bytes(), "jpg", ("a dog",)), "empty part"),
        (RawSample("000000", image_bytes(), "jpg", ("another",)), "earlier sample"),
    ],
)
def test_what_no_reader_could_use_is_skipped_counted_and_placed(
    tmp_path: Path, sample: RawSample, reason: str
) -> None:
    index = write_shards([raw(0), sample, raw(1)], tmp_path)
    assert [item.key for item in read_all(tmp_path)] == ["000000", "000001"]
    (line,) = index.skips.lines()
    assert line.startswith("1 skipped: ")
    assert reason in line
    assert "(first: " in line


def test_the_image_decides_its_suffix_where_the_name_is_wrong(tmp_path: Path) -> None:
    write_shards([RawSample("x", image_bytes(kind="PNG"), "jpg", ("a dog",))], tmp_path)
    with tarfile.open(tmp_path / "000000.tar") as tar:
        assert sorted(tar.getnames()) == ["x.json", "x.png"]


def test_shards_of_before_are_kept_unless_overwrite_is_given_and_then_none_is_left(tmp_path: Path) -> None:
    write_shards((raw(n) for n in range(4)), tmp_path, samples_per_shard=1)
    before = visible(tmp_path)
    with pytest.raises(PackError, match=r"index\.json already.*--overwrite"):
        write_shards([raw(9)], tmp_path)
    assert visible(tmp_path) == before
    write_shards([raw(9)], tmp_path, overwrite=True)
    assert sorted(visible(tmp_path)) == ["000000.tar", "index.json"]
    assert [item.key for item in read_all(tmp_path)] == ["000009"]


def test_an_interruption_keeps_finished_shards_and_leaves_neither_an_index_nor_a_half_tar(
    tmp_path: Path,
) -> None:
    def interrupted() -> Iterator[RawSample]:
        yield from (raw(n) for n in range(5))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(interrupted(), tmp_path, samples_per_shard=2)
    assert sorted(visible(tmp_path)) == ["000000.tar", "000001.tar"]
    assert [item.key for item in read_all(tmp_path)] == [f"{n:06d}" for n in range(4)]


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PackError, match="file"):
        write_shards([raw(0)], tmp_path / "file")


def test_coco_captions_of_an_image_end_in_one_sample(images: Path, tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "sub/c.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "caption": "a dog"},
            {"id": 2, "image_id": 8, "caption": "a cat"},
            {"id": 3, "image_id": 7, "caption": "a brown dog"},
            {"id": 4, "image_id": 99, "caption": "of no image"},
        ],
    }
    source = tmp_path / "captions.json"
    source.write_text(json.dumps(content))
    samples, skips = read_source(source)
    assert [(sample.key, sample.captions) for sample in samples] == [
        ("a", ("a dog", "a brown dog")),
        ("sub/c", ("a cat",)),
    ]
    assert samples[0].image == images / "a.jpg"
    assert skips.counts.total() == 1


def test_a_folder_gives_images_with_a_caption_file_of_the_same_name(images: Path) -> None:
    (images / "a.txt").write_text("a dog\na brown dog\n")
    (images / "sub" / "c.json").write_text('{"caption": "a cat"}')
    samples, skips = read_source(images)
    found = [(sample.key, sample.captions) for sample in samples]
    assert found == [("a", ("a dog", "a brown dog")), ("sub/c", ("a cat",))]
    assert skips.lines() == [
        f"1 skipped: no .txt or .json of the same name beside the image (first: {images / 'b.jpg'})"
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.csv", "image,caption\na.jpg,a dog\nb.jpg,a cat\na.jpg,a brown dog\n"),
        ("pairs.tsv", "filepath\ttitle\na.jpg\ta dog\nb.jpg\ta cat\na.jpg\ta brown dog\n"),
        (
            "pairs.jsonl",
            '{"image": "a.jpg", "captions": ["a dog", "a brown dog"]}\n\n'
            '{"image": "b.jpg", "captions": "a cat"}\n',
        ),
    ],
)
def test_rows_of_the_same_image_in_a_table_end_in_one_sample(images: Path, name: str, text: str) -> None:
    (images / name).write_text(text)
    samples, skips = read_source(images / name)
    assert [(s.key, s.captions) for s in samples] == [("a", ("a dog", "a brown dog")), ("b", ("a cat",))]
    assert not skips.counts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b"{", r"x\.json: not readable"),
        ("x.json", b'{"images": []}', r"x\.json: no COCO caption file.*annotations"),
        ("x.json", b"[]", r"x\.json: no COCO caption file"),
        ("x.csv", b"file,label\na.jpg,3\n", r"x\.csv: no field captions or caption.*--caption-field"),
        ("x.csv", b"image,caption\n\xff\xfe,a\n", r"x\.csv: not UTF-8 at byte 14 \(line 2\)"),
        ("x.parquet", b"PAR1", r"x\.parquet: not readable as Parquet"),
        ("x.parquet", b"image,caption", r"x\.parquet: not readable as Parquet"),
        ("missing.csv", None, r"missing\.csv: No such file"),
    ],
)
def test_a_source_that_cannot_be_read_is_one_line_and_exit_status_2(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PackError, match=message) as caught:
        read_source(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_job_packs_what_it_can_and_says_what_it_left_out(
    job: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = images / "pairs.csv"
    table.write_text("image,caption\na.jpg,a dog\nnone.jpg,gone\n,no image\nb.jpg,\nb.jpg,a cat\n")
    assert job(table, tmp_path / "out", "--processes", "1") == 0
    said = capsys.readouterr()
    assert "2 samples in 1 shards" in said.out
    assert "1 skipped: image file is missing" in said.err
    assert f"1 skipped: row without image (first: {table} line 4)" in said.err
    assert [item.key for item in read_all(tmp_path / "out")] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pairs.csv"], "Missing argument 'OUT'"),
        (["pairs.csv", "out", "--processes", "0"], "greater than or equal to 1"),
        (["pairs.csv", "out", "--worker", "1"], "No such option: --worker"),
        (["nowhere.csv", "out"], "nowhere.csv: No such file"),
        (["pairs.csv", "out", "--processes", "1"], "no sample to pack; 1 skipped: image file is missing"),
        (["pairs.csv", "full", "--processes", "1"], "holds index.json already"),
    ],
)
def test_the_job_ends_with_status_2_and_one_line_on_bad_usage(
    job: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.csv").write_text("image,caption\nnone.jpg,gone\n")
    write_shards([raw(0)], tmp_path / "full")
    assert job(*arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


COCO = ROOT.parent / "shared" / "data" / "coco_mini"


@pytest.mark.skipif(not COCO.is_dir(), reason="COCO photographs are not on this machine")
def test_coco_photographs_are_packed_whole_with_five_captions_each(tmp_path: Path) -> None:
    samples, skips = read_source(COCO / "captions_train.json")
    index = write_shards(samples, tmp_path, samples_per_shard=32)
    assert not skips.counts
    assert not index.skips.counts
    listed = json.loads((COCO / "captions_train.json").read_text())
    found = read_all(tmp_path)
    assert len(found) == len(listed["images"])
    captions = sum(len(item.captions) for item in found if isinstance(item, Sample))
    assert captions == len(listed["annotations"])
