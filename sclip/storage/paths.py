"""Use a run's folder in the same way on disk, in S3, in GCS and in any other storage that fsspec opens.

A `StoragePath` is a `Path` or a `Remote`. This module holds the operations that differ between the two. For libraries
that know only local files, `staged` yields a folder to write to, which `send` then uploads, and `local_copy` yields a
folder to read from. For a `Path`, both folders are the path itself, and nothing is copied.

pyarrow and fsspec are imported only for URIs, so a machine with only torch and open_clip can save and load.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sclip.storage import scratch

if TYPE_CHECKING:
    from sclip.storage.remote import Remote


StoragePath: TypeAlias = "Path | Remote"


def storage_path(path: str | StoragePath) -> StoragePath:
    """Return the absolute path for a URI or a local path. A `StoragePath` is returned unchanged."""
    if not isinstance(path, str):
        return path
    if "://" in path and not path.startswith("file://"):
        return _remote(path)
    return Path(path.removeprefix("file://")).expanduser().absolute()


def address(path: StoragePath) -> str:
    """Return a path as text that `storage_path` accepts. Unlike `str`, the text keeps the URI's credentials."""
    return str(path) if isinstance(path, Path) else path.uri


def sizes(folder: StoragePath) -> dict[str, int]:
    """Return the size in bytes of every file below a folder, by the file's path relative to the folder."""
    if not isinstance(folder, Path):
        return folder.files()
    return {str(f.relative_to(folder)): f.stat().st_size for f in folder.rglob("*") if f.is_file()}


def shown(path: str | StoragePath) -> str:
    """Return a path for display, quoted for a shell if it has spaces or brackets."""
    return shlex.quote(str(path))


def write(file: StoragePath, text: str) -> None:
    """Write a file atomically: a reader never sees half of the file, nor an empty file after a power loss."""
    if isinstance(file, Path):
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        with temporary.open("w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    else:
        file.write_text(text)


def create(file: StoragePath, text: str) -> None:
    """Write a new file atomically. Raises FileExistsError if the file exists.

    Of two simultaneous writers, the second raises it too. Storage without conditional writes may let both succeed
    (`sclip.storage.exclusive`).
    """
    if isinstance(file, Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        temporary.write_text(text)
        try:
            os.link(temporary, file)
        except FileExistsError:
            raise
        except OSError:  # this file system has no hard links, so a reader may see half of the file
            with file.open("x") as stream:
                stream.write(text)
        finally:
            temporary.unlink()
    else:
        file.create(text)


def append(file: StoragePath, text: str) -> None:
    """Append to a file, and create it if it is missing. Only one process may append.

    An object store rewrites the whole file.
    """
    if isinstance(file, Path):
        with file.open("a") as stream:
            stream.write(text)
    else:
        before = file.read_text() if file.exists() else ""
        file.write_text(before + text)


def remove(folder: StoragePath, ignore_errors: bool = False) -> None:
    """Remove a folder and its content, if it exists. Raises OSError if something remains, unless `ignore_errors`."""
    if isinstance(folder, Path):
        if folder.exists():
            shutil.rmtree(folder, ignore_errors)
        return
    with contextlib.suppress(*[OSError] if ignore_errors else []):
        folder.rmtree()


def move(folder: StoragePath, to: StoragePath, first: str) -> None:
    """Rename a folder within its storage. An object store moves one file after another, beginning with `first`."""
    if isinstance(folder, Path):
        folder.rename(address(to))
        return
    for name in sorted(folder.files(), key=lambda name: name != first):
        (folder / name).move(_remote(address(to / name)))
    folder.rmtree()  # pyarrow leaves an empty folder behind


def free_bytes(folder: StoragePath) -> tuple[Path, int]:
    """Return the folder where checkpoints are written first (TMPDIR for a URI), and the free bytes of its disk."""
    disk = folder if isinstance(folder, Path) else Path(tempfile.gettempdir())
    return disk, shutil.disk_usage(disk).free


def check_writable(storage: Path) -> None:
    """Raise OSError if the folder, or its nearest existing parent, is not writable."""
    folder = next(path for path in (storage, *storage.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 65536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(
            f"run.storage={str(storage)!r}: {shown(folder)} cannot be written to ({error.strerror or error}); "
            "name a folder with room that this user may write to"
        ) from error


def send(folder: Path, to: StoragePath, names: Iterable[str] | None = None) -> None:
    """Copy the named files, or all files below a folder, to storage, unless `to` is the folder itself."""
    if isinstance(to, Path):
        assert to == folder
        return
    from sclip.storage.retries import concurrently

    files = {address(to / name): folder / name for name in (sizes(folder) if names is None else names)}
    list(concurrently(lambda uri: _remote(uri).upload(files[uri]), list(files)))


def fetch(source: StoragePath, folder: Path, names: Iterable[str] | None = None) -> None:
    """Copy files below a path to a local folder: all files, or those of `names` that exist. Raises OSError."""
    if isinstance(source, Path):
        assert source == folder
        return
    from sclip.storage.retries import concurrently

    if names is None:
        sizes = source.files()
    else:
        sizes = {name: (source / name).stat().st_size for name in names if (source / name).is_file()}
    files = {address(source / name): name for name in sizes}

    def download(uri: str) -> None:
        target = folder / files[uri]
        target.parent.mkdir(parents=True, exist_ok=True)
        _remote(uri).download(target, sizes[files[uri]])

    list(concurrently(download, list(files)))


@contextlib.contextmanager
def staged(to: StoragePath) -> Iterator[Path]:
    """Yield a folder to write to: the path itself, or a temporary folder from which `send` uploads."""
    if isinstance(to, Path):
        yield to
    else:
        with scratch.own() as folder:
            yield folder


@contextlib.contextmanager
def local_copy(path: StoragePath, shared: str = "", names: Iterable[str] | None = None) -> Iterator[Path]:
    """Yield a folder to read from: the path itself, or a copy of its files that is removed after the block.

    Processes of one node that pass the same `shared` name use one copy. The first process that leaves the block removes
    this copy, so the others must have finished reading before.
    """
    if isinstance(path, Path):
        yield path
    elif not shared:
        with scratch.own() as folder:
            fetch(path, folder, names)
            yield folder
    else:
        copy = scratch.common(shared, lambda folder: fetch(path, folder, names))
        try:
            yield copy
        finally:
            scratch.remove(copy)


def cached_copy(path: StoragePath) -> Path:
    """Return a `Path` unchanged; for a URI, a lasting local copy. Raises OSError if there is nothing at the URI."""
    if isinstance(path, Path):
        return path
    if path.is_file():
        parent, name = path.parent, path.name
        return (
            scratch.common(_version(path, path.stat()), lambda folder: fetch(parent, folder, [name])) / name
        )
    if not (files := path.files()):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return scratch.common(_version(path, sorted(files.items())), lambda folder: fetch(path, folder))


def ray_storage(folder: StoragePath) -> dict[str, Any]:
    """Return the arguments that make Ray's RunConfig store its files in a folder."""
    if isinstance(folder, Path):
        return {"storage_path": str(folder)}
    fs, path = folder.arrow()
    return {"storage_path": path, "storage_filesystem": fs}


def _version(path: Remote, content: object) -> str:
    return hashlib.sha256(repr((path.uri, content)).encode()).hexdigest()


def _remote(uri: str) -> Remote:
    from sclip.storage.remote import Remote

    return Remote(uri)
