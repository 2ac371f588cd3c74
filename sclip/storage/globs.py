"""List the files that match a path or URI with `*`, `?` and `[..]`, on disk and in object stores.

A wildcard matches only tars and files without an extension, because other files beside shards often describe them
(`index.json`), and `0.tar.1` is wget's second copy of `0.tar`. `*.parquet` matches files with this extension too. A
name without a wildcard matches the file of this name, or all tars in the folder of this name.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable
from typing import Any

from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from sclip.storage.filesystem import filesystem, open_stream, parts
from sclip.storage.retries import retry

_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|zstd|lzma|lz4|z))?|t[gbx]z2?|tzst)$", re.IGNORECASE)
_EXTENSION = re.compile(r"\.[A-Za-z]\w*$")  # the number in part.00017 is no extension
_NUMBERED = re.compile(r"(\.[A-Za-z]\w*)\.[\d?\[][^.]*$")
"""End of names such as x.tar.1, and of patterns for them, such as x.tar.?."""
_MOST_NAMED = 4
_HTTP = ("http://", "https://")


def matching_files(name: str) -> list[str]:
    """Return the files that match a path or URI; empty if there is none.

    Local paths become absolute; URIs keep the credentials and query of `name`. Raises StorageError as `retry` does.
    """
    return retry(name, lambda: _matching_files(name))


def what_is_there(name: str) -> str:
    """Describe the nearest existing folder above a name that matched no file, for an error message; or return ""."""
    return retry(name, lambda: _what_is_there(name))


def files_below(folder: str, pattern: str = "**/*") -> list[str]:
    """Return the local files below a folder that match a pattern, as in a shell, also in linked folders.

    Raises OSError if a folder cannot be listed.
    """
    components = pattern.split("/") + ["*"] * pattern.endswith("**")
    files, seen, last = list[str](), set[tuple[int, int, int]](), len(components) - 1
    pending = deque([(folder, 0)])
    while pending:
        path, index = pending.popleft()
        status = os.stat(path)
        if (state := (status.st_dev, status.st_ino, index)) in seen:  # links may form a circle
            continue
        seen.add(state)
        component, deep = components[index], components[index] == "**"
        # `*` matches no hidden files.
        fits = re.compile(r"(?!\.)" * (component[:1] != ".") + glob_translate(component)).match
        if deep:
            pending.appendleft((path, index + 1))
        with os.scandir(path) as entries:
            fitting = sorted((entry for entry in entries if fits(entry.name)), key=lambda entry: entry.name)
        for entry in fitting:
            link = entry.is_symlink()
            if entry.is_dir():
                if deep or index < last:  # visit links last: a folder's path has no links if possible
                    (pending.append if link else pending.appendleft)((entry.path, index + (not deep)))
            elif index == last and (link or entry.is_file()):  # the reader reports broken links
                files.append(entry.path)
    return sorted(files)


def _matching_files(name: str) -> list[str]:
    if not name:
        return []
    fs, path = filesystem(name)
    try:
        if name.startswith(_HTTP):
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
    return _shards((file for file, info in entries if info["type"] == "file"), location)


def _split(fs: Any, path: str) -> tuple[str, str]:
    """Split a path before its first component with a wildcard. `[..]` is literal if a file or folder has that name."""
    if isinstance(fs, LocalFileSystem):
        path = os.path.normpath(path)  # so that two paths of one shard count as one shard
    components = re.sub("/{2,}", "/", path).split("/")
    for index, component in enumerate(components):
        literal = "/".join(components[: index + 1])
        if "*" in component or "?" in component or ("[" in component and not _exists(fs, literal)):
            root = "/".join(components[:index]) or "/" * (index > 0)
            return root, "/".join(components[index:])
    return "/".join(components).rstrip("/") or "/", ""


def _exists(fs: Any, path: str) -> bool:
    try:
        fs.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _globbed(fs: Any, root: str, pattern: str) -> list[str]:
    """Return the shards that match a pattern below the folder `root`. Brackets in the folder's name are literal."""
    if isinstance(fs, LocalFileSystem):
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
    """Keep files that can be shards: tars, and files with no extension or with the pattern's extension."""
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


def _address(name: str, fs: Any, path: str) -> str:
    """Return the path or URI of the file `path` in `fs`, with the scheme, credentials and query of `name`."""
    if isinstance(fs, LocalFileSystem):
        return path
    if isinstance(fs, ArrowFSWrapper):
        location, query = parts(name)
        scheme, _, bucket_path = location.partition("://")
        user, at_sign, _ = bucket_path.partition("/")[0].rpartition("@")
        return f"{scheme}://{user}{at_sign}{path}{query}"
    links = name.split("::")
    if len(links) == 1:
        return str(fs.unstrip_protocol(path))
    # In a chained URI, the path belongs to the first link with a path.
    first = next((n for n, link in enumerate(links) if "://" in link), len(links) - 1)
    scheme, separator, _ = links[first].rpartition("://")
    return "::".join([*links[:first], f"{scheme}{separator}{path}", *links[first + 1 :]])


def _what_is_there(name: str) -> str:
    if not name or name.startswith(_HTTP):
        return ""
    fs, path = filesystem(name)
    root, pattern = _split(fs, path)
    if not isinstance(fs, LocalFileSystem):  # too many files to list them
        is_folder = not pattern and _exists(fs, root) and fs.info(root)["type"] == "directory"
        return f"a folder without tars; name tars in its subfolders as {_below(name)}" if is_folder else ""
    folder = root
    while not os.path.isdir(folder):
        folder, missing = os.path.dirname(folder), folder
    absent = f"there is no {missing}; " if folder != root and pattern else ""
    return absent + _contents(folder, is_named=folder == root and not pattern)


def _below(name: str) -> str:
    location, query = parts(name)
    return f"{location.rstrip('/')}/**/*.tar{query}"


def _contents(folder: str, is_named: bool) -> str:
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        return f"{folder} cannot be listed: {error.strerror}"
    files: list[str] = []
    folders: list[str] = []
    for name in names:
        (folders if os.path.isdir(f"{folder}/{name}") else files).append(name)
    if tars := [file for file in files if _TAR.search(file)]:
        return f"{folder} has {_counted(tars, 'tar')}"
    counts = [_counted(group, noun) for group, noun in ((files, "file"), (folders, "folder")) if group]
    text = f"{folder} has no tar, but {' and '.join(counts)}" if counts else f"{folder} is empty"
    if any(file.endswith(".parquet") for file in files):
        text += f"; name Parquet files with images as {folder}/*.parquet"
    return f"{text}; name tars in its subfolders as {_below(folder)}" if folders or is_named else text


def _counted(names: list[str], noun: str) -> str:
    shown = ", ".join(names[:_MOST_NAMED]) + ", .." * (len(names) > _MOST_NAMED)
    return f"{len(names):,} {noun}{'s' * (len(names) > 1)} ({shown})"
