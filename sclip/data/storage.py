"""Where shards lie: names with globs and braces to shards, and a shard's bytes over a storage that may fail.

A failure of the storage may pass, so it is tried again and only then raised as `ShardError`. It is told from
a fault in the tar by where it happens, whatever exception the fsspec backend has for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import braceexpand
import fsspec

__all__ = ["ShardError", "Storage", "expand", "resumed"]

RETRY_DELAYS_S: tuple[float, ...] = (0.5, 2.0, 8.0)
"""Waits before a shard is opened again after a storage error; then it is given up."""

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_T = TypeVar("_T")


class ShardError(Exception):
    """A shard that cannot be reached; one line with the shard, what was found and what to do."""


def expand(patterns: Sequence[str]) -> list[str]:
    """Return the shards that paths or URIs with `*`, `?`, `[..]` and `{000..012}` name, sorted, each once.

    Local paths come back absolute. Raises ShardError naming the pattern that matches nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        try:
            names = list(braceexpand.braceexpand(pattern))
            with ThreadPoolExecutor(16) as pool:  # one request a name where the storage is remote
                matches = list(pool.map(_matches, names))
        except (OSError, ValueError, ImportError) as error:
            raise ShardError(f"{pattern}: cannot be looked up: {error}") from error
        for name, shards in zip(names, matches, strict=True):
            if not shards:
                of = "" if name == pattern else f" (of {pattern})"
                raise ShardError(f"{name}{of}: no such shard; name existing tars, for example DIR/*.tar")
            found.update(shards)
    return sorted(found)


def _matches(name: str) -> list[str]:
    fs, path = fsspec.core.url_to_fs(name)
    if any(magic in path for magic in "*?["):
        paths = [found for found, info in fs.glob(path, detail=True).items() if info["type"] == "file"]
    else:
        paths = [path] if fs.isfile(path) else []
    return paths if "file" in fs.protocol else [fs.unstrip_protocol(found) for found in paths]


def resumed(url: str, parse: Callable[[Storage], Iterator[_T]]) -> Iterator[_T]:
    """Yield what `parse` finds in the shard; after a storage error open it anew and go on where that stopped.

    Raises ShardError when the shard does not exist or the storage has failed at every try.
    """
    done = 0
    for delay_s in (*RETRY_DELAYS_S, None):
        try:
            with closing(Storage(url)) as stream:
                for number, value in enumerate(parse(stream)):
                    if number >= done:
                        done += 1
                        yield value
            return
        except _StorageError as error:
            if isinstance(error.__cause__, _LASTING):
                raise ShardError(f"{url}: {error}; check the path and its permissions") from error
            if delay_s is None:
                tries = len(RETRY_DELAYS_S) + 1
                raise ShardError(f"{url}: storage failed {tries} times, lastly: {error}") from error
            time.sleep(delay_s)


class _StorageError(Exception):
    """Opening or reading failed below the tar format."""


class Storage:
    """The bytes of one shard, read forward; every failure to open or to read is a `_StorageError`."""

    def __init__(self, url: str) -> None:
        """Open the path or URI."""
        try:
            self._file = fsspec.open(url, "rb").open()
        except Exception as error:  # every backend has its own exceptions (botocore, aiohttp, gcsfs, ...)
            raise _StorageError(f"{type(error).__name__}: {error}") from error
        self._bytes_read = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end of the shard."""
        try:
            data: bytes = self._file.read(size)
        except Exception as error:
            raise _StorageError(f"{type(error).__name__}: {error}") from error
        self._bytes_read += len(data)
        expected = getattr(self._file, "size", None)
        if not data and expected and self._bytes_read < expected:
            raise _StorageError(f"connection ended at byte {self._bytes_read} of {expected}")
        return data

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
