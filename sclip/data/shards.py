"""The reading side of a shard: tar or Parquet file in, samples and rejected samples out, in the order of the file.

Shards are WebDataset tars at any path or URI (`sclip.storage.filesystem`), from `sclip.prepare.pack`, from
img2dataset or from elsewhere, or Parquet files (`sclip.data.parquet`), whose rows are the samples. Two kinds of trouble
are kept apart: what is wrong *in* a shard comes again at every reading, so it becomes a `Rejected` item and the stream
goes on; what is wrong with the *storage* may pass, so it is tried again and then raised as `ShardError`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from sclip.config import DataConfig
from sclip.data.caption_text import MAX_CAPTION_BYTES, caption_lines, cleaned
from sclip.data.foreign import Foreign, Place, read_foreign
from sclip.data.parquet import ParquetError, Row, is_parquet, rows
from sclip.data.sniff import look
from sclip.data.tar import Group, Tally, groups
from sclip.storage.retries import ByteStream, StorageError, resumed

_DEFAULTS = DataConfig()
_MOST_SUFFIXES = 8
"""Different suffixes that a reason names."""


class _Caption(NamedTuple):
    """A clean caption."""

    text: str
    cleaned: tuple[str, ...]
    """Kinds of what was cleaned out of it."""
    number: int
    """Place among the texts of its fields, blank ones included."""
    field: int = 0
    """Place of its field among data.caption_fields."""


class ShardError(Exception):
    """A shard that cannot be reached; one line with the shard, what was found and what to do."""

    lasts = True
    """Whether asking again does not help."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its captions, still encoded."""

    index: int
    """Place among the sample groups or rows of its shard, from 0."""
    key: str
    """Of a tar's members; of a row its index, in eight digits."""
    image: bytes
    captions: tuple[str, ...]
    members: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """Everything of it that is read, by suffix: images, .json, texts and the annotation; of a row the image."""
    fields: tuple[int, ...] = field(default=(), compare=False)
    """Place of each caption's field among data.caption_fields."""
    foreign: tuple[Foreign, ...] = ()
    """What came with each caption; nothing where no field is named for it."""
    fault: str = ""
    """Why a field of what came with the captions cannot be read; the sample is trained on without it."""


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
        refusal = ShardError(str(error))
        refusal.lasts = error.lasts
        raise refusal from None


def read_shard(
    url: str, data: DataConfig = _DEFAULTS, tally: Tally | None = None
) -> Iterator[Sample | Rejected]:
    """Yield every sample group or row of a shard, in its order, as `Sample` or `Rejected`; indices count from 0.

    `data.caption_field` names the field of the .json that holds the caption or the list of them (several fields:
    separated by commas, all are taken). Empty: `captions`, else `caption`, else the lines of the text
    (`data.text_suffixes`). A Parquet file has columns of these names. Captions are cleaned (`sclip.data.caption_text`).
    The shard is streamed: few samples are in memory at a time. `tally` is counted up as the samples come, and whole at
    the end.
    Raises ShardError when the storage fails (after retries), never for what is in the shard.
    """
    counted = tally or Tally()
    with shard_errors():
        if is_parquet(url):
            yield from _judged_rows(url, data, counted)
        else:
            yield from resumed(url, lambda stream: _judged(stream, data, counted))


def _judged(stream: ByteStream, data: DataConfig, tally: Tally) -> Iterator[Sample | Rejected]:
    tally.clear()  # a stream that failed is read again from its start
    seen: dict[str, str] = {}
    index = 0
    for group in groups(stream, data, bodies=True, tally=tally):
        judged = _judge(index, group, data, seen, tally)
        seen.setdefault(group.key, _lacks(judged))
        if not group.cut or isinstance(judged, Sample):
            yield judged
            index += 1
        if group.cut:  # an incomplete last sample is part of the unreadable rest
            yield Rejected(index, "", group.cut)


def _judged_rows(url: str, data: DataConfig, tally: Tally) -> Iterator[Sample | Rejected]:
    tally.clear()
    index = 0
    try:
        for row in rows(url, data):
            yield _judge_row(index, row, data, tally)
            index += 1
    except ParquetError as error:
        yield Rejected(index, "", str((not index and look(url, data)) or error))


