"""Find the shards that match the patterns in `data.shards`."""

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
    """Return the shards that match paths or URIs (with `*`, `?`, `[..]`, `{000..012}`), sorted and each once.

    Local paths become absolute; URIs keep the pattern's credentials and query. A folder stands for the tars in it; its
    Parquet files need `FOLDER/*.parquet`. Raises ShardError if a pattern matches nothing or cannot be looked up, and
    ConfigError if `::` joins several patterns ("a.tar::b.tar").
    """
    urls: set[str] = set()
    for pattern in patterns:
        if len(sources := joined_sources(pattern)) > 1:
            listed = json.dumps([mask(source) for source in sources], ensure_ascii=False)
            raise ConfigError(f"{mask(pattern)}: '::' does not join sources; name them in a list: {listed}")
        try:
            names = list(braceexpand.braceexpand(pattern))
        except ValueError as error:
            raise ShardError(f"{mask(pattern)}: cannot be looked up: {mask(str(error), pattern)}") from None
        with shard_errors():
            matches = list(concurrently(matching_files, names))
        for name, shards in zip(names, matches, strict=True):
            if not shards:
                origin = "" if name == pattern else f" (of {mask(pattern)})"
                with shard_errors():
                    hint = mask(what_is_there(name)) or "name existing tars, for example DIR/*.tar"
                raise ShardError(f"{mask(name)}{origin}: no such shard; {hint}")
            urls.update(shards)
    return sorted(urls, key=lambda url: (mask(url), url))  # new credentials must not change a shard's number


def find_shards(patterns: Sequence[str], first: int = 0) -> list[NamedShard]:
    """Return the named shards that match the patterns, sorted by name. A shard belongs to its first matching pattern.

    `first` is the index of the first pattern in data.shards. Raises ShardError as `expand` does, and if two shards
    would have the same name.
    """
    names: dict[str, str] = {}
    for number, pattern in enumerate(patterns, start=first):
        for url in expand([pattern]):
            names.setdefault(url, f"{number}/{path_below(pattern, url)}")
    name, count = max(Counter(names.values()).items(), key=lambda pair: pair[1], default=("", 0))
    if count > 1:
        raise ShardError(
            f"{mask(patterns[int(name.partition('/')[0]) - first])}: several shards have the name {name}, because "
            "names leave out credentials and query; give each shard a path of its own"
        )
    return sorted(NamedShard(name, url) for url, name in names.items())


def path_below(pattern: str, url: str) -> str:
    """Return a shard's path below the fixed folder of its pattern: for `/a/*/0.tar` and `/a/b/0.tar`, `b/0.tar`.

    The fixed folder consists of the pattern's leading folders without wildcards and braces. It is no part of the
    shard's name, so moving that folder does not rename the shard.
    """
    path = _components(url)
    return "/".join(path[_depth(_components(pattern), path) :])


def would_name(patterns: Sequence[str], shards: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether the patterns would match a new path. `shards` are the existing matches."""
    known = {tuple(_components(shard)) for shard in shards}
    names = (_components(name) for pattern in patterns for name in braceexpand.braceexpand(pattern))
    # a pattern that is itself a shard matches nothing else
    wide = [name for name in names if tuple(name) not in known]
    return lambda url: any(_fits(name, _components(url)) for name in wide)


def _fits(name: list[str], path: list[str]) -> bool:
    depth = _depth(name, path)
    below = "/".join(path[depth:])
    if len(name) == depth:  # a folder
        return "/" not in below
    return re.match(glob_translate("/".join(name[depth:])), below) is not None


def _depth(pattern: list[str], path: list[str]) -> int:
    """Return how many leading folders a path shares with a pattern before the pattern's first wildcard."""
    depth = 0
    for wanted, folder in zip(pattern, path[:-1], strict=False):
        if wanted != folder or "*" in wanted or "?" in wanted:
            break
        depth += 1
    return depth


def _components(uri: str) -> list[str]:
    """Split a URI (bucket or host first, no credentials) or an absolute local path into its components."""
    scheme, separator, rest = parts(uri)[0].partition("://")
    if separator and scheme != "file":
        authority, slash, key = rest.partition("/")
        path = authority.rpartition("@")[2] + slash + key
    else:
        path = os.path.abspath(os.path.expanduser(rest or scheme))
    return [part for part in path.split("/") if part]
