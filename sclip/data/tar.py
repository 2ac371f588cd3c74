"""Read a tar as a stream and yield groups: neighboring members with one key, which make one sample.

Grouping follows webdataset's naming rule. `tarfile` reads the tar, which may be compressed, in stream mode.
webdataset's own iterators do not notice if a tar is cut off at a header, read members of any size and kind, and raise
at a repeated name. They also import torch, which would cost every reader 2.5 s of CPU time and 400 MB.
"""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sclip.config import DataConfig
from sclip.data.names import (
    ANNOTATION_SUFFIX,
    is_image_like,
    is_text_like,
    key_and_suffix,
    name_inside,
    without_numbers,
)
from sclip.data.sniff import MAX_ZEROS, not_a_tar
from sclip.storage.compression import Peeked, Stream, decompressed

MAX_ANNOTATION_BYTES = 4 * 1024 * 1024
MAX_IMAGE_BYTES = 128 * 1024 * 1024
MAX_TEXT_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 1024 * 1024
"""Limit for a member's long names and extended attributes, which tarfile reads whole."""

_END_BYTES = 64 * 1024
_MOST_SUFFIXES = 100
"""Maximum number of suffixes counted separately. Names with dots inside can have a different suffix each."""
_JOINED = "as after `cat a.tar b.tar`: repack them as one tar, or join them with `tar --concatenate`"
_MOST_CHARS = 80
_BROKEN_TAR = (tarfile.TarError, ValueError, ArithmeticError, LookupError)


@dataclass
class Tally:
    """Counters that the reader of one shard updates."""

    unread: Counter[str] = field(default_factory=Counter)
    """Members that look like an image or a text but are not read, by suffix."""
    cleaned: Counter[str] = field(default_factory=Counter)
    """Cleaned captions, by kind of change."""
    foreign: Counter[str] = field(default_factory=Counter)
    """Problems with foreign texts (from the data set), by reason."""

    def clear(self) -> None:
        """Reset all counters."""
        for counts in (self.unread, self.cleaned, self.foreign):
            counts.clear()

    def lines(self) -> list[str]:
        """Return one line for each nonempty counter."""
        lines = []
        if self.unread:
            lines.append(
                f"not read    {self.unread.total():,} images or texts with other suffixes: "
                f"{_counted(self.unread)}; see data.image_suffixes, data.text_suffixes"
            )
        if self.cleaned:
            lines.append(f"cleaned     {self.cleaned.total():,} captions: {_counted(self.cleaned)}")
        if self.foreign:
            lines.append(f"foreign     {_counted(self.foreign)}: there the run uses generated texts, or none")
        return lines


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(8))