def _judge_row(index: int, row: Row, data: DataConfig, tally: Tally) -> Sample | Rejected:
    key = f"{index:08d}"
    try:
        captions, count = _of_fields(row.captions, data.caption_fields, row.captions)
    except ValueError as error:
        return Rejected(index, key, str(error))
    if row.fault or not captions:
        return Rejected(index, key, row.fault or f"no caption in {', '.join(row.captions)}")
    return _sample(index, key, row.image, captions, count, {"image": row.image}, row.foreign, {}, data, tally)


def _sample(
    index: int, key: str, image: bytes, captions: Sequence[_Caption], count: int, members: dict[str, bytes],
    record: Mapping[str, Any], unread: Mapping[str, str], data: DataConfig, tally: Tally,
) -> Sample:  # fmt: skip
    """Return a sample of these captions, of which its fields hold `count` with the blank ones; count into the tally."""
    tally.cleaned.update(kind for caption in captions for kind in caption.cleaned)
    foreign: tuple[Foreign, ...] = ()
    fault = ""
    if data.foreign_fields:
        places = [Place(caption.text, caption.number) for caption in captions]
        fields = {**record, **{f".{name}": members.get(name) for name in data.foreign_suffixes}}
        faults = {f".{name}": reason for name, reason in unread.items()}
        foreign, fault = read_foreign(fields, faults, places, count, data, tally.foreign)
    texts, numbers = tuple(c.text for c in captions), tuple(c.field for c in captions)
    return Sample(index, key, image, texts, members, numbers, foreign, fault)


def _judge(
    index: int, group: Group, data: DataConfig, seen: Mapping[str, str], tally: Tally
) -> Sample | Rejected:
    """Return the sample of a group, or why it is none; `seen` has what the groups before it lacked, by key."""
    key = group.key.encode(errors="backslashreplace").decode()
    image = next((group.parts[suffix] for suffix in data.image_suffixes if group.parts.get(suffix)), None)
    if key != group.key:
        return Rejected(index, key, "its name is not UTF-8")
    if ".." in PurePosixPath(group.key).parts:
        return Rejected(index, key, "its name leads out of the shard by ..; pack its files under other names")
    if group.key in seen:
        return Rejected(index, key, _apart(seen[group.key]))
    if group.fault:
        return Rejected(index, key, group.fault)
    if image is None:
        return Rejected(index, key, _without_image(group, data))
    try:
        captions, count, record = _captions(group, data, tally.cleaned)
        return _sample(index, key, image, captions, count, group.parts, record, group.unread, data, tally)
    except ValueError as error:
        reason = str(error)
        if group.unread_texts and not data.caption_fields and _lacks(Rejected(index, key, reason)):
            reason += f"; it has {_suffixes(group)}: data.text_suffixes names the texts that are read"
        return Rejected(index, key, reason)


def _lacks(judged: Sample | Rejected) -> str:
    """Return "without an image" or "without a caption" of a group that is no sample for that; else nothing."""
    reason = judged.reason if isinstance(judged, Rejected) else ""
    starts = {"no image": "without an image", "no caption": "without a caption"}
    return next((lack for start, lack in starts.items() if reason.startswith(start)), "")


def _apart(lacked: str) -> str:
    """Return why a group is none whose key came before, there `lacked` an image or a caption."""
    if not lacked:
        return "its key stands earlier in the shard; members of a sample must be neighbours"
    remedy = "make the tar with `tar --sort=name -cf`, or sclip pack"
    return f"its key stands earlier in the shard, {lacked}; members of a sample must be neighbours: {remedy}"


