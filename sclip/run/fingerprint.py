"""The shards of a run in, the fingerprint of the dataset out: a digest, a name, and the figures to know.

Packed shards are known by the checksums in their `index.json`, wherever they lie; others by where they lie and how
many samples they have, since reading all of their bytes would cost more than it tells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sclip.data.schedule import NamedShard
from sclip.storage.filesystem import parts, sibling
from sclip.storage.masking import mask
from sclip.storage.retries import StorageError, concurrently, read_bytes

__all__ = ["DatasetFingerprint", "fingerprint"]

INDEX = "index.json"


@dataclass(frozen=True)
class DatasetFingerprint:
    """What tells the data of a run from other data."""

    name: str
    """The folder of the first shard and the one above."""
    digest: str
    """32 hexadecimal digits."""
    profile: dict[str, Any]
    """samples, shards, packed (shards with a checksum), and parser: the version of what read the captions."""


def fingerprint(sources: Sequence[Mapping[NamedShard, int]], parser: str) -> DatasetFingerprint:
    """Return the fingerprint of the data of a run.

    Args:
        sources: the samples of each shard of each source.
        parser: stamp of the annotations, or the version of the parser.
    """
    shards = {shard.url: samples for of_source in sources for shard, samples in of_source.items()}
    indexes = sorted({sibling(url, INDEX) for url in shards})
    checksums = dict(zip(indexes, concurrently(_checksums, indexes), strict=True))
    found = {url: checksums[sibling(url, INDEX)].get(_name(url), "") for url in shards}
    lines = [found[url] or f"{mask(url)} {samples}" for url, samples in shards.items()]
    return DatasetFingerprint(
        # Masked while it still is a URI: of its parts alone nobody sees that one is a password.
        "/".join(parts(mask(next(iter(shards))))[0].split("/")[-3:-1]),
        hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:32],
        {
            "samples": sum(shards.values()),
            "shards": len(shards),
            "packed": sum(map(bool, found.values())),
            "parser": parser,
        },
    )


def _name(url: str) -> str:
    return parts(url)[0].rpartition("/")[2]


def _checksums(url: str) -> dict[str, str]:
    """Return the checksums in an index by the names of the shards; none where it is missing, or another program's."""
    try:
        return {str(entry["name"]): str(entry["sha256"]) for entry in json.loads(read_bytes(url))["shards"]}
    except (StorageError, ValueError, LookupError, TypeError, RecursionError):
        return {}
