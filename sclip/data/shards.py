"""Read a shard (tar or Parquet file) and yield its samples and rejected samples, in file order.

A shard is a WebDataset tar (from `sclip.prepare.pack`, img2dataset or elsewhere), or a Parquet file with one sample per
row (`sclip.data.parquet`). A defect *in* a shard recurs at every read, so it becomes a `Rejected` item and the stream
continues. A *storage* failure may pass, so the read is retried before it raises `ShardError`.
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


class _Caption(NamedTuple):
    text: str
    cleaned: tuple[str, ...]
    """Kinds of changes that cleaning made."""
    number: int
    """Index among all texts of the caption fields, including blank ones."""
    field: int = 0
    """Index of the caption's field in data.caption_fields."""


class ShardError(Exception):
    """A shard that cannot be reached. The message is one line: the shard, the problem and the remedy."""

    lasts = True
    """Whether another try would fail too, as for a missing file. False if the failure may pass, as for a timeout."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, still encoded, with its captions."""

    index: int
    """Index among the sample groups or rows of its shard, from 0."""
    key: str
    """Key of the tar members; for a Parquet row, its index in eight digits."""
    image: bytes
    captions: tuple[str, ...]
    members: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """Members that were read, by suffix; for a Parquet row, only the image."""
    fields: tuple[int, ...] = field(default=(), compare=False)
    """Index of each caption's field in data.caption_fields."""
    foreign: tuple[Foreign, ...] = ()
    """Texts that the data set supplies with each caption; empty if the config names no field for them."""
    fault: str = ""
    """Why a field in data.foreign_fields is unreadable. Training uses the sample without the field."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sample group or row that cannot be used. An empty key stands for the unreadable rest of a shard."""

    index: int
    key: str
    reason: str


@contextmanager
def shard_errors() -> Iterator[None]:
    """Convert a StorageError in the block into a ShardError."""
    try:
        yield
    except StorageError as error:
        shard_error = ShardError(str(error))
        shard_error.lasts = error.lasts
        raise shard_error from None


def read_shard(
    url: str, data: DataConfig = _DEFAULTS, tally: Tally | None = None
) -> Iterator[Sample | Rejected]:
    """Yield every sample group or row of a shard, in file order, as `Sample` or `Rejected`. Indices count from 0.

    The captions come from all .json fields that `data.caption_field` names; by default, from the field `captions`, else
    `caption`, else the lines of the text member (`data.text_suffixes`). A Parquet file has columns of these names
    instead. Captions are cleaned (`sclip.data.caption_text`). `tally` is cleared, updated while the shard is read, and
    complete at the end. Raises ShardError if the storage fails (after retries), never for the shard's content.
    """
    counted = tally or Tally()
    with shard_errors():
        if is_parquet(url):
            yield from _judged_rows(url, data, counted)
        else:
            yield from resumed(url, lambda stream: _judged(stream, data, counted))


def _judged(stream: ByteStream, data: DataConfig, tally: Tally) -> Iterator[Sample | Rejected]:
    tally.clear()  # after a storage failure, the stream is read again from its start
    seen: dict[str, str] = {}
    index = 0
    for group in groups(stream, data, bodies=True, tally=tally):
        judged = _judge(index, group, data, seen, tally)
        seen.setdefault(group.key, _lacks(judged))
        if not group.cut or isinstance(judged, Sample):
            yield judged
            index += 1
        if group.cut:  # an incomplete last sample belongs to the unreadable rest
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
        captions, count = _field_captions(row.captions, data.caption_fields, row.captions)
    except ValueError as error:
        return Rejected(index, key, str(error))
    if row.fault or not captions:
        return Rejected(index, key, row.fault or f"no caption in {', '.join(row.captions)}")
    return _sample(index, key, row.image, captions, count, {"image": row.image}, row.foreign, {}, data, tally)


def _sample(
    index: int, key: str, image: bytes, captions: Sequence[_Caption], count: int, members: dict[str, bytes],
    record: Mapping[str, Any], unread: Mapping[str, str], data: DataConfig, tally: Tally,
) -> Sample:  # fmt: skip
    """Return a sample with these captions and update the tally. `count` includes blank captions."""
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
    """Return the sample of a group, or why it is rejected. `seen` maps each earlier key to what its group `_lacks`."""
    key = group.key.encode(errors="backslashreplace").decode()
    image = next((group.parts[suffix] for suffix in data.image_suffixes if group.parts.get(suffix)), None)
    if key != group.key:
        return Rejected(index, key, "its name is not UTF-8")
    if ".." in PurePosixPath(group.key).parts:
        return Rejected(index, key, "its name contains ..; pack its files under other names")
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
            reason += f"; it has {_suffixes(group)}; data.text_suffixes names the suffixes that are read"
        return Rejected(index, key, reason)


