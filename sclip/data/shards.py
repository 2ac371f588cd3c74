"""The reading side of a shard: tar file in, samples and rejected samples out, in the order of the tar.

Shards are WebDataset tars at any path or URI (`sclip.storage.filesystem`), from `sclip.prepare.pack`, from
img2dataset or from elsewhere. Two kinds of trouble are kept apart: what is wrong *in* a shard comes again at every
reading, so it becomes a `Rejected` item and the stream goes on; what is wrong with the *storage* may pass, so it is
tried again and then raised as `ShardError`.

Grouping follows webdataset's naming rule, the tar is read by `tarfile` in stream mode. webdataset's own
`tar_file_iterator` and `group_by_keys` do not serve here: they take a tar that is cut at a header for a complete
one, read every member whole whatever its size or kind, and raise at a repeated name. Its import brings torch, which
would cost every reader 2.5 s of a core and 400 MB.
"""

from __future__ import annotations

import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import braceexpand

from sclip.storage.filesystem import parts, sibling
from sclip.storage.globs import matching_files
from sclip.storage.masking import mask
from sclip.storage.retries import ByteStream, StorageError, concurrently, read_bytes, resumed

__all__ = [
    "ANNOTATION_SUFFIX", "IMAGE_SUFFIXES", "MAX_ANNOTATION_BYTES", "MAX_CAPTION_BYTES", "Rejected", "Sample",
    "ShardError", "count_samples", "expand", "read_shard",
]  # fmt: skip

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
"""Member suffixes that are images, the first of them that a sample has is taken."""
ANNOTATION_SUFFIX = "graph.json.gz"
"""Member suffix of a sample's graphs and negatives (`sclip.data.annotation`)."""
MAX_ANNOTATION_BYTES = 4 * 1024 * 1024
MAX_CAPTION_BYTES = 64 * 1024
MAX_IMAGE_BYTES = 128 * 1024 * 1024
MAX_TEXT_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 1024 * 1024
"""Of the long names and attributes before a member, which tarfile reads whole."""

_END_BYTES = 64 * 1024
_TEXT_SUFFIXES = ("json", "txt")
_NAME = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)")
"""Key and suffix: the last part of the path up to its first dot, and what follows."""
_META = re.compile(r"__[^/]*__($|/)")
_BROKEN_COMPRESSION = (zlib.error, lzma.LZMAError, EOFError)
_BROKEN_TAR = (tarfile.TarError, ValueError, ArithmeticError, LookupError, *_BROKEN_COMPRESSION)


class ShardError(Exception):
    """A shard that cannot be reached; one line with the shard, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its captions, still encoded."""

    index: int
    """Place among the sample groups of its shard, from 0."""
    key: str
    image: bytes
    captions: tuple[str, ...]
    members: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """Everything of it that is read, by suffix: images, .json, .txt and the annotation."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sample group that cannot be used, or, with an empty key, the unreadable rest of a shard."""

    index: int
    key: str
    reason: str


def expand(patterns: Sequence[str]) -> list[str]:
    """Return the shards that paths or URIs with `*`, `?`, `[..]` and `{000..012}` name, sorted, each once.

    Local paths come back absolute, URIs with the credentials and the query that the pattern has; their order does not
    depend on those, so that a shard keeps its number where they are changed.

    Raises ShardError naming the pattern that matches nothing or cannot be looked up.
    """
    found: set[str] = set()
    for pattern in patterns:
        try:
            names = list(braceexpand.braceexpand(pattern))
        except ValueError as error:
            raise ShardError(f"{mask(pattern)}: cannot be looked up: {mask(str(error), pattern)}") from None
        with _shard_errors():
            matches = list(concurrently(matching_files, names))
        for name, shards in zip(names, matches, strict=True):
            if not shards:
                of = "" if name == pattern else f" (of {mask(pattern)})"
                raise ShardError(
                    f"{mask(name)}{of}: no such shard; name existing tars, for example DIR/*.tar"
                )
            found.update(shards)
    return sorted(found, key=lambda url: (mask(url), url))


@contextmanager
def _shard_errors() -> Iterator[None]:
    """Raise a StorageError of the block as ShardError."""
    try:
        yield
    except StorageError as error:
        raise ShardError(str(error)) from None


