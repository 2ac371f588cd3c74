"""Patterns of `data.shards` in, the shards that they name out."""

from __future__ import annotations

import json
from collections.abc import Sequence

import braceexpand

from sclip.config.checks import ConfigError, joined_sources
from sclip.data.shards import ShardError, shard_errors
from sclip.storage.globs import matching_files, what_is_there
from sclip.storage.masking import mask
from sclip.storage.retries import concurrently

__all__ = ["expand"]


def expand(patterns: Sequence[str]) -> list[str]:
    """Return the shards that paths or URIs with `*`, `?`, `[..]` and `{000..012}` name, sorted, each once.

    Local paths come back absolute, URIs with the credentials and the query that the pattern has; their order does not
    depend on those, so that a shard keeps its number where they are changed.

    A folder stands for the tars in it. Raises ShardError naming the pattern that matches nothing or cannot be looked
    up, ConfigError for several that `::` joins.
    """
    found: set[str] = set()
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
            found.update(shards)
    return sorted(found, key=lambda url: (mask(url), url))
