"""The audit's own count of a shard: shards in, for each how many samples it holds and where it breaks out.

Neighbouring members of one key are a group; a key is, as webdataset names it, the folder and the base name up to its
first dot, or up to its last one (`data.key_ends_at`); a link is a member too. Only headers count, so that of a local
tar nothing else is read. A Parquet file has the rows that its footer says; one that the run calls broken is read whole.
The trainer's reader is not used: what it leaves out would be left out here too.
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
    "last_dot": re.compile(r"((?:[^/]*/)*[^./][^/]*?)(?:\.(?i:graph\.json\.gz)|\.[^./]*)"),
}
"""Of a member's whole name, which is no hidden file's; annotations have dots in their suffix."""
_LEADING = re.compile(r"\A(?:\./|/)*")
"""Of `./x` and an absolute name, which stand in the tar's own folder."""
_META = re.compile(r"__[^/]*__($|/)|__MACOSX/")
_BROKEN = (tarfile.TarError, ValueError, ArithmeticError, LookupError)
_TAIL_BYTES = 64 * 1024
_MOST_ZEROS = tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE
"""From the end of the archive on: its marker, and what fills up a record."""
_BATCH_ROWS, _BUFFER_BYTES = 32, 2 * 2**20
"""Of Parquet, in memory at once."""
_SHARDS_A_PROCESS = 8
"""Fewer are counted before another process has started."""


@dataclass(frozen=True, slots=True)
class Tar:
    """What a shard holds."""

    groups: int
    """Sample groups, the one that the tar breaks in among them; rows of a Parquet file."""
    broken: bool
    """Its end is missing or unreadable, or something follows it, or more zeros than fill up a record."""
    why: str = field(default="", compare=False)
    """Why it is broken."""


def count_tars(
    urls: Sequence[str], key_ends_at: str, rests: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Tar]:
    """Return what each shard holds, a path or a URI that fsspec opens.

    `rests` has the row from which on the run could not read a shard. Raises StorageError, which names it, for one that
    cannot be read.
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
    """Return the rows of a file; where it is broken indeed, those before the row that the run calls its rest."""
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
            # Headers are sought only in what certainly is a plain tar; the stream finds out what else it may be.
            plain = file.read(262)[257:] == b"ustar"
            file.seek(0)
            return _count(file, "r:", key_ends_at) if plain else next(_forward(key_ends_at, file))
    except OSError as error:
        raise StorageError(f"{url}: cannot be read: {error.strerror or error}") from error


class _Member(tarfile.TarInfo):
    """A header; tarfile would take a broken one, or none, for the end of the archive."""

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
        # In small pieces: of one that a broken compression cuts, tarfile gives nothing.
        with tarfile.open(fileobj=stream, mode=mode, bufsize=tarfile.BLOCKSIZE, tarinfo=_Member) as tar:
            for key in _keys(tar, _KEYS[key_ends_at]):
                groups += key != last
                last = key
            after = _after(tar, mode)
            return Tar(groups, bool(after), after)
    except _BROKEN as error:
        return Tar(groups, True, str(error) or type(error).__name__)


def _after(tar: tarfile.TarFile, mode: str) -> str:
    """Return what stands after the end of the archive, which no reader of tars reaches; empty where nothing does."""
    file: Any = tar.fileobj
    zeros = 0
    if mode == "r:":
        file.seek(tar.offset)
    else:  # read forward, to behind the first block of the marker
        zeros = tarfile.BLOCKSIZE
    while rest := file.read(_TAIL_BYTES):
        if rest.strip(b"\0"):
            return "something follows the end of its archive"
        zeros += len(rest)
    return (
        f"{zeros:,} zeros end it: made long and filled in part, or tar -b above 20"
        if zeros > _MOST_ZEROS
        else ""
    )


def _keys(tar: tarfile.TarFile, key: re.Pattern[str]) -> Iterator[str]:
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # it would keep every header
        name = _LEADING.sub("", member.name.replace("\\", "/"))
        is_member = member.isreg() or member.issym() or member.islnk()
        if is_member and (found := key.fullmatch(name)) and not _META.match(name):
            yield found[1]
