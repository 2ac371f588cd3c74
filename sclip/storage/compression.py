"""Decompress a forward byte stream. The stream's first bytes show its format: gzip, bzip2, xz, zstd or uncompressed.

pigz, pbzip2 and `zstd -T0` write several members or frames, which are read here as one stream. `tarfile`'s own
decompression reads only the first member, and does not notice a truncated gzip stream.
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

HEAD_BYTES = 16 * 1024
"""Bytes that `Peeked` reads in advance, enough for a tar's first header or all zeros of an empty tar."""
_READ_BYTES = 8 * 1024


class Stream(Protocol):
    """A byte stream that can only be read forward."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty bytes at the end."""


class BrokenCompression(ValueError):
    """A compressed stream that is truncated or damaged."""


class Peeked:
    """A stream whose first HEAD_BYTES bytes are in `head`; `read` returns them too."""

    def __init__(self, stream: Stream) -> None:
        self.head = b""
        while len(self.head) < HEAD_BYTES and (
            more := stream.read(min(HEAD_BYTES - len(self.head), _READ_BYTES))
        ):
            self.head += more
        self._left, self._stream = self.head, stream
        self.closed = False  # pyarrow checks this attribute

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty bytes at the end."""
        if not self._left:
            return self._stream.read(size)
        part, self._left = self._left[:size], self._left[size:]
        return part

    def close(self) -> None:
        """Do nothing, because the code that opened the stream closes it."""


_FORMATS: tuple[tuple[str, re.Pattern[bytes], Callable[[Any], Any]], ...] = (
    ("gzip", re.compile(rb"\x1f\x8b\x08"), lambda stream: gzip.GzipFile(fileobj=stream, mode="rb")),
    ("bzip2", re.compile(rb"BZh[1-9]1AY&SY"), bz2.BZ2File),
    ("xz", re.compile(rb"\xfd7zXZ\x00|\x5d\x00\x00\x80"), lzma.LZMAFile),
    ("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
     lambda stream: pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")),
)  # fmt: skip


def decompressed(stream: Peeked) -> Stream:
    """Return the stream decompressed, or unchanged if it is not compressed. Its `read` may raise BrokenCompression."""
    for name, magic, opened in _FORMATS:
        if magic.match(stream.head):
            return io.BufferedReader(_Decompressed(opened(stream), name), _READ_BYTES)
    return stream


class _Decompressed(io.RawIOBase):
    def __init__(self, file: Any, name: str) -> None:
        # read1, if the library has this method, also returns the bytes just before a truncation.
        self._read, self._name = getattr(file, "read1", file.read), name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            block = self._read(min(len(buffer), _READ_BYTES))
        except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
            raise BrokenCompression(f"{self._name}: {error}") from error
        buffer[: len(block)] = block
        return len(block)
