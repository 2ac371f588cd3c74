"""Names with `*`, `?` and `[..]` in, the files that they name out, here and in object stores.

A wildcard takes tars and files without an extension: what else lies beside shards describes them (`.parquet`,
`_stats.json`, `index.json`), and wget saves `0.tar.1` where it has `0.tar` already. A name without one is the file
itself, whatever it is called, or the tars of the folder. Parquet files that hold images are named by `*.parquet`.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable
from typing import Any

from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.utils import glob_translate

from sclip.storage.filesystem import filesystem, open_stream, parts
from sclip.storage.retries import retry

_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|zstd|lzma|lz4|z))?|t[gbx]z2?|tzst)$", re.IGNORECASE)
_EXTENSION = re.compile(r"\.[A-Za-z]\w*$")
"""Not of part.00017: a number is none."""
_NUMBERED = re.compile(r"(\.[A-Za-z]\w*)\.[\d?\[][^.]*$")
"""The end of x.tar.1, and of the patterns that ask for it."""
_MOST_NAMED = 4


def matching_files(name: str) -> list[str]:
    """Return the files that a path or URI names; none where there is none.

    Local paths come back absolute, URIs with the credentials and the query of `name`. Raises StorageError for a
    refusal too, where fsspec would say "none".
    """
    return retry(name, lambda: _matching_files(name))


def what_is_there(name: str) -> str:
    """Return what a folder without tars, or the folder nearest to a local path without a file, holds; else nothing.

    A folder of an object store is not listed: it may have millions of files.
    """
    return retry(name, lambda: _what_is_there(name))


def files_below(folder: str, pattern: str = "**/*") -> list[str]:
    """Return the local files whose path from a folder fits a pattern; of the default, all below it.

    Folders behind symbolic links are entered, as the shell does. One that several paths lead to gives its files once,
    by a path without a link where there is one. What is hidden counts only where the pattern spells the dot. A link to
    a missing file is taken for one: a shard that was not brought is told by its name, and not left out. Raises OSError
    for a folder that cannot be listed.
    """
    components = pattern.split("/") + ["*"] * pattern.endswith("**")
    found, seen, last = list[str](), set[tuple[int, int, int]](), len(components) - 1
    left = deque([(folder, 0)])
    while left:
        path, at = left.popleft()
        status = os.stat(path)
        if (state := (status.st_dev, status.st_ino, at)) in seen:
            continue
        seen.add(state)
        component, deep = components[at], components[at] == "**"
        fits = re.compile(r"(?!\.)" * (component[:1] != ".") + glob_translate(component)).match
        if deep:
            left.appendleft((path, at + 1))
        with os.scandir(path) as entries:
            fitting = sorted((entry for entry in entries if fits(entry.name)), key=lambda entry: entry.name)
        for entry in fitting:
            link = entry.is_symlink()
            if entry.is_dir():
                if deep or at < last:  # links after all else
                    (left.append if link else left.appendleft)((entry.path, at + (not deep)))
            elif at == last and (link or entry.is_file()):
                found.append(entry.path)
    return sorted(found)


def _matching_files(name: str) -> list[str]:
    if not name:
        return []
    fs, path = filesystem(name)
    try:
        if "http" in _protocols(fs):
            return _on_http(fs, name)
        root, pattern = _split(fs, path)
        if pattern:
            paths = _globbed(fs, root, pattern)
        elif fs.info(root)["type"] == "directory":
            paths = [file for file in _globbed(fs, root, "*") if _TAR.search(file)]
        else:
            paths = [root]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [_address(name, fs, path) for path in paths]


def _on_http(fs: Any, url: str) -> list[str]:
    location = parts(url)[0]
    if not any(magic in location for magic in "*["):  # a ? begins a query
        open_stream(url).close()
        return [url]
    entries = fs.glob(url, detail=True, on_error="raise").items()
    return _shards((found for found, info in entries if info["type"] == "file"), location)


def _split(fs: Any, path: str) -> tuple[str, str]:
    """Cut a path before its first component with a wildcard; `[..]` is none where something has that very name.

    A local path has one spelling, without `.` and `..`: a shard that is spelled in two ways is one.
    """
    if "file" in _protocols(fs):
        path = os.path.normpath(path)
    components = re.sub("/{2,}", "/", path).split("/")
    for at, component in enumerate(components):
        literal = "/".join(components[: at + 1])
        if "*" in component or "?" in component or ("[" in component and not _exists(fs, literal)):
            root = "/".join(components[:at]) or "/" * (at > 0)
            return root, "/".join(components[at:])
    return "/".join(components).rstrip("/") or "/", ""


def _exists(fs: Any, path: str) -> bool:
    try:
        fs.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _globbed(fs: Any, root: str, pattern: str) -> list[str]:
    """Return the shards below a folder whose path from there fits the pattern, and takes no folder literally."""
    if "file" in _protocols(fs):
        return _shards(files_below(root, pattern), pattern)
    depth = None if "**" in pattern else pattern.count("/") + 1
    below = f"{root.rstrip('/')}/" if root else ""
    fits, spelled = re.compile(glob_translate(pattern)).match, "/." in f"/{pattern}"
    entries = fs.find(root, maxdepth=depth, detail=True, on_error="raise").items()
    files = ((file, file.removeprefix(below)) for file, info in entries if info["type"] == "file")
    return _shards(
        (file for file, path in files if fits(path) and (spelled or "/." not in f"/{path}")), pattern
    )


def _shards(files: Iterable[str], pattern: str) -> list[str]:
    """Return the files that can be shards: tars, those without an extension, or with the one that the pattern has."""
    wanted = _last(pattern)

    def is_shard(name: str) -> bool:
        if name.startswith(".") and not wanted.startswith("."):  # macOS puts ._x.tar beside x.tar
            return False
        numbered = _NUMBERED.search(name)
        if numbered and _TAR.search(name[: numbered.end(1)]) and not _NUMBERED.search(wanted):
            return False
        extension = _EXTENSION.search(name)
        return extension is None or bool(_TAR.search(name)) or wanted.endswith(extension[0])

    return [file for file in files if is_shard(_last(parts(file)[0]))]


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _address(name: str, fs: Any, path: str) -> str:
    """Return what opens a file that was found at a path of the file system of `name`."""
    if "file" in _protocols(fs):
        return path
    links = name.split("::")
    if len(links) > 1 and not isinstance(
        fs, ArrowFSWrapper
    ):  # the path is that of the first link that has one
        at = next((at for at, link in enumerate(links) if "://" in link), len(links) - 1)
        scheme = "".join(links[at].partition("://")[:2]) if "://" in links[at] else ""
        return "::".join([*links[:at], f"{scheme}{path}", *links[at + 1 :]])
    if not isinstance(fs, ArrowFSWrapper):
        return str(fs.unstrip_protocol(path))
    location, query = parts(name)
    scheme, _, bucket_path = location.partition("://")
    user = bucket_path.partition("/")[0].rpartition("@")
    return f"{scheme}://{user[0]}{user[1]}{path}{query}"


def _what_is_there(name: str) -> str:
    if not name:
        return ""
    fs, path = filesystem(name)
    if "http" in _protocols(fs):
        return ""
    root, pattern = _split(fs, path)
    if "file" not in _protocols(fs):
        folder = not pattern and _exists(fs, root) and fs.info(root)["type"] == "directory"
        return f"a folder without tars; name those below it as {_below(name)}" if folder else ""
    missing = root
    while not os.path.isdir(root):
        root, missing = os.path.dirname(root), root
    absent = f"there is no {missing}; " if missing != root and pattern else ""
    return absent + _contents(root, named=missing == root and not pattern)


def _below(name: str) -> str:
    location, query = parts(name)
    return f"{location.rstrip('/')}/**/*.tar{query}"


def _contents(folder: str, named: bool) -> str:
    try:
        with os.scandir(folder) as entries:
            folders, files = list[str](), list[str]()
            for entry in (entry for entry in entries if not entry.name.startswith(".")):
                (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        return f"{folder} cannot be listed: {error.strerror}"
    if tars := sorted(file for file in files if _TAR.search(file)):
        return f"{folder} has {_counted(tars, 'tar')}"
    found = [_counted(sorted(files), "file")] * bool(files) + [_counted(sorted(folders), "folder")] * bool(
        folders
    )
    holds = f"{folder} has no tar, but {' and '.join(found)}" if found else f"{folder} is empty"
    if any(file.endswith(".parquet") for file in files):
        holds += f"; name Parquet files with images as {folder}/*.parquet"
    return f"{holds}; name those below it as {_below(folder)}" if folders or named else holds


def _counted(names: list[str], what: str) -> str:
    shown = ", ".join(names[:_MOST_NAMED]) + ", .." * (len(names) > _MOST_NAMED)
    return f"{len(names):,} {what}{'s' * (len(names) > 1)} ({shown})"
