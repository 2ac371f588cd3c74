"""How many samples each shard holds, from the cheapest source that says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from sclip.config import DataConfig
from sclip.data.shards import shard_errors
from sclip.data.tar import groups
from sclip.storage.filesystem import parts, sibling
from sclip.storage.retries import StorageError, concurrently, read_bytes, resumed

__all__ = ["count_samples"]


_DEFAULTS = DataConfig()


def count_samples(urls: Sequence[str], data: DataConfig = _DEFAULTS) -> dict[str, int]:
    """Return the number of samples of each shard, by the cheapest source that has it.

    That is `index.json` beside the shards (`sclip.prepare.pack`), else `SHARD_stats.json` (img2dataset), else
    the headers of the tar itself. Raises ShardError for a shard that cannot be reached.
    """
    indexes = sorted({sibling(url, "index.json") for url in urls})
    indexed = dict(zip(indexes, concurrently(_indexed, indexes), strict=True))
    counts = {url: indexed[sibling(url, "index.json")].get(_name(url)) for url in urls}
    # One source after the other: what stands beside a shard is many small requests, its headers are all of its bytes.
    for count in (_successes, partial(_count, data)):
        left = [url for url in urls if counts[url] is None]
        with shard_errors():
            counts.update(zip(left, concurrently(count, left), strict=True))
    return {url: count for url, count in counts.items() if count is not None}


def _name(url: str) -> str:
    return parts(url)[0].rpartition("/")[2]


def _indexed(url: str) -> dict[str, int]:
    """Return the samples of the shards in an index; none where it is missing, or another program's."""
    index = _json(url)
    try:
        return {entry["name"]: int(entry["samples"]) for entry in index["shards"]}
    except (LookupError, TypeError, ValueError):
        return {}


def _successes(url: str) -> int | None:
    """Return what img2dataset has counted of a shard; None where it has not."""
    found = _json(sibling(url, f"{_name(url).partition('.')[0]}_stats.json")).get("successes")
    return found if isinstance(found, int) else None


def _count(data: DataConfig, url: str) -> int:
    return sum(1 for _ in resumed(url, lambda stream: groups(stream, data, bodies=False)))


def _json(url: str) -> dict[str, Any]:
    """Return the JSON object at `url`; an empty one where there is none: the shard itself is then counted."""
    try:
        value = json.loads(read_bytes(url))
    except (StorageError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
