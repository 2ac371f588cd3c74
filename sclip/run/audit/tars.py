"""The audit's own count of a tar: tars in, for each how many sample groups it holds and where it breaks out.

Neighbouring members of one key are a group; a key is, as webdataset names it, the folder and the base name up to its
first dot, or up to its last one (`data.key_ends_at`); a link is a member too. Only headers count, so that of a local
tar nothing else is read.
The trainer's reader is not used: what it leaves out would be left out here too.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any

from sclip.storage.compression import Peeked, Stream, decompressed
from sclip.storage.retries import StorageError, resumed

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
_SHARDS_A_PROCESS = 8
"""Fewer are counted before another process has started."""


@dataclass(frozen=True, slots=True)
class Tar:
    """What a tar holds."""

    groups: int
    """Sample groups, the one that the tar breaks in among them."""
    broken: bool
    """Its end is missing or unreadable, or something follows it, or more zeros than fill up a record."""
    why: str = field(default="", compare=False)
    """Why it is broken."""


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
