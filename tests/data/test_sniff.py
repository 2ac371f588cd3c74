"""A file that is no tar is recognised by its first bytes. Run start and shard reader report it in the same words."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from sclip.data.patterns import expand
from sclip.data.shards import Rejected, read_shard
from sclip.data.sniff import described, look, unreadable
from sclip.storage.compression import Peeked, decompressed
from support.tars import pair, tar_bytes

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
WHOLE = tar_bytes([member for key in "abcdefgh" for member in pair(key, "a dog " * 300)])


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def table() -> bytes:
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.table({"url": ["a"]}), buffer)
    return buffer.getvalue()


S3_ERROR = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>no</Message></Error>'
)

NO_TARS = [
    (b"/annex/objects/SHA256E-s30--2754b7.tar\n", "a git-annex pointer; git annex get"),
    (b"\n<!DOCTYPE html><title>404 \x1b[31mNot\nFound</title>", "an HTML page '404 "),
    (S3_ERROR, "an XML document 'AccessDenied'"),
    (table(), "a Parquet file"),
    ("404: é\n".encode() * 9, "a text '404: é"),
    (b"MIT License", "a text 'MIT License'; download it again, or name only the tars: *.tar"),
    (b'{"error": "quota"}', "a JSON text"),
    (random.Random(0).randbytes(5_000), "a file of an unknown format"),
]
COMPRESSED = [
    (gzip.compress(b"<html><title>503</title>"), "an HTML page '503'"),
    (zstd(WHOLE)[:20], "a compressed file that is broken at its start"),
    (gzip.compress(gzip.compress(WHOLE)), "a file of an unknown format '1f 8b"),
    (
        bytes.fromhex("28b52ffd00a801000000"),
        "its compression window is too large",
    ),  # as `zstd --long=31` writes it
]


def test_a_file_that_is_no_tar_is_reported_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    for content, words in NO_TARS:
        path.write_bytes(content)
        problem = look(str(path))
        assert problem is not None
        assert words in str(problem)
        assert not {"\n", "\x1b"} & {*str(problem)}
        assert list(read_shard(str(path))) == [Rejected(0, "", str(problem))]
    for content, words in COMPRESSED:
        path.write_bytes(content)
        assert words in str(look(str(path)))
    for content in (WHOLE, gzip.compress(WHOLE), zstd(WHOLE), tar_bytes([]), WHOLE[:512]):
        path.write_bytes(content)
        assert look(str(path)) is None


def test_symlinks_are_shards_and_a_broken_symlink_is_reported(tmp_path: Path) -> None:
    """With `git annex` every file is a symlink. Its target exists only after `git annex get`."""
    (tmp_path / "kept").write_bytes(WHOLE)
    (tmp_path / "0.tar").symlink_to("kept")
    (tmp_path / "1.tar").symlink_to(".git/annex/objects/x/SHA256E-s9")
    (tmp_path / "2.tar").mkdir()
    (tmp_path / "3.tar").symlink_to("2.tar")
    shards = expand([f"{tmp_path}/*.tar"])
    assert [Path(shard).name for shard in shards] == ["0.tar", "1.tar"]
    assert look(shards[0]) is None
    assert str(look(shards[1])) == "not a tar: a symbolic link to a file that is missing; git annex get"


def test_unreadable_shards_are_grouped_by_kind_with_one_path_each(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.tar").write_bytes(POINTER)
    (tmp_path / "9.tar").write_bytes(WHOLE)
    fsspec.filesystem("memory").pipe("/sniff/0.tar", b"<html>")
    problems = unreadable([*expand([f"{tmp_path}/*.tar"]), "memory://sniff/0.tar"])
    secret = {url.replace("//", "//user:secret@"): problem for url, problem in problems.items()}
    assert described(secret) == (
        f"9 x a Git LFS pointer, for example {tmp_path}/0.tar (git lfs pull); 1 x an HTML page, "
        "for example memory://***@sniff/0.tar (download it again)"
    )


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_compressed_shards_are_read_even_in_several_members_and_a_cut_one_is_rejected(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "0.tar"
    for content in (pack(WHOLE), pack(WHOLE[:5_000]) + pack(WHOLE[5_000:])):
        path.write_bytes(content)
        assert [item.key for item in read_shard(str(path))] == list("abcdefgh")
    keys = [f"{number:02d}" for number in range(40)]
    images = {key: random.Random(key).randbytes(30_000) for key in keys}
    noise = tar_bytes([m for key in keys for m in ((f"{key}.jpg", images[key]), (f"{key}.txt", b"a dog"))])
    for cut in (2, 20):
        content = pack(noise)
        path.write_bytes(content[: len(content) - len(content) // cut])
        *samples, last = read_shard(str(path))
        assert isinstance(last, Rejected)
        assert last.key == ""
        assert [item.key for item in samples] == keys[: len(samples)]
        assert cut == 2 or samples


def test_an_error_of_the_storage_is_not_reported_as_a_compression_error() -> None:
    class Failing:
        def __init__(self, content: bytes) -> None:
            self.content = io.BytesIO(content)

        def read(self, size: int) -> bytes:
            if self.content.tell() > 20_000:
                raise KeyError("the storage")
            return self.content.read(size)

    noise = random.Random(0).randbytes(200_000)
    for pack in (gzip.compress, bz2.compress, lzma.compress, zstd):
        stream = decompressed(Peeked(Failing(pack(noise))))
        with pytest.raises(KeyError):
            list(iter(lambda: stream.read(10_240), b""))  # noqa: B023
