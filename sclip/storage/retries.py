"""Try an action on a path or URI up to four times while the storage fails.

A refusal (no such file, no permission) is raised at once. No message contains credentials of a URI.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import TypeVar

import tenacity

from sclip.storage.compression import HEAD_BYTES, Peeked
from sclip.storage.filesystem import open_stream
from sclip.storage.masking import mask

RETRY_DELAYS_S: tuple[float, ...] = (0.5, 2.0, 8.0)  # before each retry

_THREADS, _THREADS_REMOTE = 8, 32
"""Threads for local and for remote files. 32 keep pyarrow's S3 client busy, which sends at most 25 requests at once."""

_LASTING = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError,
)  # fmt: skip
_REFUSED = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|EXPIRED|Bucket .* not found"
    r"|HTTP status (?:3|4(?!08|25|29))\d\d|PERMISSION_DENIED|UNAUTHENTICATED|OAuth2 access token"
)
"""Messages of pyarrow's S3 and GCS clients for errors that a retry does not fix."""
_ASK_AGAIN = (408, 425, 429)
_MESSAGE_CHARS = 300
_T = TypeVar("_T")


class StorageError(OSError):
    """Error of storage that failed at every try, or refused access."""

    lasts = True  # whether another try would fail too


def concurrently(function: Callable[[str], _T], names: Sequence[str]) -> Iterator[_T]:
    """Yield the function's result for each path or URI, in order, computed by several threads."""
    threads = _THREADS_REMOTE if any("://" in name for name in names) else _THREADS
    remaining = iter(names)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(remaining, 32 * threads)):
            yield from pool.map(function, batch)


def read_bytes(url: str) -> bytes:
    """Return the bytes of a small file. Raises StorageError as `retry` does."""

    def read() -> bytes:
        with closing(open_stream(url)) as file:
            return file.read()

    return retry(url, read)


def first_bytes(url: str, judge: Callable[[Peeked], _T]) -> _T:
    """Return what `judge` returns for the start of a file. Raises StorageError as `retry` does."""
    return next(resumed(url, lambda stream: iter((judge(Peeked(stream)),)), HEAD_BYTES))


def retry(url: str, ask: Callable[[], _T]) -> _T:
    """Return the result of `ask`. Raises StorageError if the storage refuses access, or fails at every try."""

    def attempt() -> _T:
        try:
            return ask()
        except Exception as error:  # each library has its own exceptions (aiohttp, pyarrow, botocore, ...)
            raise _StorageFailure from error

    with _retrying(url) as attempts:
        return attempts(attempt)


def resumed(url: str, parse: Callable[[ByteStream], Iterator[_T]], block_bytes: int = 0) -> Iterator[_T]:
    """Yield the values of `parse` for a file. If the storage fails, parse the file again and skip the yielded values.

    Raises StorageError as `retry` does, and the exceptions of `parse`.
    """
    done = 0
    with _retrying(url) as attempts:
        for attempt in attempts:
            with attempt, closing(ByteStream(url, block_bytes)) as stream:
                for value in islice(parse(stream), done, None):
                    done += 1
                    attempt.retry_state.attempt_number = 1  # a value shows that the storage works
                    yield value


class ByteStream:
    """A file that is read forward. Failures to open or to read the file raise `_StorageFailure`."""

    def __init__(self, url: str, block_bytes: int = 0) -> None:
        try:
            self._file = open_stream(url, block_bytes)
        except Exception as error:
            raise _StorageFailure from error
        self._bytes_read = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; empty bytes at the end of the file."""
        try:
            data = self._file.read(size)
        except Exception as error:
            raise _StorageFailure from error
        self._bytes_read += len(data)
        expected = getattr(self._file, "size", None)
        if not data and isinstance(expected, int) and self._bytes_read < expected:
            raise _StorageFailure from EOFError(f"connection ended at byte {self._bytes_read} of {expected}")
        return data

    def close(self) -> None:
        """Close the underlying file."""
        self._file.close()


class _StorageFailure(Exception):
    """One failed attempt, caused by `__cause__`. Not an OSError, because `tarfile` takes OSErrors for a broken tar."""


@contextmanager
def _retrying(url: str) -> Iterator[tenacity.Retrying]:
    """Yield tenacity's attempts, and raise the last failure as StorageError."""
    try:
        yield tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_chain(*map(tenacity.wait_fixed, RETRY_DELAYS_S)),
            stop=tenacity.stop_after_attempt(1 + len(RETRY_DELAYS_S)),
            reraise=True,
        )
    except _StorageFailure as failure:
        text = _message(failure.__cause__, url)
        if may_pass := _may_pass(failure):
            text = f"storage failed {1 + len(RETRY_DELAYS_S)} times; last error: {text}"
        else:
            text += (
                f"; check the {'address and the credentials' if '://' in url else 'path and its permissions'}"
            )
        error = StorageError(f"{mask(url)}: {text}")
        error.lasts = not may_pass
        raise error from None  # in a traceback, the cause would show the URL's credentials


def _may_pass(failure: BaseException) -> bool:
    if not isinstance(failure, _StorageFailure):
        return False
    error = failure.__cause__
    status = getattr(error, "status", None)  # HTTP only
    if isinstance(status, int):
        return status >= 500 or status in _ASK_AGAIN
    return not isinstance(error, _LASTING) and not _REFUSED.search(str(error))


def _message(error: BaseException | None, url: str) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    status = getattr(error, "status", None)
    text = f"HTTP {status} {getattr(error, 'message', '')}" if isinstance(status, int) else str(error)
    return f"{type(error).__name__}: {mask(' '.join(text.split()), url)[:_MESSAGE_CHARS]}"
