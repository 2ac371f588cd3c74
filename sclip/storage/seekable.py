"""Open a path or URI as a seekable file, for formats with their index at the end (Parquet).

A failed request is retried over a new connection. `failure` keeps the final `StorageError`, because a library that
reads the file may raise another exception in its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from sclip.storage.filesystem import open_seekable
from sclip.storage.retries import StorageError, retry

_T = TypeVar("_T")


class SeekableFile:
    """A seekable file that is open for reading. Opening and reading raise StorageError as `retry` does."""

    def __init__(self, url: str) -> None:
        self.failure: StorageError | None = None
        self.closed = False  # pyarrow checks this attribute
        self._url, self._at = url, 0
        self._file: Any = None
        self._size: int = self._do(lambda file: file.seek(0, 2))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset from the start, the current position or the end. Return the new position."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Return the current position in bytes."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; a negative size means all bytes that are left. Raises StorageError."""
        remaining = max(0, self._size - self._at)
        size = remaining if size < 0 else min(size, remaining)

        def read(file: Any) -> bytes:
            file.seek(self._at)
            block = bytes(file.read(size))
            if len(block) < size:
                raise EOFError(f"connection ended at byte {self._at + len(block)} of {self._size}")
            return block

        block = self._do(read)
        self._at += len(block)
        return block

    def close(self) -> None:
        """Close the underlying file."""
        self.closed = True
        if self._file is not None:
            self._file.close()
            self._file = None

    def _do(self, action: Callable[[Any], _T]) -> _T:
        def attempt() -> _T:
            if self._file is None:
                self._file = open_seekable(self._url)
            try:
                return action(self._file)
            except Exception:
                broken, self._file = self._file, None
                with contextlib.suppress(Exception):
                    broken.close()
                raise

        try:
            return retry(self._url, attempt)
        except StorageError as error:
            self.failure = error
            raise