def count_samples(urls: Sequence[str]) -> dict[str, int]:
    """Return the number of samples of each shard, by the cheapest source that has it.

    That is `index.json` beside the shards (`sclip.prepare.pack`), else `SHARD_stats.json` (img2dataset), else
    the headers of the tar itself. Raises ShardError for a shard that cannot be reached.
    """
    indexes = sorted({sibling(url, "index.json") for url in urls})
    indexed = dict(zip(indexes, concurrently(_indexed, indexes), strict=True))
    counts = {url: indexed[sibling(url, "index.json")].get(_name(url)) for url in urls}
    # One source after the other: what stands beside a shard is many small requests, its headers are all of its bytes.
    for count in (_successes, _count):
        left = [url for url in urls if counts[url] is None]
        with _shard_errors():
            counts.update(zip(left, concurrently(count, left), strict=True))
    return {url: count for url, count in counts.items() if count is not None}


def _name(url: str) -> str:
    return parts(url)[0].rpartition("/")[2]


def _indexed(url: str) -> dict[str, int]:
    """Return the samples of the shards in an index; none where it is missing, or another program's."""
    index = _json(url)
    try:
        return {entry["name"]: int(entry["samples"]) for entry in index["shards"]}
    except (LookupError, TypeError, ValueError):
        return {}


def _successes(url: str) -> int | None:
    """Return what img2dataset has counted of a shard; None where it has not."""
    found = _json(sibling(url, f"{_name(url).partition('.')[0]}_stats.json")).get("successes")
    return found if isinstance(found, int) else None


def _count(url: str) -> int:
    return sum(1 for _ in resumed(url, lambda stream: _groups(stream, bodies=False)))


