"""Paths of runs: a folder of this machine or one in S3, GCS or what else fsspec opens, used in the same way.

A `StoragePath` is a `Path` or a `Remote`, which has pathlib's names for what a run's folder needs; what the two do not
share stands here. Libraries that know only local files get them: `staged` gives a folder to write to, which `send`
uploads, `local_copy` one to read from. Of a `Path` both are the path itself and nothing is copied.

pyarrow and fsspec are imported only where there is a URI: a machine with torch and open_clip alone can save and load.
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


def storage_path(where: str | StoragePath) -> StoragePath:
    """Return the path of a URI, or a local path made absolute; a `StoragePath` comes back as it is."""
    if not isinstance(where, str):
        return where
    if "://" in where and not where.startswith("file://"):
        return _remote(where)
    return Path(where.removeprefix("file://")).expanduser().absolute()


def address(of: StoragePath) -> str:
    """Return the text of which `storage_path` makes the path again, with credentials, where `str` masks them."""
    return str(of) if isinstance(of, Path) else of.uri


def sizes(of: StoragePath) -> dict[str, int]:
    """Return the bytes of every file below a folder, by its path in it."""
    if not isinstance(of, Path):
        return of.files()
    return {str(f.relative_to(of)): f.stat().st_size for f in of.rglob("*") if f.is_file()}


def shown(of: str | StoragePath) -> str:
    """Return a path as it is printed: a word of a shell, quoted where spaces or brackets need it."""
    return shlex.quote(str(of))


def write(file: StoragePath, text: str) -> None:
    """Make a text the file, in one piece: no reader ever sees half of it."""
    if isinstance(file, Path):
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(file)
    else:
        file.write_text(text)


def create(file: StoragePath, text: str) -> None:
    """Make a text the file in one piece unless there is one, of two that try at once by one. Raises FileExistsError.

    Storage without conditional writes cannot decide between the two (`sclip.storage.exclusive`).
    """
    if isinstance(file, Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        temporary.write_text(text)
        try:
            os.link(temporary, file)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: others may see half of it
            with file.open("x") as stream:
                stream.write(text)
        finally:
            temporary.unlink()
    else:
        file.create(text)


def append(file: StoragePath, text: str) -> None:
    """Add a text at the end of a file, made where missing; by one process. In object stores it is written anew."""
    if isinstance(file, Path):
        with file.open("a") as stream:
            stream.write(text)
    else:
        before = file.read_text() if file.exists() else ""
        file.write_text(before + text)


def remove(folder: StoragePath, ignore_errors: bool = False) -> None:
    """Remove a folder with all that is in it, if it is there. Raises OSError where something stays, or leaves that."""
    if isinstance(folder, Path):
        if folder.exists():
            shutil.rmtree(folder, ignore_errors)
        return
    with contextlib.suppress(*[OSError] if ignore_errors else []):
        folder.rmtree()


def move(folder: StoragePath, to: StoragePath, first: str) -> None:
    """Give a folder another name in the same storage; where files are moved one by one, the file `first` before all."""
    if isinstance(folder, Path):
        folder.rename(address(to))
        return
    for name in sorted(folder.files(), key=lambda name: name != first):
        (folder / name).move(_remote(address(to / name)))
    folder.rmtree()  # pyarrow leaves an empty one


def free_bytes(of: StoragePath) -> tuple[Path, int]:
    """Return where a checkpoint of a folder needs room on a disk, and how much there is."""
    disk = of if isinstance(of, Path) else Path(tempfile.gettempdir())
    return disk, shutil.disk_usage(disk).free


def check_writable(storage: Path) -> None:
    """Raise OSError, a line that names `run.storage`, for a folder that nothing can be written to.

    Nothing of the try stays: where the folder is missing, the nearest one above it is tried.
    """
    place = next(of for of in (storage, *storage.parents) if os.path.lexists(of))
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 65536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(
            f"run.storage={str(storage)!r}: {shown(place)} cannot be written to ({error.strerror or error}); "
            "name a folder with room that this user may write to"
        ) from error


def send(folder: Path, to: StoragePath, names: Iterable[str] | None = None) -> None:
    """Copy the files of these names, or all below a folder, to a path; nothing where it is that folder itself."""
    if isinstance(to, Path):
        assert to == folder
        return
    from sclip.storage.retries import concurrently

    found = {address(to / name): folder / name for name in (sizes(folder) if names is None else names)}
    for _ in concurrently(lambda uri: _remote(uri).upload(found[uri]), list(found)):
        pass


def fetch(of: StoragePath, folder: Path, names: Iterable[str] | None = None) -> None:
    """Copy what is there of these files, or all below a path, to a folder; nothing where it is that path itself.

    Raises OSError.
    """
    if isinstance(of, Path):
        assert of == folder
        return
    from sclip.storage.retries import concurrently

    if names is None:
        there = of.files()
    else:
        there = {name: (of / name).stat().st_size for name in names if (of / name).is_file()}
    found = {address(of / name): name for name in there}

    def one(uri: str) -> None:
        target = folder / found[uri]
        target.parent.mkdir(parents=True, exist_ok=True)
        _remote(uri).download(target, there[found[uri]])

    for _ in concurrently(one, list(found)):
        pass


@contextlib.contextmanager
def staged(to: StoragePath) -> Iterator[Path]:
    """Give a folder to write to: the path itself, or one of this process that goes at the end; see `send`."""
    if isinstance(to, Path):
        yield to
    else:
        with scratch.own() as folder:
            yield folder


@contextlib.contextmanager
def local_copy(of: StoragePath, shared: str = "", names: Iterable[str] | None = None) -> Iterator[Path]:
    """Give a folder to read from: the path itself, or a copy of its files that goes at the end of the block.

    Processes of a node that give the same word as `shared` have one copy; it goes with the first that leaves the block.
    """
    if isinstance(of, Path):
        yield of
    elif not shared:
        with scratch.own() as folder:
            fetch(of, folder, names)
            yield folder
    else:
        copy = scratch.common(shared, lambda folder: fetch(of, folder, names))
        try:
            yield copy
        finally:
            scratch.remove(copy)


def cached_copy(of: StoragePath) -> Path:
    """Return a file or folder of this machine that holds what the path does now; the copy of a URI stays for others.

    Raises OSError where nothing is there.
    """
    if isinstance(of, Path):
        return of
    if of.is_file():
        parent, name = of.parent, of.name
        return scratch.common(_version(of, of.stat()), lambda folder: fetch(parent, folder, [name])) / name
    if not (there := of.files()):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(of))
    return scratch.common(_version(of, sorted(there.items())), lambda folder: fetch(of, folder))


def ray_storage(folder: StoragePath) -> dict[str, Any]:
    """Return the arguments by which a RunConfig of Ray's keeps its files in a folder."""
    if isinstance(folder, Path):
        return {"storage_path": str(folder)}
    fs, path = folder.arrow()
    return {"storage_path": path, "storage_filesystem": fs}


def _version(of: Remote, content: object) -> str:
    return hashlib.sha256(repr((of.uri, content)).encode()).hexdigest()


def _remote(uri: str) -> Remote:
    from sclip.storage.remote import Remote

    return Remote(uri)
