"""The audit's own count of a tar: tars in, for each how many sample groups it holds and where it breaks out.

Neighbouring members of one key are a group; a key is, as webdataset names it, the folder and the base name up to its
first dot, or up to its last one (`data.key_ends_at`). Only headers count, so that of a local tar nothing else is read.
The trainer's reader is not used: what it leaves out would be left out here too.
"""

from __future__ import annotations

import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import IO, Any

from sclip.storage.retries import StorageError, resumed

__all__ = ["Tar", "count_tars"]

_KEYS = {
    "first_dot": re.compile(r"((?:[^/]*/)*[^./]+)\.[^/]*"),
    "last_dot": re.compile(r"((?:[^/]*/)*[^./][^/]*?)(?:\.(?i:graph\.json\.gz)|\.[^./]*)"),
}
"""Of a member's whole name, which is no hidden file's; annotations have dots in their suffix."""
_META = re.compile(r"__[^/]*__($|/)|__MACOSX/")
_BROKEN = (
    tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, ArithmeticError, LookupError,
)  # fmt: skip
_TAIL_BYTES = 64 * 1024
_SHARDS_A_PROCESS = 8
"""Fewer are counted before another process has started."""


@dataclass(frozen=True, slots=True)
class Tar:
    """What a tar holds."""

    groups: int
    """Sample groups, the one that the tar breaks in among them."""
    broken: bool
    """Its end is missing or unreadable, or something follows it."""


def count_tars(urls: Sequence[str], key_ends_at: str) -> dict[str, Tar]:
    """Return what each tar holds, a path or a URI that fsspec opens.

    Raises StorageError, which names it, for one that cannot be read.
    """
    workers = min(os.cpu_count() or 1, len(urls) // _SHARDS_A_PROCESS)
    count = partial(_tar, key_ends_at)
    if workers < 2:
        return {url: count(url) for url in urls}
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        return dict(zip(urls, pool.map(count, urls, chunksize=4), strict=True))


def _tar(key_ends_at: str, url: str) -> Tar:
    if "://" in url:
        return next(resumed(url, lambda stream: iter((_count(stream, "r|*", key_ends_at),))))
    try:
        with open(url, "rb") as file:
            # Headers are sought only in what certainly is a plain tar; the stream finds out what else it may be.
            plain = file.read(262)[257:] == b"ustar"
            file.seek(0)
            return _count(file, "r:" if plain else "r|*", key_ends_at)
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


def _count(stream: IO[bytes] | Any, mode: Any, key_ends_at: str) -> Tar:
    groups, last = 0, ""
    try:
        with tarfile.open(fileobj=stream, mode=mode, tarinfo=_Member) as tar:
            for key in _keys(tar, _KEYS[key_ends_at]):
                groups += key != last
                last = key
            return Tar(groups, _goes_on(tar, mode))
    except _BROKEN:
        return Tar(groups, True)


def _goes_on(tar: tarfile.TarFile, mode: str) -> bool:
    """Tell whether anything but zeros stands after the end of the archive, which no reader of tars reaches."""
    file: Any = tar.fileobj
    if mode == "r:":  # the others read forward, and stand there
        file.seek(tar.offset)
    return any(any(rest) for rest in iter(lambda: file.read(_TAIL_BYTES), b""))


def _keys(tar: tarfile.TarFile, key: re.Pattern[str]) -> Iterator[str]:
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # it would keep every header
        name = member.name.removeprefix("./")
        if member.isreg() and (found := key.fullmatch(name)) and not _META.match(name):
            yield found[1]