def _json(url: str) -> dict[str, Any]:
    """Return the JSON object at `url`; an empty one where there is none: the shard itself is then counted."""
    try:
        value = json.loads(read_bytes(url))
    except (StorageError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_shard(url: str, caption_field: str = "") -> Iterator[Sample | Rejected]:
    """Yield every sample group of one tar, in its order, as `Sample` or `Rejected`; indices count from 0.

    `caption_field` names the field of the .json that holds the caption or the list of them (several fields:
    separated by commas, all are taken). Empty: `captions`, else `caption`, else the .txt. The tar is
    streamed: one sample is in memory at a time. Raises ShardError when the storage fails (after retries),
    never for what is in the tar.
    """
    fields = tuple(name.strip() for name in caption_field.split(",") if name.strip())
    with _shard_errors():
        yield from resumed(url, lambda stream: _judged(stream, fields))


_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class _Header(tarfile.TarInfo):
    """A tar header; a broken one is an error, where tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _HEADERS and found.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {found.size} bytes, more than {MAX_HEADER_BYTES}")
        return found

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end-of-archive marker
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("the file ends without the end-of-archive marker") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


@dataclass(slots=True)
class _SampleGroup:
    """Neighbouring members of one key."""

    key: str
    parts: dict[str, bytes] = field(default_factory=dict)
    fault: str = ""
    cut: str = ""
    """Why the tar cannot be read after this group; only on the last one."""


def _groups(stream: ByteStream, *, bodies: bool) -> Iterator[_SampleGroup]:
    """Yield the sample groups of a tar; the last one carries `cut` when the tar is broken there."""
    group = _SampleGroup("")
    try:
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # it would keep every header of the shard
                name = member.name.removeprefix("./")
                named = _NAME.fullmatch(name)
                if not member.isreg() or named is None or _META.match(name):
                    continue
                key, suffix = named.groups()
                if key != group.key:
                    if group.key:
                        yield group
                    group = _SampleGroup(key)
                if bodies:
                    _take(group, suffix.lower(), tar, member)
            _check_end(tar)
    except _BROKEN_TAR as error:
        where = f"broken tar, last key {group.key!r}" if group.key else "no tar, or broken at its start"
        group.cut = f"{where}: {error}"
    if group.key or group.cut:
        yield group


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError where more than zeros follow the end of the archive: tars put together with `cat`, or a hole."""
    assert tar.fileobj is not None
    while rest := tar.fileobj.read(_END_BYTES):
        if rest.count(0) < len(rest):
            raise tarfile.ReadError("more follows its end-of-archive marker, as after `cat a.tar b.tar`")


def _take(group: _SampleGroup, suffix: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Read a member into the group. Other suffixes than the known ones, pickles above all, stay unread."""
    if suffix == ANNOTATION_SUFFIX:  # no fault where it cannot be used: the captions are there to be parsed
        usable = member.size <= MAX_ANNOTATION_BYTES and suffix not in group.parts
        body = tar.extractfile(member) if usable else None
        group.parts[suffix] = body.read() if body is not None else b""
        return
    if suffix not in (*IMAGE_SUFFIXES, *_TEXT_SUFFIXES):
        return
    limit = MAX_TEXT_BYTES if suffix in _TEXT_SUFFIXES else MAX_IMAGE_BYTES
    if suffix in group.parts:
        group.fault = f"two members .{suffix}"
    elif member.size > limit:
        group.fault = f".{suffix} of {member.size} bytes, more than {limit}"
    elif (body := tar.extractfile(member)) is not None:
        group.parts[suffix] = body.read()


def _judged(stream: ByteStream, fields: Sequence[str]) -> Iterator[Sample | Rejected]:
    seen: set[str] = set()
    index = 0
    for group in _groups(stream, bodies=True):
        found = _judge(index, group, fields, seen)
        seen.add(group.key)
        if not group.cut or isinstance(found, Sample):
            yield found
            index += 1
        if group.cut:  # an incomplete last sample is part of the unreadable rest
            yield Rejected(index, "", group.cut)


def _judge(index: int, group: _SampleGroup, fields: Sequence[str], seen: set[str]) -> Sample | Rejected:
    key = group.key.encode(errors="backslashreplace").decode()
    path = PurePosixPath(group.key)
    image = next((group.parts[suffix] for suffix in IMAGE_SUFFIXES if group.parts.get(suffix)), None)
    if key != group.key:
        return Rejected(index, key, "its name is not UTF-8")
    if path.is_absolute() or ".." in path.parts or "\\" in key:
        return Rejected(index, key, "its name leads out of the shard")
    if group.key in seen:
        return Rejected(
            index, key, "its key stands earlier in the shard; members of a sample must be neighbours"
        )
    if group.fault:
        return Rejected(index, key, group.fault)
    if image is None:
        return Rejected(index, key, f"no image: none of .{', .'.join(IMAGE_SUFFIXES)}, or an empty one")
    try:
        return Sample(index, key, image, _captions(group.parts, fields), group.parts)
    except ValueError as error:
        return Rejected(index, key, str(error))


def _captions(parts: dict[str, bytes], fields: Sequence[str]) -> tuple[str, ...]:
    """Return the captions that are not blank. Raises ValueError with the reason where none can be had."""
    record: Any = {}
    if "json" in parts:
        try:
            record = json.loads(parts["json"].decode())
        except (ValueError, RecursionError) as error:
            raise ValueError(f".json is not readable: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f".json holds a {type(record).__name__}, not an object")
    if fields:
        found = tuple(text for name in fields for text in _texts(name, record.get(name)))
    else:
        found = _texts("captions", record.get("captions")) or _texts("caption", record.get("caption"))
    if not found and not fields and "txt" in parts:
        try:
            found = _texts(".txt", parts["txt"].decode())
        except UnicodeDecodeError as error:
            raise ValueError(f".txt is not UTF-8: {error.reason} at byte {error.start}") from error
    if not found:
        raise ValueError(f"no caption in {', '.join(fields) or '.json captions, .json caption or .txt'}")
    return found


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """Return the texts of a caption field: a string, a list of strings or nothing."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    for text in values:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name} holds {type(text).__name__}, not text")
        try:
            size = len((text or "").encode())
        except UnicodeEncodeError as error:  # JSON can spell lone surrogates
            raise ValueError(f"{name} is not UTF-8: {error.reason}") from error
        if size > MAX_CAPTION_BYTES:
            raise ValueError(f"{name} of {size} bytes, more than {MAX_CAPTION_BYTES}")
    return tuple(text.strip() for text in values if text and text.strip())
