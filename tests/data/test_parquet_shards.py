"""Parquet files as shards: rows that Hugging Face and img2dataset write are read like a tar's samples."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sclip.config import DataConfig
from sclip.data.counts import count_samples
from sclip.data.shards import Rejected, Sample, ShardError, read_shard
from sclip.data.sniff import look, unreadable
from support.storage_server import Storage, isolate, serving, url_of
from support.tars import pair, tar_bytes

Table = dict[str, Any]
TEXTS = ["a dog", "a cat", "a bird"]
IMAGES = [b"image 0", b"image 1", b"image 2"]
SAMPLES = [Sample(n, f"{n:08d}", IMAGES[n], (TEXTS[n],)) for n in range(3)]


def content_of(table: Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer, **options)
    return buffer.getvalue()


def write(path: Path, table: Table, **options: Any) -> str:
    path.write_bytes(content_of(table, **options))
    return str(path)


def read(path: Path, table: Table, **data: Any) -> list[Sample | Rejected]:
    return list(read_shard(write(path, table), DataConfig(**data)))


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return tmp_path / "0.parquet"


HUGGING_FACE = [{"bytes": image, "path": f"{n}.jpg"} for n, image in enumerate(IMAGES)]
LAYOUTS: dict[str, Table] = {
    "Hugging Face": {"image": HUGGING_FACE, "caption": TEXTS, "label": [1, 2, 3]},
    "Hugging Face, another name": {"photo": HUGGING_FACE, "text": TEXTS},
    "img2dataset": {"url": TEXTS, "key": ["k"] * 3, "status": ["success"] * 3, "jpg": IMAGES, "caption": TEXTS},
    "bytes and names": {"image": IMAGES, "file_name": ["x.jpg"] * 3, "TEXT": TEXTS},
    "lists": {"image": IMAGES, "captions": [[text] for text in TEXTS]},
    "the first column with a text": {
        "image": IMAGES, "captions": [["a dog"], [], None], "caption": ["x", "a cat", "a bird"],
    },
    "dictionaries": {"image": IMAGES, "caption": pa.array(TEXTS).dictionary_encode()},
}  # fmt: skip


def test_each_usual_layout_gives_its_rows_in_order_with_row_numbers_as_keys(shard: Path) -> None:
    for layout, table in LAYOUTS.items():
        assert read(shard, table) == SAMPLES, layout


def test_images_may_be_files_beside_the_table_in_a_subfolder_or_at_an_absolute_path(
    shard: Path, tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    names = ["0.jpg", "deep/1.jpg", f"{tmp_path}/2.jpg"]
    for name, image in zip(names, IMAGES, strict=True):
        (tmp_path / name).write_bytes(image)
    assert read(shard, {"image_path": names, "caption": TEXTS}) == SAMPLES
    structs = [{"bytes": None, "path": name} for name in names]
    assert read(shard, {"image": structs, "caption": TEXTS}) == SAMPLES


def test_columns_of_other_names_are_read_if_the_config_names_them(shard: Path) -> None:
    table = {"image": [b"-"] * 3, "left": IMAGES, "alt": TEXTS, "long": [["one", "two"]] * 3}
    samples = read(shard, table, image_field="left", caption_field="alt, long")
    assert samples == [Sample(n, f"{n:08d}", IMAGES[n], (TEXTS[n], "one", "two")) for n in range(3)]
    url = str(shard)
    assert "without an image column img (columns: image, left, " in str(
        look(url, DataConfig(image_field="img"))
    )
    message = str(look(url, DataConfig(caption_field="caption,text")))
    assert "without a caption column caption,text (columns: image, left, " in message


NOT_UTF8 = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
BAD: list[tuple[Table, str]] = [
    ({"image": [b""]}, "row without image"),
    ({"image": [{"bytes": None, "path": None}]}, "row without image"),
    ({"jpg": pa.array([None], pa.binary()), "status": ["gone"]}, "row without jpg; its status is gone"),
    ({"path": ["gone.jpg"]}, "there is no file 'gone.jpg'"),
    ({"path": ["."]}, "there is no file '.'"),
    ({"path": ["../x.jpg"]}, "leaves the image folder"),
    ({"path": ["https://x/y.jpg"]}, "is a URL"),
    ({"path": ["x" * 999]}, "not a valid file name"),
    ({"image": [b"i"], "caption": pa.array([None], pa.string())}, "no caption in caption"),
    ({"image": [b"i"], "captions": [[" ", None]], "text": ["\u200b"], "caption": [""]}, "no caption in"),
    ({"image": [b"i"], "caption": [5]}, "caption holds int, not text"),
    ({"image": [b"i"], "caption": ["a" * 65537]}, "more than 65536"),
    ({"image": [b"i"], "caption": NOT_UTF8}, "not UTF-8"),
]


def test_an_unusable_row_is_rejected_with_its_reason_and_keeps_its_row_number(shard: Path) -> None:
    for table, reason in BAD:
        (item,) = read(shard, {"caption": ["a dog"]} | table)
        assert isinstance(item, Rejected)
        assert (item.index, item.key) == (0, "00000000")
        assert reason in item.reason
    rejected = Rejected(1, "00000001", "row without image")
    items = read(shard, {"image": [IMAGES[0], None, IMAGES[2]], "caption": TEXTS})
    assert items == [SAMPLES[0], rejected, SAMPLES[2]]


def noise(rows: int, size: int) -> Table:
    return {
        "image": [random.Random(n).randbytes(size) for n in range(rows)],
        "caption": [f"a dog and {n + 2} cats" for n in range(rows)],
    }


def test_every_row_of_every_row_group_is_read_and_the_footer_counts_them(shard: Path) -> None:
    url = write(shard, noise(300, 50), row_group_size=7)
    assert [item.index for item in read_shard(url) if isinstance(item, Sample)] == list(range(300))
    counts = count_samples([url])
    assert counts.samples == {url: 300}
    assert not counts.broken


def test_memory_does_not_follow_the_size_of_a_row_group(shard: Path) -> None:
    pages: dict[str, Any] = {"data_page_size": 2**20, "write_batch_size": 10}
    url = write(shard, noise(1200, 20_000), compression="none", row_group_size=1200, **pages)
    before = pa.total_allocated_bytes()
    most = 0
    tracemalloc.start()
    try:
        for _ in read_shard(url):
            most = max(most, pa.total_allocated_bytes() - before)
        assert most + tracemalloc.get_traced_memory()[1] < 16 * 2**20  # the row group has 24 MB
    finally:
        tracemalloc.stop()


def test_a_file_broken_in_the_middle_gives_the_rows_before_and_one_rejection_for_the_rest(
    shard: Path,
) -> None:
    url = write(shard, noise(400, 2000), row_group_size=100, compression="zstd", use_dictionary=False)
    offset = pq.ParquetFile(url).metadata.row_group(2).column(0).data_page_offset
    content = bytearray(shard.read_bytes())
    content[offset : offset + 100] = bytes(100)
    shard.write_bytes(content)
    *rows, rest = read_shard(url)
    assert [row.index for row in rows if isinstance(row, Sample)] == list(range(200))
    assert isinstance(rest, Rejected)
    assert (rest.index, rest.key) == (200, "")
    assert "a broken Parquet file" in rest.reason
    assert count_samples([url]).samples == {url: 400}  # the footer counts the lost rows too


WHOLE = content_of({"image": IMAGES, "caption": TEXTS})


@given(data=st.data())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_wrong_in_a_file_is_rejected_and_never_raised(shard: Path, data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(WHOLE) - 1))] = data.draw(st.integers(0, 255))
    shard.write_bytes(
        content[: data.draw(st.integers(0, len(WHOLE)))] if data.draw(st.booleans()) else content
    )
    items = list(read_shard(str(shard)))
    assert [item.index for item in items] == list(range(len(items)))
    assert all(item.key for item in items[:-1])
    count_samples([str(shard)])
    look(str(shard))


NO_SHARDS = [
    (WHOLE[:-20], "a broken Parquet file"),
    (b"<!DOCTYPE html><title>401</title>", "an HTML page '401'"),
    (b"", "an empty file; download it again"),
    (tar_bytes(pair("a")), "a tar; rename it to .tar"),
    (
        content_of({"image": IMAGES, "label": TEXTS}),
        "a Parquet file without a caption column (columns: image, label); set data.caption_field=COLUMN",
    ),
]


def test_run_start_and_reader_give_the_same_remedy_for_a_file_that_is_no_shard(shard: Path) -> None:
    for content, words in NO_SHARDS:
        shard.write_bytes(content)
        problem = look(str(shard))
        assert str(problem).startswith(f"not a Parquet shard: {words}")
        assert list(read_shard(str(shard))) == [Rejected(0, "", str(problem))]
        assert unreadable([str(shard)]) == {str(shard): problem}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    isolate(monkeypatch)
    content = content_of(noise(60, 3000), row_group_size=20)
    with serving(Storage({"/bucket/train/0.parquet": content})) as storage:
        yield storage


@pytest.mark.parametrize(
    "kind", ["http", "s3", "stream"]
)  # not GCS: pyarrow holds the GIL while it waits, and this server's thread needs it
def test_a_remote_file_is_read_like_a_local_one_even_if_the_server_fails_for_a_while(
    server: Storage, kind: str
) -> None:
    server.ranges = kind != "stream"
    url = url_of("http" if kind == "stream" else kind, server, "0.parquet")
    assert look(url) is None
    assert count_samples([url]).samples == {url: 60}
    server.faults["/bucket/train/0.parquet"] = [0, 503] if server.ranges else []
    rows = [(item.index, item.image) for item in read_shard(url) if isinstance(item, Sample)]
    assert rows == list(enumerate(noise(60, 3000)["image"]))
    assert server.faults["/bucket/train/0.parquet"] == []


def test_a_count_requests_only_the_footer(server: Storage) -> None:
    server.files["/bucket/train/0.parquet"] = content_of(noise(600, 3000), row_group_size=100)
    count_samples([url_of("http", server, "0.parquet")])
    ranges = [request.partition("bytes=")[2] for request in server.requests if "bytes=" in request]
    assert sum(int(last) - int(first) + 1 for first, last in (span.split("-") for span in ranges)) < 200_000


def test_storage_that_stays_unavailable_or_refuses_raises_a_shard_error(server: Storage) -> None:
    url = url_of("http", server, "0.parquet")
    for status, lasts in ((503, False), (403, True)):
        server.faults["/bucket/train/0.parquet"] = [status] * 10
        with pytest.raises(ShardError, match=str(status)) as caught:
            list(read_shard(url))
        assert caught.value.lasts is lasts
    with pytest.raises(ShardError, match="no such file"):
        list(read_shard(url_of("http", server, "9.parquet")))


def test_images_beside_a_remote_table_are_fetched(server: Storage) -> None:
    server.files["/bucket/train/p/x.parquet"] = content_of(
        {"image": ["a.jpg", "b.jpg"], "caption": ["a dog"] * 2}
    )
    server.files["/bucket/train/p/a.jpg"] = b"image a"
    first, second = read_shard(url_of("http", server, "p/x.parquet"))
    assert first == Sample(0, "00000000", b"image a", ("a dog",))
    assert isinstance(second, Rejected)
    assert "no file 'b.jpg'" in second.reason
