"""Retry storage that fails: a path or URI and an action in, its result or a `StorageError` out.

A failure that may pass is retried (by tenacity) before it is raised; a refusal (no such file, no permission) is raised
at once. No message holds a credential of a URI.
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

RETRY_DELAYS_S: tuple[float, ...] = (0.5, 2.0, 8.0)
"""Waits before each retry; after the last one the storage is given up."""

_THREADS, _THREADS_REMOTE = 8, 32
"""Requests in flight; pyarrow's S3 client sends 25."""

_LASTING = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError,
)  # fmt: skip
_REFUSED = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|EXPIRED|Bucket .* not found"
    r"|HTTP status (?:3|4(?!08|25|29))\d\d|PERMISSION_DENIED|UNAUTHENTICATED|OAuth2 access token"
)
"""How pyarrow's clients of S3 and GCS word errors that a retry does not change."""
_ASK_AGAIN = (408, 425, 429)
"""Statuses of HTTP below 500 that may pass."""
_MESSAGE_CHARS = 300
_T = TypeVar("_T")


class StorageError(OSError):
    """Storage that failed at every try, or refused; one line with the path, the error and the remedy."""

    lasts = True
    """Whether another try would fail too."""


def concurrently(function: Callable[[str], _T], names: Sequence[str]) -> Iterator[_T]:
    """Yield the function's result for each path or URI, in order; runs in threads, not far ahead of the reader."""
    threads = _THREADS_REMOTE if any("://" in name for name in names) else _THREADS
    left = iter(names)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(left, 32 * threads)):
            yield from pool.map(function, batch)


def read_bytes(url: str) -> bytes:
    """Return the bytes of a small file. Raises StorageError as `retry` does."""

    def read() -> bytes:
        with closing(open_stream(url)) as file:
            return file.read()

    return retry(url, read)


def first_bytes(url: str, judge: Callable[[Peeked], _T]) -> _T:
    """Return what `judge` makes of a file's start; little more is downloaded. Raises StorageError as `retry` does."""
    return next(resumed(url, lambda stream: iter((judge(Peeked(stream)),)), HEAD_BYTES))


def retry(url: str, ask: Callable[[], _T]) -> _T:
    """Return what `ask` returns. Raises StorageError when storage refuses, or has failed at every try."""

    def attempt() -> _T:
        try:
            return ask()
        except Exception as error:  # every library has its own (aiohttp, pyarrow, botocore, ...)
            raise _StorageFailure from error

    with _retrying(url) as attempts:
        return attempts(attempt)


def resumed(url: str, parse: Callable[[ByteStream], Iterator[_T]], block_bytes: int = 0) -> Iterator[_T]:
    """Yield the values that `parse` makes of a file; when storage fails, reopen it and continue with the next value.

    Any exception of `ByteStream` is a failure of storage, and any other one of `parse`. Raises StorageError as `retry`
    does; each new value resets the count of failures.
    """
    done = 0
    with _retrying(url) as attempts:
        for attempt in attempts:
            with attempt, closing(ByteStream(url, block_bytes)) as stream:
                for value in islice(parse(stream), done, None):
                    done += 1
                    attempt.retry_state.attempt_number = 1
                    yield value


class ByteStream:
    """A file that is read forward; every failure to open or read it is a `_StorageFailure`."""

    def __init__(self, url: str, block_bytes: int = 0) -> None:
        """Open the path or URI."""
        try:
            self._file = open_stream(url, block_bytes)
        except Exception as error:
            raise _StorageFailure from error
        self._bytes_read = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end of the file."""
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
        """Close the file below."""
        self._file.close()


class _StorageFailure(Exception):
    """One failed attempt, whose cause is the library's error; no OSError, which `tarfile` takes for a broken tar."""


@contextmanager
def _retrying(url: str) -> Iterator[tenacity.Retrying]:
    """Give the attempts, and raise the last failure as StorageError.

    The error has no cause, because the library's message in a traceback would show the URL's credentials.
    """
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
            text = f"storage failed {1 + len(RETRY_DELAYS_S)} times, lastly: {text}"
        else:
            text += (
                f"; check the {'address and the credentials' if '://' in url else 'path and its permissions'}"
            )
        error = StorageError(f"{mask(url)}: {text}")
        error.lasts = not may_pass
        raise error from None


def _may_pass(failure: BaseException) -> bool:
    if not isinstance(failure, _StorageFailure):
        return False
    error = failure.__cause__
    status = getattr(error, "status", None)  # HTTP only
    if isinstance(status, int):
        return status >= 500 or status in _ASK_AGAIN
    return not isinstance(error, _LASTING) and not _REFUSED.search(str(error))


def _message(error: BaseException | None, url: str) -> str:
    """Return an error in one line, without the URL's credentials."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    status = getattr(error, "status", None)
    text = f"HTTP {status} {getattr(error, 'message', '')}" if isinstance(status, int) else str(error)
    return f"{type(error).__name__}: {mask(' '.join(text.split()), url)[:_MESSAGE_CHARS]}"
