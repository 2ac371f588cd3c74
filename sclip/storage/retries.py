"""Shards over a storage that may fail: names with globs and braces to shards, and what is in a shard, once.

A failure of the storage may pass, so it is tried again and only then raised as `ShardError`; a refusal (no such
shard, no permission) is raised at once. It is told from a fault in the tar by where it happens, whatever exception
the library below has for it. No message holds a credential of a URI.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TypeVar

import braceexpand
from fsspec.implementations.arrow import ArrowFSWrapper

from sclip.storage.filesystem import filesystem, open_stream, parts
from sclip.storage.masking import mask

__all__ = ["ShardError", "Storage", "asked", "contents", "expand", "resumed", "together"]

RETRY_DELAYS_S: tuple[float, ...] = (0.5, 2.0, 8.0)
"""Waits before the storage is asked again after an error; then it is given up."""

_THREADS, _THREADS_REMOTE = 8, 32
"""Requests at once; pyarrow's S3 client sends 25."""

_LASTING = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError,
)  # fmt: skip
_REFUSED = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|EXPIRED|Bucket .* not found"
    r"|HTTP status (?:3|4(?!08|25|29))\d\d|PERMISSION_DENIED|UNAUTHENTICATED|OAuth2 access token"
)
"""How pyarrow's clients of S3 and GCS word what asking again does not change."""
_ASK_AGAIN = (408, 425, 429)
"""HTTP's answers below 500 that may pass."""
_MOST_TOLD = 300
_T = TypeVar("_T")


class ShardError(Exception):
    """A shard that cannot be reached; one line with the shard, what was found and what to do."""


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
        for name, shards in zip(names, together(_matches, names), strict=True):
            if not shards:
                of = "" if name == pattern else f" (of {mask(pattern)})"
                raise ShardError(
                    f"{mask(name)}{of}: no such shard; name existing tars, for example DIR/*.tar"
                )
            found.update(shards)
    return sorted(found, key=lambda url: (mask(url), url))


def together(function: Callable[[str], _T], names: Sequence[str]) -> Iterator[_T]:
    """Yield the function of each path or URI, in order; as many at once as its storage takes, few of them waiting."""
    threads = _THREADS_REMOTE if any("://" in name for name in names) else _THREADS
    left = iter(names)
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(left, 32 * threads)):
            yield from pool.map(function, some)


def contents(url: str) -> bytes:
    """Return a small file. Raises ShardError as `resumed` does."""

    def read() -> bytes:
        with closing(open_stream(url)) as file:
            return file.read()

    return asked(url, read)


def _matches(name: str) -> list[str]:
    return asked(name, lambda: _look(name))


def _look(name: str) -> list[str]:
    """Return the files that a name without braces names; a refusal is raised, where fsspec would say "none"."""
    fs, path = filesystem(name)
    http = "http" in fs.protocol
    location, query = parts(name)
    try:
        if any(magic in parts(path)[0] for magic in ("*[" if http else "*?[")):
            entries = fs.glob(path, detail=True, on_error="raise").items()
            paths = [found for found, info in entries if info["type"] == "file"]
        elif http:
            open_stream(name).close()
            return [name]
        else:
            paths = [path] if fs.info(path)["type"] == "file" else []
    except (FileNotFoundError, NotADirectoryError):
        return []
    if isinstance(fs, ArrowFSWrapper):
        scheme, _, place = location.partition("://")
        user = place.partition("/")[0].rpartition("@")
        return [f"{scheme}://{user[0]}{user[1]}{found}{query}" for found in paths]
    return paths if "file" in fs.protocol else [fs.unstrip_protocol(found) for found in paths]


def asked(url: str, ask: Callable[[], _T]) -> _T:
    """Return what `ask` returns, in the end. Raises ShardError as `resumed` does."""
    patience = _Patience(url)
    while True:
        try:
            return ask()
        except Exception as error:  # every library has its own (aiohttp, pyarrow, botocore, ...)
            patience.wait(error)


def resumed(url: str, parse: Callable[[Storage], Iterator[_T]]) -> Iterator[_T]:
    """Yield what `parse` finds in the shard; after a storage error open it anew and go on where that stopped.

    Raises ShardError when the shard does not exist or may not be read, at once, or when the storage has failed at
    every try since the last sample.
    """
    patience = _Patience(url)
    done = 0
    while True:
        try:
            with closing(Storage(url)) as stream:
                for number, value in enumerate(parse(stream)):
                    if number >= done:
                        done += 1
                        patience.begin()
                        yield value
            return
        except _StorageError as error:
            patience.wait(error.cause)


class _Patience:
    """How often the storage of one shard has failed in a row."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._failures = 0

    def begin(self) -> None:
        """Forget the failures: there was something new since."""
        self._failures = 0

    def wait(self, error: Exception) -> None:
        """Wait before the next try; raise ShardError where there is to be none.

        Its cause is left out: a traceback would show the library's message, which repeats the URL as it was given.
        """
        place, told = mask(self._url), _told(error, self._url)
        if _lasts(error):
            remedy = "address and the credentials" if "://" in place else "path and its permissions"
            raise ShardError(f"{place}: {told}; check the {remedy}") from None
        if self._failures == len(RETRY_DELAYS_S):
            raise ShardError(f"{place}: storage failed {self._failures + 1} times, lastly: {told}") from None
        time.sleep(RETRY_DELAYS_S[self._failures])
        self._failures += 1


def _lasts(error: Exception) -> bool:
    status = getattr(error, "status", None)  # of an answer of HTTP
    if isinstance(status, int):
        return status < 500 and status not in _ASK_AGAIN
    return isinstance(error, _LASTING) or bool(_REFUSED.search(str(error)))


def _told(error: Exception, url: str) -> str:
    """Return an error in one line, without what it repeats of the URL."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    status = getattr(error, "status", None)
    text = f"HTTP {status} {getattr(error, 'message', '')}" if isinstance(status, int) else str(error)
    return f"{type(error).__name__}: {mask(' '.join(text.split()), url)[:_MOST_TOLD]}"


class _StorageError(Exception):
    """Opening or reading failed below the tar format."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Storage:
    """The bytes of one shard, read forward; every failure to open or to read is a `_StorageError`."""

    def __init__(self, url: str) -> None:
        """Open the path or URI."""
        try:
            self._file = open_stream(url)
        except Exception as error:
            raise _StorageError(error) from error
        self._bytes_read = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end of the shard."""
        try:
            data = self._file.read(size)
        except Exception as error:
            raise _StorageError(error) from error
        self._bytes_read += len(data)
        expected = getattr(self._file, "size", None)
        if not data and isinstance(expected, int) and self._bytes_read < expected:
            raise _StorageError(EOFError(f"connection ended at byte {self._bytes_read} of {expected}"))
        return data

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
