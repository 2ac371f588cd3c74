"""Names with `*`, `?` and `[..]` in, the files that they name out, here and in object stores."""

from __future__ import annotations

import os
from typing import Any

from fsspec.implementations.arrow import ArrowFSWrapper

from sclip.storage.filesystem import filesystem, open_stream, parts
from sclip.storage.retries import retry

__all__ = ["matching_files"]


def matching_files(name: str) -> list[str]:
    """Return the files that a path or URI names; none where there is none.

    Local paths come back absolute, URIs with the credentials and the query of `name`. Raises StorageError for a
    refusal too, where fsspec would say "none".
    """
    return retry(name, lambda: _matching_files(name))


def _matching_files(name: str) -> list[str]:
    fs, path = filesystem(name)
    http = "http" in fs.protocol
    location, query = parts(name)
    try:
        if any(magic in parts(path)[0] for magic in ("*[" if http else "*?[")):
            entries = fs.glob(path, detail=True, on_error="raise").items()
            paths = [found for found, info in entries if _is_file(found, info)]
        elif http:
            open_stream(name).close()
            return [name]
        else:
            paths = [path] if _is_file(path, fs.info(path)) else []
    except (FileNotFoundError, NotADirectoryError):
        return []
    if isinstance(fs, ArrowFSWrapper):
        scheme, _, bucket_path = location.partition("://")
        user = bucket_path.partition("/")[0].rpartition("@")
        return [f"{scheme}://{user[0]}{user[1]}{found}{query}" for found in paths]
    return paths if "file" in fs.protocol else [fs.unstrip_protocol(found) for found in paths]


def _is_file(path: str, info: dict[str, Any]) -> bool:
    """Tell whether an entry is a file; fsspec calls a local symbolic link, a file's too, "other".

    A link to a missing file is taken for one: a shard that was not brought is told by its name, and not left out.
    """
    return info["type"] == "file" or (bool(info.get("islink")) and not os.path.isdir(path))
