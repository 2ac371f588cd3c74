"""A stream of bytes in, the bytes that it stands for out: gzip, bzip2, xz and zstd, told by their first bytes.

Several members or frames that follow each other are one stream, as pigz, pbzip2 and `zstd -T0` write them. `tarfile`
reads the first member alone, and does not see where a gzip stream was cut.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

__all__ = ["BrokenCompression", "Peeked", "Stream", "decompressed"]

HEAD_BYTES = 16 * 1024
"""Enough for the first header of a tar and to see whether more zeros follow than a tar ends with."""
_READ_BYTES = 8 * 1024


class Stream(Protocol):
    """Bytes that are read forward."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class BrokenCompression(ValueError):
    """A compressed stream that is cut or damaged."""


class Peeked:
    """A stream whose first bytes are known, and are read all the same."""

    def __init__(self, stream: Stream, size: int = HEAD_BYTES) -> None:
        """Read the first `size` bytes of the stream."""
        self.head = b""
        while len(self.head) < size and (more := stream.read(min(size - len(self.head), _READ_BYTES))):
            self.head += more
        self._left, self._stream = self.head, stream
        self.closed = False  # which pyarrow asks for

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        if not self._left:
            return self._stream.read(size)
        part, self._left = self._left[:size], self._left[size:]
        return part

    def close(self) -> None:
        """Leave the stream to whoever opened it."""


def _zstd(stream: Peeked) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")


_FORMATS: tuple[tuple[str, re.Pattern[bytes], Callable[[Any], Any]], ...] = (
    ("gzip", re.compile(rb"\x1f\x8b\x08"), lambda stream: gzip.GzipFile(fileobj=stream, mode="rb")),
    ("bzip2", re.compile(rb"BZh[1-9]1AY&SY"), bz2.BZ2File),
    ("xz", re.compile(rb"\xfd7zXZ\x00|\x5d\x00\x00\x80"), lzma.LZMAFile),
    ("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _zstd),
)


def decompressed(stream: Peeked) -> Stream:
    """Return what a compressed stream stands for, or the stream itself; reading it may raise BrokenCompression."""
    for name, magic, opened in _FORMATS:
        if magic.match(stream.head):
            return io.BufferedReader(_Decompressed(opened(stream), name), _READ_BYTES)
    return stream


class _Decompressed(io.RawIOBase):
    """Decompressed bytes; every failure of the decompression is a BrokenCompression."""

    def __init__(self, file: Any, name: str) -> None:
        # read1 where there is one: it returns what stands before the place where the stream is cut.
        self._read, self._name = getattr(file, "read1", file.read), name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            some = self._read(min(len(buffer), _READ_BYTES))
        except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
            raise BrokenCompression(f"{self._name}: {error}") from error
        buffer[: len(some)] = some
        return len(some)