def _lacks(judged: Sample | Rejected) -> str:
    """Return "without an image" or "without a caption" if a group is rejected for this reason; "" otherwise."""
    reason = judged.reason if isinstance(judged, Rejected) else ""
    starts = {"no image": "without an image", "no caption": "without a caption"}
    return next((lack for start, lack in starts.items() if reason.startswith(start)), "")


def _apart(lacked: str) -> str:
    """Return the error for a repeated key. `lacked` is what the first group with this key lacked; "" for nothing."""
    if not lacked:
        return "its key occurs earlier in the shard; members of a sample must be neighbours"
    remedy = "make the tar with `tar --sort=name -cf`, or sclip pack"
    return f"its key occurs earlier in the shard, {lacked}; members of a sample must be neighbours: {remedy}"


def _without_image(group: Group, data: DataConfig) -> str:
    if empty := [suffix for suffix in data.image_suffixes if suffix in group.parts]:
        return f"no image: .{empty[0]} is empty"
    reason = f"no image: it has {_suffixes(group)}"
    # If many images have one key, or an image and its text share a name with a dot, names are split at the wrong dot.
    if (
        data.key_ends_at == "first_dot"
        and group.unread_images
        and (group.shares_stems or group.repeats_images)
    ):
        samples = f"{group.unread_images} sample{'s' * (group.unread_images > 1)}"
        return f"{reason}; data.key_ends_at=last_dot would make {samples} of it"
    if group.suffixes.keys() - {f".{suffix}" for suffix in group.parts}:
        return f"{reason}; data.image_suffixes names the suffixes that are read"
    return reason


def _suffixes(group: Group) -> str:
    counted = [f"{count} {name}" if count > 1 else name for name, count in group.suffixes.items()]
    return " ".join(counted[:_MOST_SUFFIXES]) + " .." * (len(counted) > _MOST_SUFFIXES)


def _captions(
    group: Group, data: DataConfig, cleaned_counts: Counter[str]
) -> tuple[list[_Caption], int, dict[str, Any]]:
    """Return the captions, their number including blank ones, and the .json. Raises ValueError without a caption."""
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
        captions, count = _field_captions(record, fields, ("captions", "caption"))
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


def _field_captions(
    record: Mapping[str, Any], fields: Sequence[str], usual: Iterable[str]
) -> tuple[list[_Caption], int]:
    """Return the captions of all `fields` (or of one `usual` field), and their number including blank ones."""
    captions: list[_Caption] = []
    count = 0
    for number, name in enumerate(fields or usual):
        texts = _texts(name, record.get(name))
        captions += [text._replace(number=count + text.number, field=number) for text in texts]
        if fields or texts:
            count += len(_listed(record.get(name)))
        if texts and not fields:
            break
    return captions, count


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
    """Return a hint for an error message: the .json fields that hold text, and the config key that selects one."""
    texts = [
        ascii(name[:40])[1:-1] for name, value in record.items() if isinstance(value, str) and value.strip()
    ]
    more = " .." * (len(texts) > _MOST_SUFFIXES)
    hint = f" (its .json has text in {', '.join(texts[:_MOST_SUFFIXES])}{more}; data.caption_field names what to read)"
    return hint if texts else ""


def _texts(name: str, value: Any) -> list[_Caption]:
    """Return the cleaned texts of a caption field (a string, a list of strings or None) that are not blank."""
    values = _listed(value)
    for text in values:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name} holds {type(text).__name__}, not text")
        try:
            size = len((text or "").encode())
        except UnicodeEncodeError as error:  # JSON can encode lone surrogates
            raise ValueError(f"{name} is not UTF-8: {error.reason}") from error
        if size > MAX_CAPTION_BYTES:
            raise ValueError(f"{name} of {size} bytes, more than {MAX_CAPTION_BYTES}")
    clean = [cleaned(text or "") for text in values]
    return [_Caption(text, kinds, number) for number, (text, kinds) in enumerate(clean) if text]