def _without_image(group: Group, data: DataConfig) -> str:
    if empty := [suffix for suffix in data.image_suffixes if suffix in group.parts]:
        return f"no image: .{empty[0]} is empty"
    has = f"no image: it has {_suffixes(group)}"
    # Many images of one key, or an image and a text of one name that has a dot: the name is not cut where it should be.
    if (
        data.key_ends_at == "first_dot"
        and group.unread_images
        and (group.shares_stems or group.repeats_images)
    ):
        samples = f"{group.unread_images} sample{'s' * (group.unread_images > 1)}"
        return f"{has}; data.key_ends_at=last_dot would make {samples} of it"
    if group.suffixes.keys() - {f".{suffix}" for suffix in group.parts}:
        return f"{has}; data.image_suffixes names those that are read"
    return has


def _suffixes(group: Group) -> str:
    """Return the suffixes of a group, with how often each came, where it is more than once."""
    counted = [f"{count} {name}" if count > 1 else name for name, count in group.suffixes.items()]
    return " ".join(counted[:_MOST_SUFFIXES]) + " .." * (len(counted) > _MOST_SUFFIXES)


def _captions(
    group: Group, data: DataConfig, cleaned_counts: Counter[str]
) -> tuple[list[_Caption], int, dict[str, Any]]:
    """Return the captions, cleaned, that are not blank; how many there are with the blank ones; and the .json.

    Raises ValueError with the reason where none can be had.
    """
    parts, fields = group.parts, data.caption_fields
    text = next((suffix for suffix in data.text_suffixes if suffix in parts), None)
    record: dict[str, Any] = {}
    captions: list[_Caption] = []
    count = 0
    fault: ValueError | None = None
    try:
        if "json" in group.unread:
            raise ValueError(f".json {group.unread['json']}")
        record = _record(parts.get("json", b"{}"))
        captions, count = _of_fields(record, fields, ("captions", "caption"))
    except ValueError as error:
        if fields or not text:
            raise
        fault = error
    if not captions and not fields and text:
        try:
            lines = caption_lines(parts[text])
        except ValueError as error:
            raise ValueError(f".{text} is {error}") from error
        captions, count = _texts(f".{text}", lines), len(lines)
    if fault:
        if not captions:
            raise fault
        cleaned_counts["taken from the text beside an unusable .json"] += 1
    if not captions:
        texts = f".json captions, .json caption or .{', .'.join(data.text_suffixes)}"
        raise ValueError(f"no caption in {', '.join(fields) or texts + _other_fields(record)}")
    return captions, count, record


def _of_fields(
    record: Mapping[str, Any], fields: Sequence[str], usual: Iterable[str]
) -> tuple[list[_Caption], int]:
    """Return the captions of all fields that are named, or else of the first usual one that has any; their count.

    The count is of all texts, blank ones among them.
    """
    found: list[_Caption] = []
    count = 0
    for number, name in enumerate(fields or usual):
        texts = _texts(name, record.get(name))
        found += [text._replace(number=count + text.number, field=number) for text in texts]
        if fields or texts:
            count += len(_listed(record.get(name)))
        if texts and not fields:
            break
    return found, count


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _record(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f".json is not readable: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f".json holds a {type(record).__name__}, not an object")
    return record


def _other_fields(record: Mapping[str, Any]) -> str:
    """Return the fields of a .json without captions that hold a text, and the key that names one."""
    texts = [
        ascii(name[:40])[1:-1] for name, value in record.items() if isinstance(value, str) and value.strip()
    ]
    more = " .." * (len(texts) > _MOST_SUFFIXES)
    named = f" (its .json has text in {', '.join(texts[:_MOST_SUFFIXES])}{more}; data.caption_field names what is read)"
    return named if texts else ""


def _texts(name: str, value: Any) -> list[_Caption]:
    """Return the texts of a caption field (a string, a list of strings or nothing) that are not blank."""
    values = _listed(value)
    for text in values:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name} holds {type(text).__name__}, not text")
        try:
            size = len((text or "").encode())
        except UnicodeEncodeError as error:  # JSON can spell lone surrogates
            raise ValueError(f"{name} is not UTF-8: {error.reason}") from error
        if size > MAX_CAPTION_BYTES:
            raise ValueError(f"{name} of {size} bytes, more than {MAX_CAPTION_BYTES}")
    clean = [cleaned(text or "") for text in values]
    return [_Caption(text, kinds, number) for number, (text, kinds) in enumerate(clean) if text]
