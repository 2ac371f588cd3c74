"""A path or URI in, a file that is read at any place out, for formats whose index stands at their end.

A request that fails is made again over a new connection; what fails in the end is a `StorageError`, which is kept: a
library that reads the file may put another exception in its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from sclip.storage.filesystem import open_seekable
from sclip.storage.retries import StorageError, retry

_T = TypeVar("_T")


class SeekableFile:
    """A file that is open for reading at any place, with the methods of Python's own."""

    def __init__(self, url: str) -> None:
        """Open a path or URI. Raises StorageError."""
        self.failure: StorageError | None = None
        """Of the storage, once it has failed."""
        self.closed = False  # which pyarrow asks for
        self._url, self._at = url, 0
        self._file: Any = None
        self._size: int = self._asked(lambda file: file.seek(0, 2))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, counted from the start, from where the file is or from its end; return it."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, or all up to the end. Raises StorageError."""
        left = max(0, self._size - self._at)
        wanted = left if size < 0 else min(size, left)

        def ask(file: Any) -> bytes:
            file.seek(self._at)
            block = bytes(file.read(wanted))
            if len(block) < wanted:
                raise EOFError(f"connection ended at byte {self._at + len(block)} of {self._size}")
            return block

        block = self._asked(ask)
        self._at += len(block)
        return block

    def close(self) -> None:
        """Close the file below."""
        self.closed = True
        if self._file is not None:
            self._file.close()
            self._file = None

    def _asked(self, ask: Callable[[Any], _T]) -> _T:
        def attempt() -> _T:
            if self._file is None:
                self._file = open_seekable(self._url)
            try:
                return ask(self._file)
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
