"""Packing keeps every image with all its captions, writes whole shards or none, and is deterministic."""

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sclip.data.patterns import expand
from sclip.data.shards import Rejected, Sample, read_shard
from sclip.prepare.pack import RawSample, write_shards
from sclip.prepare.writing import PackError
from support.commands import command
from support.pictures import animated


def image_bytes(number: int = 0, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 90, 30)).save(buffer, kind)
    return buffer.getvalue()


def raw(number: int, captions: tuple[str, ...] = ("a dog", "a brown dog")) -> RawSample:
    return RawSample(f"{number:06d}", image_bytes(number), captions)


def read_all(out: Path) -> list[Sample | Rejected]:
    return [item for url in expand([f"{out}/*.tar"]) for item in read_shard(url)]


def visible(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_packed_samples_are_read_back_and_the_index_has_counts_sizes_and_checksums(tmp_path: Path) -> None:
    written = write_shards((raw(n) for n in range(7)), tmp_path, samples_per_shard=3)
    assert [shard.samples for shard in written.shards] == [3, 3, 1]
    captions = ("a dog", "a brown dog")
    assert read_all(tmp_path) == [Sample(n % 3, f"{n:06d}", image_bytes(n), captions) for n in range(7)]
    index = json.loads((tmp_path / "index.json").read_text())
    assert (index["format"], index["samples"]) == (1, 7)
    for entry in index["shards"]:
        content = (tmp_path / entry["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])


def test_the_bytes_do_not_depend_on_time_or_workers_and_the_image_decides_its_suffix(tmp_path: Path) -> None:
    for workers in (1, 2):
        write_shards(
            (raw(n) for n in range(5)), tmp_path / f"{workers}", samples_per_shard=2, workers=workers
        )
    assert visible(tmp_path / "1") == visible(tmp_path / "2")
    with tarfile.open(tmp_path / "1" / "000000.tar") as tar:
        assert {(member.mtime, member.uname, member.uid) for member in tar} == {(0, "", 0)}
    write_shards([RawSample("x", image_bytes(kind="PNG"), ("a dog",))], tmp_path)
    with tarfile.open(tmp_path / "000000.tar") as tar:
        assert sorted(tar.getnames()) == ["x.json", "x.png"]


def test_a_shard_is_closed_before_its_byte_limit(tmp_path: Path) -> None:
    size = len(image_bytes())
    for limit, counts in ((2 * size, [2, 2, 1]), (3 * size - 1, [2, 2, 1]), (1, [1] * 5)):
        samples = (RawSample(f"{n}", image_bytes(), ("a dog",)) for n in range(5))
        index = write_shards(samples, tmp_path / str(limit), bytes_per_shard=limit)
        assert [shard.samples for shard in index.shards] == counts


SKIPPED = (
    ({"captions": ()}, "no caption"), ({"captions": ("  ", "")}, "no caption"),
    ({"captions": ("\ud800",)}, "not UTF-8"), ({"captions": ("a" * 70_000,)}, "more than 65536"),
    ({"image": b"no image"}, "not an image"), ({"image": image_bytes(kind="PPM")}, "PPM; convert"),
    ({"image": animated("GIF")}, "3 frames"), ({"image": Path("/nowhere/x.jpg")}, "missing"), ({"key": "x.y"}, "dot"),
    ({"key": "/x"}, "empty part"), ({"key": "000000"}, "earlier sample"),
)  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), SKIPPED, ids=range(len(SKIPPED)))
def test_a_sample_that_no_reader_could_use_is_skipped_and_counted_with_its_place(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    sample = dataclasses.replace(RawSample("x", image_bytes(), ("a dog",)), **change)
    index = write_shards([raw(0), sample, raw(1)], tmp_path)
    assert [item.key for item in read_all(tmp_path)] == ["000000", "000001"]
    (line,) = index.skips.lines()
    assert line.startswith("1 skipped: ")
    assert reason in line
    assert "(first: " in line


def test_old_shards_are_kept_unless_overwrite_is_given_which_removes_all_of_them(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pairs.csv"], "Missing argument 'OUT'"),
        (["pairs.csv", "out", "--processes", "0"], "greater than or equal to 1"),
        (["nowhere.csv", "out"], "nowhere.csv: No such file"),
        (["pairs.csv", "out", "--processes", "1"], "no sample to pack; 1 skipped: image file is missing"),
        (["pairs.csv", "full", "--processes", "1"], "holds index.json already"),
    ],
)
def test_the_job_ends_with_status_2_and_one_line_on_bad_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.csv").write_text("image,caption\nnone.jpg,gone\n")
    write_shards([raw(0)], tmp_path / "full")
    assert command("pack")(*arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
