"""A file or folder by its URI, with what pathlib has for one on disk: as much of it as a run's folder needs.

Object stores have no folders, no renaming and no appending: a folder is there where a file lies below it, and what is
written replaces the file in one piece. A failure that may pass is tried again; what stays is an OSError, so that
whoever can do without a file on a disk can do without this one.

universal_pathlib was tried in its place over the same file systems: its `is_file` and `iterdir` take storage that
fails (503) for "no such file", its joins put names behind a URI's query, and `str` shows the URI's credentials.
"""

from __future__ import annotations

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
    """What is known of a file."""

    st_size: int
    """Bytes."""
    st_mtime: float
    """When it was written, in seconds since 1970."""


@dataclass(frozen=True)
class Remote:
    """A file or folder of S3, GCS or whatever fsspec opens; `str` leaves out credentials and query."""

    uri: str
    """With credentials and query where it has any."""

    def __str__(self) -> str:
        return mask(parts(self.uri)[0])

    def __truediv__(self, name: str | Path) -> Remote:
        location, query = parts(self.uri)
        return Remote(f"{location.rstrip('/')}/{name}{query}")

    @property
    def name(self) -> str:
        """Last part of the path."""
        return parts(self.uri)[0].rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        """The folder that this lies in."""
        location, query = parts(self.uri)
        return Remote(location.rstrip("/").rpartition("/")[0] + query)

    def with_name(self, name: str) -> Remote:
        """Return what has another name in the same folder."""
        return self.parent / name

    def exists(self) -> bool:
        """Return whether there is such a file, or a file in such a folder."""
        return self._type() != ""

    def is_file(self) -> bool:
        """Return whether there is such a file."""
        return self._type() == "file"

    def is_dir(self) -> bool:
        """Return whether there is such a folder."""
        return self._type() == "directory"

    def stat(self) -> Stat:
        """Return size and time of the file. Raises FileNotFoundError."""

        def ask(fs: AbstractFileSystem, path: str) -> Stat:
            return Stat(fs.info(path)["size"], fs.modified(path).timestamp())

        return self._asked(ask)

    def iterdir(self) -> Iterator[Remote]:
        """Yield what lies in the folder; nothing where there is none."""
        return (self / name for name, _ in self._listed())

    def glob(self, pattern: str) -> Iterator[Remote]:
        """Yield what of the folder itself has such a name; with a `/` at the end, folders only."""
        for name, entry in self._listed():
            folder = entry["type"] == "directory"
            if fnmatch.fnmatchcase(name, pattern.rstrip("/")) and (folder or not pattern.endswith("/")):
                yield self / name

    def files(self) -> dict[str, int]:
        """Return the bytes of each file below the folder, by its path in it."""
        found: dict[str, int] = {}
        for name, entry in self._listed():
            if entry["type"] == "directory":
                found |= {f"{name}/{below}": size for below, size in (self / name).files().items()}
            else:
                found[name] = int(entry["size"])
        return found

    def read_bytes(self) -> bytes:
        """Return what the file holds. Raises FileNotFoundError."""
        return bytes(self._asked(lambda fs, path: fs.cat_file(path)))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return what the file holds. Raises FileNotFoundError."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Return what the file holds as a stream that is read; for small files. Raises FileNotFoundError."""
        assert mode == "rb"
        return io.BytesIO(self.read_bytes())

    def sha256(self) -> tuple[int, str]:
        """Return size and SHA-256 of the file, read forward. Raises FileNotFoundError."""

        def ask(fs: AbstractFileSystem, path: str) -> tuple[int, str]:
            digest, size = hashlib.sha256(), 0
            with fs.open(path, "rb", **_forward(fs)) as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    size += len(block)
            return size, digest.hexdigest()

        return self._asked(ask)

    def write_bytes(self, data: bytes) -> None:
        """Make this the file, in one piece."""
        self._write(lambda: io.BytesIO(data))

    def write_text(self, text: str) -> None:
        """Make this the file, in one piece."""
        self.write_bytes(text.encode())

    def create(self, text: str) -> None:
        """Make this the file, unless there is one (`sclip.storage.exclusive`). Raises FileExistsError."""

        def ask(fs: AbstractFileSystem, path: str) -> bool:
            _make_parents(fs, path)
            return make_file(self.uri, fs, path, text.encode())

        if not self._asked(ask):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))

    def touch(self) -> None:
        """Have an empty file of this time."""
        self.write_bytes(b"")

    def upload(self, file: Path) -> None:
        """Make this what a file of this machine holds."""
        self._write(lambda: file.open("rb"))

    def download(self, file: Path, size: int) -> None:
        """Write what this holds, so many bytes, into a file of this machine. Raises FileNotFoundError."""

        def ask(fs: AbstractFileSystem, path: str) -> None:
            with fs.open(path, "rb", **_forward(fs)) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target, BLOCK_BYTES)
            if file.stat().st_size != size:
                raise EOFError(f"connection ended at byte {file.stat().st_size} of {size}")

        self._asked(ask)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            self._asked(lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: a folder is there with its first file."""

    def rmtree(self) -> None:
        """Remove the folder with all that is in it, if it is there."""
        try:
            self._asked(lambda fs, path: fs.rm(path, recursive=True))
        except FileNotFoundError:
            return

    def move(self, to: Remote) -> None:
        """Give the file another name; the bytes stay in the storage."""
        target = filesystem(to.uri)[1]

        def ask(fs: AbstractFileSystem, path: str) -> None:
            _make_parents(fs, target)
            fs.mv(path, target)

        try:
            self._asked(ask)
        except FileNotFoundError:  # of a try whose answer was lost
            if not to.is_file():
                raise

    def arrow(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """Return pyarrow's file system and the path in it."""
        fs, path = filesystem(self.uri)
        known = isinstance(fs, ArrowFSWrapper)
        return (fs.fs if known else pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs))), path

    def _type(self) -> str:
        try:
            return str(self._asked(lambda fs, path: fs.info(path.rstrip("/")))["type"])
        except FileNotFoundError:
            return ""

    def _listed(self) -> list[tuple[str, dict[str, Any]]]:
        def ask(fs: AbstractFileSystem, path: str) -> list[dict[str, Any]]:
            fs.invalidate_cache()
            return [
                entry for entry in fs.ls(path.rstrip("/"), detail=True) if entry["name"] != path.rstrip("/")
            ]

        try:
            entries = self._asked(ask)
        except FileNotFoundError:
            return []
        named = ((entry["name"].rstrip("/").rpartition("/")[2], entry) for entry in entries)
        return sorted(named, key=lambda pair: pair[0])

    def _write(self, source: Callable[[], Any]) -> None:
        def ask(fs: AbstractFileSystem, path: str) -> None:
            _make_parents(fs, path)
            with source() as data, fs.open(path, "wb") as file:
                shutil.copyfileobj(data, file, BLOCK_BYTES)

        self._asked(ask)

    def _asked(self, ask: Callable[[AbstractFileSystem, str], _T]) -> _T:
        """Return what `ask` makes of the file system and the path. Raises FileNotFoundError or StorageError."""

        def tried() -> _T | FileNotFoundError:
            try:
                return ask(*filesystem(self.uri))
            except FileNotFoundError as error:
                return error

        found = retry(self.uri, tried)
        if isinstance(found, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return found


def _make_parents(fs: AbstractFileSystem, path: str) -> None:
    """Make the folders that a file lies in, where the file system has any."""
    if fs.protocol not in _WITHOUT_FOLDERS:
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)


def _forward(fs: AbstractFileSystem) -> dict[str, Any]:
    """Return what tells pyarrow to ask for the file once, where else it asks for every part that is read."""
    return {"seekable": False} if isinstance(fs, ArrowFSWrapper) else {}
