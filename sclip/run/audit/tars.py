"""Count the samples of each shard for the audit, and find out whether the shard is broken.

A member is a file or a link in a tar. Consecutive members with the same key form a group, which is one sample. As in
webdataset, the key is the member's path up to the first dot of the base name; `data.key_ends_at` may choose the last.
The reader of training is not used, because the audit would then miss whatever that reader misses.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclip.storage.compression import Peeked, Stream, decompressed
from sclip.storage.filesystem import parts
from sclip.storage.retries import StorageError, resumed
from sclip.storage.seekable import SeekableFile

__all__ = ["Tar", "count_tars"]

_KEYS = {
    "first_dot": re.compile(r"((?:[^/]*/)*[^./]+)\.[^/]*"),
    # .graph.json.gz, the suffix of annotations, is one suffix.
    "last_dot": re.compile(r"((?:[^/]*/)*[^./][^/]*?)(?:\.(?i:graph\.json\.gz)|\.[^./]*)"),
}
"""Pattern of a member's whole name, by `data.key_ends_at`. Group 1 is the key. Hidden files do not match."""
_LEADING = re.compile(r"\A(?:\./|/)*")
"""Prefix to ignore: the names `./x` and `/x` mean `x`."""
_META = re.compile(r"__[^/]*__($|/)|__MACOSX/")
_BROKEN = (tarfile.TarError, ValueError, ArithmeticError, LookupError)
_TAIL_BYTES = 64 * 1024
_MOST_ZEROS = tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE
"""Maximum number of zero bytes at the end of a tar: its end marker, and the padding up to a whole record."""
_BATCH_ROWS, _BUFFER_BYTES = 32, 2 * 2**20  # limit the memory for reading a Parquet file
_SHARDS_A_PROCESS = 8
"""Minimum number of shards for each process; fewer are counted in less time than a process needs to start."""


@dataclass(frozen=True, slots=True)
class Tar:
    """Sample count and condition of a shard."""

    groups: int
    """Number of samples, including one in which a tar breaks; for a Parquet file, number of rows."""
    broken: bool
    """Whether the shard breaks before its end, or a tar has data or too many zeros after the end marker."""
    why: str = field(default="", compare=False)


def count_tars(
    urls: Sequence[str], key_ends_at: str, rests: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Tar]:
    """Return the sample count and condition of each shard. Raises StorageError if a shard cannot be opened.

    `rests` has the index of the first unreadable row of each shard that the run reported as broken.
    """
    workers = min(os.cpu_count() or 1, len(urls) // _SHARDS_A_PROCESS)
    count = partial(_shard, key_ends_at, dict(rests))
    if workers < 2:
        return {url: count(url) for url in urls}
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        return dict(zip(urls, pool.map(count, urls, chunksize=4), strict=True))


def _shard(key_ends_at: str, rests: Mapping[str, int], url: str) -> Tar:
    is_parquet = parts(url)[0].lower().endswith(".parquet")
    return _parquet(url, rests.get(url)) if is_parquet else _tar(key_ends_at, url)


def _parquet(url: str, rest: int | None) -> Tar:
    """Count the rows by the footer. In a broken file, count the rows before `rest`, where the run's reader failed."""
    rows = 0
    with closing(SeekableFile(url)) as file:
        try:
            with pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as parquet:
                rows = parquet.metadata.num_rows
                if rest is not None:
                    for _ in parquet.iter_batches(_BATCH_ROWS, use_threads=False):
                        pass
        except (pa.lib.ArrowException, OSError, *_BROKEN) as error:
            if file.failure:
                raise file.failure from None
            return Tar(min(rows, rest or 0), True, (str(error).splitlines() or [type(error).__name__])[0])
    return Tar(rows, False)


def _tar(key_ends_at: str, url: str) -> Tar:
    if "://" in url:
        return next(resumed(url, partial(_forward, key_ends_at)))
    try:
        with open(url, "rb") as file:
            # Only a plain tar is sure to allow seeking from header to header; `_forward` detects compression.
            plain = file.read(262)[257:] == b"ustar"
            file.seek(0)
            return _count(file, "r:", key_ends_at) if plain else next(_forward(key_ends_at, file))
    except OSError as error:
        raise StorageError(f"{url}: cannot be read: {error.strerror or error}") from error


class _Member(tarfile.TarInfo):
    """Tar header. Raises ReadError for a broken or missing header, which tarfile would take for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end-of-archive marker
            raise tarfile.ReadError(str(error)) from error


def _forward(key_ends_at: str, stream: Stream) -> Iterator[Tar]:
    yield _count(decompressed(Peeked(stream)), "r|", key_ends_at)


def _count(stream: Any, mode: Any, key_ends_at: str) -> Tar:
    groups, last = 0, ""
    try:
        # Small blocks: tarfile loses the whole block in which decompression fails.
        with tarfile.open(fileobj=stream, mode=mode, bufsize=tarfile.BLOCKSIZE, tarinfo=_Member) as tar:
            for key in _keys(tar, _KEYS[key_ends_at]):
                groups += key != last
                last = key
            after = _after(tar, mode)
            return Tar(groups, bool(after), after)
    except _BROKEN as error:
        return Tar(groups, True, str(error) or type(error).__name__)


def _after(tar: tarfile.TarFile, mode: str) -> str:
    """Return what is wrong after the tar's end marker; "" means nothing. Readers of tars do not look there."""
    file: Any = tar.fileobj
    zeros = 0
    if mode == "r:":
        file.seek(tar.offset)
    else:  # the stream is already past the first block of the end marker
        zeros = tarfile.BLOCKSIZE
    while rest := file.read(_TAIL_BYTES):
        if rest.strip(b"\0"):
            return "data follows its end-of-archive marker"
        zeros += len(rest)
    return (
        f"{zeros:,} zeros at its end: allocated and filled only in part, or made by tar -b above 20"
        if zeros > _MOST_ZEROS
        else ""
    )


def _keys(tar: tarfile.TarFile, key: re.Pattern[str]) -> Iterator[str]:
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
        name = _LEADING.sub("", member.name.replace("\\", "/"))
        is_member = member.isreg() or member.issym() or member.islnk()
        if is_member and (match := key.fullmatch(name)) and not _META.match(name):
            yield match[1]
