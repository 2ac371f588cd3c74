"""The reading side of a shard: tar file in, samples and rejected samples out, in the order of the tar.

Shards are WebDataset tars at any path or URI (`sclip.storage.filesystem`), from `sclip.prepare.pack`, from
img2dataset or from elsewhere. Two kinds of trouble are kept apart: what is wrong *in* a shard comes again at every
reading, so it becomes a `Rejected` item and the stream goes on; what is wrong with the *storage* may pass, so it is
tried again and then raised as `ShardError`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from sclip.config import DataConfig
from sclip.data.caption_text import caption_lines, cleaned
from sclip.data.tar import IMAGE_SUFFIXES, Group, Tally, groups
from sclip.storage.retries import ByteStream, StorageError, resumed

__all__ = ["MAX_CAPTION_BYTES", "Rejected", "Sample", "ShardError", "read_shard", "shard_errors"]

MAX_CAPTION_BYTES = 64 * 1024
_DEFAULTS = DataConfig()


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


@contextmanager
def shard_errors() -> Iterator[None]:
    """Raise a StorageError of the block as ShardError."""
    try:
        yield
    except StorageError as error:
        raise ShardError(str(error)) from None


def read_shard(
    url: str, data: DataConfig = _DEFAULTS, tally: Tally | None = None
) -> Iterator[Sample | Rejected]:
    """Yield every sample group of one tar, in its order, as `Sample` or `Rejected`; indices count from 0.

    `data.caption_field` names the field of the .json that holds the caption or the list of them (several fields:
    separated by commas, all are taken). Empty: `captions`, else `caption`, else the lines of the .txt. Captions are
    cleaned (`sclip.data.caption_text`). The tar is streamed: one sample is in memory at a time. `tally` is counted up
    as the samples come, and whole at the end.
    Raises ShardError when the storage fails (after retries), never for what is in the tar.
    """
    counted = tally or Tally()
    with shard_errors():
        yield from resumed(url, lambda stream: _judged(stream, data, counted))


def _judged(stream: ByteStream, data: DataConfig, tally: Tally) -> Iterator[Sample | Rejected]:
    tally.clear()  # a stream that failed is read again from its start
    seen: set[str] = set()
    index = 0
    for group in groups(stream, bodies=True, tally=tally):
        judged = _judge(index, group, data, seen, tally.cleaned)
        seen.add(group.key)
        if not group.cut or isinstance(judged, Sample):
            yield judged
            index += 1
        if group.cut:  # an incomplete last sample is part of the unreadable rest
            yield Rejected(index, "", group.cut)


def _judge(
    index: int, group: Group, data: DataConfig, seen: set[str], tally: Counter[str]
) -> Sample | Rejected:
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
        return Sample(index, key, image, _captions(group.parts, data.caption_fields, tally), group.parts)
    except ValueError as error:
        return Rejected(index, key, str(error))


def _captions(parts: dict[str, bytes], fields: Sequence[str], tally: Counter[str]) -> tuple[str, ...]:
    """Return the captions, cleaned, that are not blank; count into `tally` what was cleaned out of them.

    Raises ValueError with the reason where none can be had.
    """
    record: Any = {}
    if "json" in parts:
        try:
            record = json.loads(parts["json"])
        except (ValueError, RecursionError) as error:
            raise ValueError(f".json is not readable: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f".json holds a {type(record).__name__}, not an object")
    if fields:
        found = [text for name in fields for text in _texts(name, record.get(name))]
    else:
        found = _texts("captions", record.get("captions")) or _texts("caption", record.get("caption"))
    if not found and not fields and "txt" in parts:
        try:
            lines = caption_lines(parts["txt"])
        except ValueError as error:
            raise ValueError(f".txt is {error}") from error
        found = _texts(".txt", lines)
    if not found:
        raise ValueError(f"no caption in {', '.join(fields) or '.json captions, .json caption or .txt'}")
    tally.update(kind for _, kinds in found for kind in kinds)
    return tuple(text for text, _ in found)


def _texts(name: str, value: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Return the texts of a caption field (a string, a list of strings or nothing), cleaned, and what was cleaned."""
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
    return [found for text in values if text and (found := cleaned(text))[0]]
