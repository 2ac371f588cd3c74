"""Patterns of `data.shards` in, the shards that they name out."""

from __future__ import annotations

from collections.abc import Sequence

import braceexpand

from sclip.data.shards import ShardError, shard_errors
from sclip.storage.globs import matching_files
from sclip.storage.masking import mask
from sclip.storage.retries import concurrently

__all__ = ["expand"]


def expand(patterns: Sequence[str]) -> list[str]:
    """Return the shards that paths or URIs with `*`, `?`, `[..]` and `{000..012}` name, sorted, each once.

    Local paths come back absolute, URIs with the credentials and the query that the pattern has; their order does not
    depend on those, so that a shard keeps its number where they are changed.

    Raises ShardError naming the pattern that matches nothing or cannot be looked up.
    """
    found: set[str] = set()
    for pattern in patterns:
        try:
            names = list(braceexpand.braceexpand(pattern))
        except ValueError as error:
            raise ShardError(f"{mask(pattern)}: cannot be looked up: {mask(str(error), pattern)}") from None
        with shard_errors():
            matches = list(concurrently(matching_files, names))
        for name, shards in zip(names, matches, strict=True):
            if not shards:
                of = "" if name == pattern else f" (of {mask(pattern)})"
                raise ShardError(
                    f"{mask(name)}{of}: no such shard; name existing tars, for example DIR/*.tar"
                )
            found.update(shards)
    return sorted(found, key=lambda url: (mask(url), url))
