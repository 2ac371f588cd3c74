"""Files and folders at a URI, with the pathlib methods that a run's folder needs.

In an object store, a folder exists while a file exists below it, and a write replaces the whole file at once. Transient
failures are retried; lasting ones raise OSError, as on a disk.

universal_pathlib was tried instead: its `is_file` and `iterdir` treat failing storage (503) as "no such file", its
`/` appends names after a URI's query, and its `str` shows credentials.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow.fs
from fsspec import AbstractFileSystem
from fsspec.implementations.arrow import ArrowFSWrapper

from sclip.storage.exclusive import make_file
from sclip.storage.filesystem import BLOCK_BYTES, filesystem, parts
from sclip.storage.masking import mask
from sclip.storage.retries import retry

_WITHOUT_FOLDERS = ("s3", "gcs")
_T = TypeVar("_T")


class Stat(NamedTuple):
    """Size of a file in bytes, and its modification time in seconds since 1970."""

    st_size: int
    st_mtime: float


@dataclass(frozen=True)
class Remote:
    """A file or folder of S3, GCS or any other fsspec storage; `str` leaves out credentials and query."""

    uri: str  # with credentials and query

    def __str__(self) -> str:
        return mask(parts(self.uri)[0])

    def __truediv__(self, name: str | Path) -> Remote:
        location, query = parts(self.uri)
        return Remote(f"{location.rstrip('/')}/{name}{query}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return parts(self.uri)[0].rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        """The folder that holds this file or folder."""
        location, query = parts(self.uri)
        return Remote(location.rstrip("/").rpartition("/")[0] + query)

    def with_name(self, name: str) -> Remote:
        """Return the path with another name in the same folder."""
        return self.parent / name

    def exists(self) -> bool:
        """Return whether the file or folder exists."""
        return self._type() != ""

    def is_file(self) -> bool:
        """Return whether this is an existing file."""
        return self._type() == "file"

    def is_dir(self) -> bool:
        """Return whether this is an existing folder."""
        return self._type() == "directory"

    def stat(self) -> Stat:
        """Return size and modification time of the file. Raises FileNotFoundError if the file is missing."""
        return self._do(lambda fs, path: Stat(fs.info(path)["size"], fs.modified(path).timestamp()))

    def iterdir(self) -> Iterator[Remote]:
        """Yield the files and folders in the folder. Yields nothing if the folder does not exist."""
        return (self / name for name, _ in self._listed())

    def glob(self, pattern: str) -> Iterator[Remote]:
        """Yield the files and subfolders whose names match. A pattern that ends with `/` matches only subfolders."""
        for name, entry in self._listed():
            folder = entry["type"] == "directory"
            if fnmatch.fnmatchcase(name, pattern.rstrip("/")) and (folder or not pattern.endswith("/")):
                yield self / name

    def files(self) -> dict[str, int]:
        """Return the size in bytes of each file below the folder, by the file's path relative to the folder."""
        sizes: dict[str, int] = {}
        for name, entry in self._listed():
            if entry["type"] == "directory":
                sizes |= {f"{name}/{below}": size for below, size in (self / name).files().items()}
            else:
                sizes[name] = int(entry["size"])
        return sizes

    def read_bytes(self) -> bytes:
        """Return the file's content. Raises FileNotFoundError if the file is missing."""
        return bytes(self._do(lambda fs, path: fs.cat_file(path)))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the file's text. Raises FileNotFoundError if the file is missing."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Read a small file into memory and return it as an open file. Raises FileNotFoundError if it is missing."""
        assert mode == "rb"
        return io.BytesIO(self.read_bytes())

    def sha256(self) -> tuple[int, str]:
        """Return size and SHA-256 of the file. Raises FileNotFoundError if the file is missing."""

        def digest_blocks(fs: AbstractFileSystem, path: str) -> tuple[int, str]:
            digest, size = hashlib.sha256(), 0
            with fs.open(path, "rb", **_forward(fs)) as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    size += len(block)
            return size, digest.hexdigest()

        return self._do(digest_blocks)

    def write_bytes(self, data: bytes) -> None:
        """Replace the file's content atomically."""
        self._write(lambda: io.BytesIO(data))

    def write_text(self, text: str) -> None:
        """Replace the file's content with a text, atomically."""
        self.write_bytes(text.encode())

    def create(self, text: str) -> None:
        """Write a new file (`sclip.storage.exclusive`). Raises FileExistsError if the file exists."""

        def make(fs: AbstractFileSystem, path: str) -> bool:
            _make_parents(fs, path)
            return make_file(self.uri, fs, path, text.encode())

        if not self._do(make):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))

    def touch(self) -> None:
        """Replace the file by an empty file with the current time."""
        self.write_text("")

    def upload(self, file: Path) -> None:
        """Replace this file's content with that of a local file."""
        self._write(lambda: file.open("rb"))

    def download(self, file: Path, size: int) -> None:
        """Copy this file of `size` bytes to a local file. Raises FileNotFoundError if this file is missing."""

        def copy(fs: AbstractFileSystem, path: str) -> None:
            with fs.open(path, "rb", **_forward(fs)) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target, BLOCK_BYTES)
            if file.stat().st_size != size:
                raise EOFError(f"connection ended at byte {file.stat().st_size} of {size}")

        self._do(copy)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file. Raises FileNotFoundError if it is missing, unless `missing_ok`."""
        try:
            self._do(lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing, because writing a file creates its folder."""

    def rmtree(self) -> None:
        """Remove the folder and its content, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._do(lambda fs, path: fs.rm(path, recursive=True))

    def move(self, to: Remote) -> None:
        """Rename the file to another path in the same storage."""
        target = filesystem(to.uri)[1]

        def rename(fs: AbstractFileSystem, path: str) -> None:
            _make_parents(fs, target)
            fs.mv(path, target)

        try:
            self._do(rename)
        except FileNotFoundError:  # an earlier try renamed the file, but its response was lost
            if not to.is_file():
                raise

    def arrow(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """Return a pyarrow file system and the path in it."""
        fs, path = filesystem(self.uri)
        is_arrow = isinstance(fs, ArrowFSWrapper)
        return (fs.fs if is_arrow else pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs))), path

    def _type(self) -> str:
        try:
            return str(self._do(lambda fs, path: fs.info(path.rstrip("/")))["type"])
        except FileNotFoundError:
            return ""

    def _listed(self) -> list[tuple[str, dict[str, Any]]]:
        def ls(fs: AbstractFileSystem, path: str) -> list[dict[str, Any]]:
            folder = path.rstrip("/")
            fs.invalidate_cache()
            return [entry for entry in fs.ls(folder, detail=True) if entry["name"] != folder]

        try:
            entries = self._do(ls)
        except FileNotFoundError:
            return []
        named = ((entry["name"].rstrip("/").rpartition("/")[2], entry) for entry in entries)
        return sorted(named, key=lambda pair: pair[0])

    def _write(self, source: Callable[[], Any]) -> None:
        def write(fs: AbstractFileSystem, path: str) -> None:
            _make_parents(fs, path)
            with source() as data, fs.open(path, "wb") as file:
                shutil.copyfileobj(data, file, BLOCK_BYTES)

        self._do(write)

    def _do(self, action: Callable[[AbstractFileSystem, str], _T]) -> _T:
        """Return `action(file system, path)` with retries. Raises FileNotFoundError if the file is missing."""

        def attempt() -> _T | FileNotFoundError:
            try:
                return action(*filesystem(self.uri))
            except FileNotFoundError as error:
                return error

        result = retry(self.uri, attempt)
        if isinstance(result, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return result


def _make_parents(fs: AbstractFileSystem, path: str) -> None:
    if fs.protocol not in _WITHOUT_FOLDERS:
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)


def _forward(fs: AbstractFileSystem) -> dict[str, Any]:
    """Return the option that makes pyarrow send one request per file instead of one per read."""
    return {"seekable": False} if isinstance(fs, ArrowFSWrapper) else {}
