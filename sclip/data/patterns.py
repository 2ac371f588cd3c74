"""Find the shards that the patterns of `data.shards` name."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import braceexpand
from fsspec.utils import glob_translate

from sclip.config.checks import ConfigError, joined_sources
from sclip.data.schedule import NamedShard
from sclip.data.shards import ShardError, shard_errors
from sclip.storage.filesystem import parts
from sclip.storage.globs import matching_files, what_is_there
from sclip.storage.masking import mask
from sclip.storage.retries import concurrently


def expand(patterns: Sequence[str]) -> list[str]:
    """Return the shards that paths or URIs with `*`, `?`, `[..]` and `{000..012}` name, sorted, each once.

    Local paths come back absolute, URIs with the credentials and the query that the pattern has; their order does not
    depend on those, so that a shard keeps its number where they are changed.

    A folder stands for the tars in it, and Parquet files are named by `*.parquet`. Raises ShardError naming the pattern
    that matches nothing or cannot be looked up, ConfigError for several that `::` joins.
    """
    urls: set[str] = set()
    for pattern in patterns:
        if len(sources := joined_sources(pattern)) > 1:
            listed = json.dumps([mask(source) for source in sources], ensure_ascii=False)
            raise ConfigError(
                f"{mask(pattern)}: '::' joins no sources; name each by itself, as in a list: {listed}"
            )
        try:
            names = list(braceexpand.braceexpand(pattern))
        except ValueError as error:
            raise ShardError(f"{mask(pattern)}: cannot be looked up: {mask(str(error), pattern)}") from None
        with shard_errors():
            matches = list(concurrently(matching_files, names))
        for name, shards in zip(names, matches, strict=True):
            if not shards:
                of = "" if name == pattern else f" (of {mask(pattern)})"
                with shard_errors():
                    there = mask(what_is_there(name)) or "name existing tars, for example DIR/*.tar"
                raise ShardError(f"{mask(name)}{of}: no such shard; {there}")
            urls.update(shards)
    return sorted(urls, key=lambda url: (mask(url), url))


def find_shards(patterns: Sequence[str], first: int = 0) -> list[NamedShard]:
    """Return the shards that patterns name, sorted by their names, each once: under the first pattern that finds it.

    Args:
        patterns: as of `expand`.
        first: number of the first pattern in data.shards.

    Raises ShardError as `expand`, and where two shards would have one name.
    """
    names: dict[str, str] = {}
    for number, pattern in enumerate(patterns, start=first):
        for url in expand([pattern]):
            names.setdefault(url, f"{number}/{path_below(pattern, url)}")
    name, count = max(Counter(names.values()).items(), key=lambda of: of[1], default=("", 0))
    if count > 1:
        raise ShardError(
            f"{mask(patterns[int(name.partition('/')[0]) - first])}: several shards are {name} without credentials and "
            "query, by which samples are known; name each by a path of its own"
        )
    return sorted(NamedShard(name, url) for url, name in names.items())


def path_below(pattern: str, url: str) -> str:
    """Return the path of a shard below its pattern's fixed folder, which may move without changing the shard's name.

    The fixed folder ends before the first wildcard or brace. Of a pattern that names one file it is the file's own
    folder, of one that names a folder that folder. Brackets that stand in the folder's own name are no wildcard.
    """
    path = _components(url)
    return "/".join(path[_depth(_components(pattern), path) :])


def would_name(patterns: Sequence[str], shards: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate: whether the patterns that named these shards would name another path too.

    Wildcards and folders would; the name of a single file, and names in braces, would not.
    """
    there = {tuple(_components(shard)) for shard in shards}
    names = (_components(name) for pattern in patterns for name in braceexpand.braceexpand(pattern))
    wide = [name for name in names if tuple(name) not in there]
    return lambda url: any(_fits(name, _components(url)) for name in wide)


def _fits(name: list[str], path: list[str]) -> bool:
    depth = _depth(name, path)
    below = "/".join(path[depth:])
    if len(name) == depth:  # a folder
        return "/" not in below
    return re.match(glob_translate("/".join(name[depth:])), below) is not None


def _depth(pattern: list[str], path: list[str]) -> int:
    """Return how many folders a path has in common with a pattern before its first wildcard."""
    depth = 0
    for wanted, folder in zip(pattern, path[:-1], strict=False):
        if wanted != folder or "*" in wanted or "?" in wanted:
            break
        depth += 1
    return depth


def _components(uri: str) -> list[str]:
    """Return bucket or host and folders of a URI, or the folders of an absolute local path, without credentials."""
    scheme, separator, rest = parts(uri)[0].partition("://")
    if separator and scheme != "file":
        place, slash, key = rest.partition("/")
        path = place.rpartition("@")[2] + slash + key
    else:
        path = os.path.abspath(os.path.expanduser(rest or scheme))
    return [part for part in path.split("/") if part]
