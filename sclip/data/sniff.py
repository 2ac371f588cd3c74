"""Find out from a file's first bytes why it is not a readable shard, and name the remedy."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import unescape
from pathlib import Path

from sclip.config import DataConfig
from sclip.data.parquet import Columns, ParquetError, is_parquet, opened
from sclip.storage.compression import BrokenCompression, Peeked, decompressed
from sclip.storage.masking import mask
from sclip.storage.retries import concurrently, first_bytes

MAX_ZEROS = 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE
"""Maximum zero bytes at the end of a complete tar: the end-of-archive marker, and padding to a full tar record."""
_MOST_REMOTE = 4096
"""Maximum number of remote shards that are checked, with one request each."""
_AGAIN = "download it again"
_DEFAULTS = DataConfig()


@dataclass(frozen=True)
class NotATar:
    """A file that should be a shard but is something else."""

    kind: str
    """What the file is, without details. Messages count the shards of each kind."""
    remedy: str
    detail: str = ""
    """Detail of this one file, such as the title of an error page."""
    wanted: str = "tar"

    def __str__(self) -> str:
        return f"not a {self.wanted}: {self.kind}{f' {self.detail!r}' if self.detail else ''}; {self.remedy}"


EMPTY_TAR = NotATar("a tar without samples, although samples of it are recorded", _AGAIN)
_PARQUET = NotATar("a Parquet file", "rename it to .parquet if it holds images, or name only the tars")
_TAR = NotATar("a tar", "rename it to .tar")

_MAGIC = (
    (b"version https://git-lfs", NotATar("a Git LFS pointer", "git lfs pull")),
    (b"/annex/objects/", NotATar("a git-annex pointer", "git annex get")),
    (b"PK\x03\x04", NotATar("a zip archive", "unzip it and pack its files as a tar")),
    (b"PK\x05\x06", NotATar("a zip archive", "unzip it and pack its files as a tar")),
    (b"PAR1", _PARQUET),
    (b"7z\xbc\xaf\x27\x1c", NotATar("a 7z archive", "unpack it and pack its files as a tar")),
    (b"Rar!", NotATar("a RAR archive", "unpack it and pack its files as a tar")),
    (b"\x04\x22\x4d\x18", NotATar("a tar in lz4, which sclip does not read", "compress it with zstd or not at all")),
    (b"\xff\xd8\xff", NotATar("a JPEG image", "pack images with sclip pack")),
    (b"\x89PNG", NotATar("a PNG image", "pack images with sclip pack")),
)  # fmt: skip
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>|<Code>(.*?)</Code>|<h1[^>]*>(.*?)</h1>", re.I | re.S)


def not_a_tar(head: bytes) -> NotATar | None:
    """Return what an uncompressed file is, given its first HEAD_BYTES; None if the file starts like a tar."""
    if not head:
        return NotATar("an empty file", _AGAIN)
    if not head.strip(b"\0"):
        is_end = tarfile.BLOCKSIZE <= len(head) <= MAX_ZEROS  # an archive without members
        return None if is_end else NotATar("zeros instead of a tar", f"{_AGAIN}: it was never filled")
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return _other(head)
    return None


def _other(head: bytes) -> NotATar:
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start > len(head) - 4 else ""
    begin = text.lstrip("\ufeff \t\r\n")
    if begin.startswith("<"):
        title = next((part for match in _TITLE.findall(begin) for part in match if part), "")
        is_page = re.match("<!doctype html|<html|<head|<title|<body", begin, re.I)
        page = "an HTML page" if is_page else "an XML document"
        return NotATar(page, _AGAIN, " ".join(unescape(title).split())[:80])
    if begin.startswith(("{", "[")):
        return NotATar("a JSON text", _AGAIN, " ".join(begin.split())[:80])
    first = " ".join(begin[:80].split())
    if first and first.isprintable():
        return NotATar("a text", f"{_AGAIN}, or name only the tars: *.tar", first[:40])
    return NotATar("a file of an unknown format", "make it a plain tar", head[:8].hex(" "))


def look(url: str, data: DataConfig = _DEFAULTS) -> NotATar | None:
    """Return why a shard cannot be read; None if it starts like a tar, compressed or not.

    A shard named .parquet must be a Parquet file with the columns that `data` names. Raises StorageError if the storage
    fails or refuses.
    """
    fault = _look(url)
    if not is_parquet(url):
        return fault
    if fault is _PARQUET:
        try:
            with opened(url) as file:
                Columns.choose(file.schema_arrow, data)
            return None
        except ParquetError as error:
            fault = NotATar(*error.args)
    return replace(fault or _TAR, wanted="Parquet shard")


def _look(url: str) -> NotATar | None:
    if "://" not in url:
        try:
            with open(url, "rb") as file:  # fast: 100,000 shards take seconds
                return _begin(Peeked(file))
        except OSError:
            path = Path(url)
            if path.is_symlink() and not path.exists():
                target = str(path.readlink())
                remedy = "git annex get" if "annex/objects" in target else "copy the file that it points to"
                return NotATar("a symbolic link to a file that is missing", remedy)
    return first_bytes(url, _begin)


def _begin(stream: Peeked) -> NotATar | None:
    content = decompressed(stream)
    if content is stream:
        return not_a_tar(stream.head)
    try:
        return not_a_tar(Peeked(content).head)
    except BrokenCompression as error:
        window = "its compression window is too large: compress it without --long"
        remedy = window if "too much memory" in str(error) else _AGAIN
        return NotATar("a compressed file that is broken at its start", remedy, str(error))


def unreadable(urls: Sequence[str], data: DataConfig = _DEFAULTS) -> dict[str, NotATar]:
    """Check all local and up to 4,096 remote shards. Return the unreadable ones and why. Raises StorageError."""
    remote = [url for url in urls if "://" in url]
    step = max(1.0, len(remote) / _MOST_REMOTE)
    chosen = {remote[int(index * step)] for index in range(min(len(remote), _MOST_REMOTE))}
    chosen_urls = [url for url in urls if "://" not in url or url in chosen]
    results = zip(chosen_urls, concurrently(partial(look, data=data), chosen_urls), strict=True)
    return {url: fault for url, fault in results if fault is not None}


def described(faults: dict[str, NotATar]) -> str:
    """Return a message: for each kind, the number of shards, one example path and the remedy."""
    kinds: dict[str, list[str]] = {}
    for url, fault in faults.items():
        kinds.setdefault(fault.kind, []).append(url)
    parts = []
    for kind, urls in sorted(kinds.items(), key=lambda kind_urls: -len(kind_urls[1])):
        fault = faults[urls[0]]
        detail = f" {fault.detail!r}" if fault.detail else ""
        parts.append(f"{len(urls):,} x {kind}, for example {mask(urls[0])}{detail} ({fault.remedy})")
    return "; ".join(parts)