_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class _Header(tarfile.TarInfo):
    """A tar header that raises if it is broken. tarfile itself takes a broken header for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _HEADERS and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size} bytes, more than {MAX_HEADER_BYTES}")
        return header

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
class Group:
    """Neighboring members with one key."""

    key: str
    parts: dict[str, bytes] = field(default_factory=dict)
    suffixes: Counter[str] = field(default_factory=Counter)
    """Count of each suffix among the members, read or not, with digits replaced (`without_numbers`)."""
    unread_images: int = 0
    unread_texts: int = 0
    last_unread: tuple[str, bool] = ("", False)
    """Suffix of the last unread image, text or .json, without its end ("b" for "b.jpg"); whether it is an image."""
    shares_stems: bool = False
    """Whether an unread image and text are named like `a.b.jpg` and `a.b.txt`; the key is then probably `a.b`."""
    fault: str = ""
    unread: dict[str, str] = field(default_factory=dict)
    """Why an optional member (.json or one of data.foreign_suffixes) was not read, by suffix."""
    cut: str = ""
    """Why the tar is unreadable after this group. Set on the last group only."""

    @property
    def repeats_images(self) -> bool:
        """Whether several images of the group differ only by a number."""
        return any(count > 1 and is_image_like(suffix) for suffix, count in self.suffixes.items())


def groups(stream: Stream, data: DataConfig, *, bodies: bool, tally: Tally | None = None) -> Iterator[Group]:
    """Yield the sample groups of a tar. The last group has `cut` set if the tar is broken after it.

    Without `bodies`, no member is read, and groups can only be counted. An open file must be an uncompressed tar.
    """
    group = Group("")
    counted = tally or Tally()
    plain: Peeked | None = None
    try:
        file, bytes_read, mode = stream, tarfile.RECORDSIZE, "r:"
        if not isinstance(stream, io.BufferedReader):
            peeked = Peeked(stream)
            file, mode = decompressed(peeked), "r|"
            if file is peeked:
                plain = peeked
            else:  # a break in the compression loses the record being read, so records are short
                bytes_read = tarfile.BLOCKSIZE
        with tarfile.open(fileobj=file, mode=mode, bufsize=bytes_read, tarinfo=_Header) as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # tarfile would keep every header of the shard in memory
                named = key_and_suffix(name_inside(member.name), data)
                if named is None or not (member.isreg() or member.issym() or member.islnk()):
                    continue
                key, suffix = named
                if key != group.key:
                    if group.key:
                        yield group
                    group = Group(key)
                if bodies:
                    _take(group, suffix, tar, member, data, counted)
            _check_end(tar)
    except _BROKEN_TAR as error:
        fault = f"broken tar, last key {group.key!r}" if group.key else "not a tar, or broken at its start"
        not_tar = not_a_tar(plain.head) if plain and not group.key else None
        group.cut = str(not_tar or f"{fault}: {error}")
    if group.key or group.cut:
        yield group


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError if data or too many zeros follow the end marker."""
    file = tar.fileobj
    assert file is not None
    zeros = tarfile.BLOCKSIZE  # the block that tarfile took for the end
    if isinstance(file, io.BufferedReader):
        file.seek(tar.offset + zeros)
    while rest := file.read(_END_BYTES):
        if rest != bytes(len(rest)):
            raise tarfile.ReadError(f"data follows its end-of-archive marker, {_JOINED}")
        zeros += len(rest)
    if zeros > MAX_ZEROS:
        raise tarfile.ReadError(
            f"its last {zeros} bytes are zeros: its writer allocated it and filled only a part, "
            f"or it was made by tar -b above {tarfile.RECORDSIZE // tarfile.BLOCKSIZE}"
        )


def _take(
    group: Group, suffix: str, tar: tarfile.TarFile, member: tarfile.TarInfo, data: DataConfig, tally: Tally
) -> None:
    """Read a member into the group. Members with unknown suffixes, above all pickles, stay unread."""
    if suffix == ANNOTATION_SUFFIX:  # an unusable annotation is no fault, because the captions can be parsed
        usable = member.isreg() and member.size <= MAX_ANNOTATION_BYTES and suffix not in group.parts
        body = tar.extractfile(member) if usable else None
        group.parts[suffix] = body.read() if body is not None else b""
        group.suffixes[f".{suffix}"] += 1
        return
    is_image = suffix in data.image_suffixes
    if not is_image and suffix not in (*data.text_suffixes, *data.foreign_suffixes, "json"):
        _pass_over(group, suffix, tally)
        return
    group.suffixes[f".{suffix}"] += 1
    limit = MAX_IMAGE_BYTES if is_image else MAX_TEXT_BYTES
    fault = ""
    if not member.isreg():
        remedy = "make the tar with tar --dereference --hard-dereference"
        fault = f"is a link to {member.linkname[:_MOST_CHARS]!r}; {remedy}"
    elif member.size > limit:
        fault = f"of {member.size} bytes, more than {limit}"
    if suffix in group.parts:
        group.fault = f"two .{suffix} members"
    elif fault and (suffix == "json" or suffix in data.foreign_suffixes):
        group.unread[suffix] = fault
    elif fault:
        group.fault = f".{suffix} {fault}"
    elif (body := tar.extractfile(member)) is not None:
        group.parts[suffix] = body.read()


def _pass_over(group: Group, suffix: str, tally: Tally) -> None:
    _count(group.suffixes, suffix)
    image, text = is_image_like(suffix), is_text_like(suffix)
    group.unread_images += image
    group.unread_texts += text
    if image or text:
        _count(tally.unread, suffix)
    if image or text or suffix.endswith(".json"):
        stem = suffix.rpartition(".")[0]
        group.shares_stems |= bool(stem) and group.last_unread == (stem, not image)
        group.last_unread = stem, image


def _count(counts: Counter[str], suffix: str) -> None:
    counted = without_numbers(suffix)
    if counted not in counts and len(counts) >= _MOST_SUFFIXES:
        counted = f".*.{suffix.rpartition('.')[2]}"
    counts[counted] += 1
