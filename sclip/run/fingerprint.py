"""Compute the fingerprint of a run's shards: a digest, a name and a few figures.

Checksums in `index.json` identify the shards that sclip packed, wherever they are stored. URL and sample count identify
other shards, since hashing all of their bytes would cost too much.
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
    """Identity of the data of a run."""

    name: str
    """Last two folder names in the path of the first shard."""
    digest: str
    """Digest of the shards: 32 hexadecimal digits."""
    profile: dict[str, Any]
    """Counts of `samples`, `shards` and `packed` (shards with a checksum), and the `parser` given to `fingerprint`."""


def fingerprint(sources: Sequence[Mapping[NamedShard, int]], parser: str) -> DatasetFingerprint:
    """Return the fingerprint of a run's data.

    `sources` has the sample count of each shard, one mapping for each source. `parser` is the stamp (parser versions)
    of the shards' annotations, or the version of the parser that the run uses.
    """
    shards = {shard.url: samples for source in sources for shard, samples in source.items()}
    indexes = sorted({sibling(url, INDEX) for url in shards})
    checksums = dict(zip(indexes, concurrently(_checksums, indexes), strict=True))
    digests = {url: checksums[sibling(url, INDEX)].get(_name(url), "") for url in shards}
    lines = [digests[url] or f"{mask(url)} {samples}" for url, samples in shards.items()]
    return DatasetFingerprint(
        # Mask the whole URI first: a part alone does not show whether it is a password.
        "/".join(parts(mask(next(iter(shards))))[0].split("/")[-3:-1]),
        hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:32],
        {
            "samples": sum(shards.values()),
            "shards": len(shards),
            "packed": sum(map(bool, digests.values())),
            "parser": parser,
        },
    )


def _name(url: str) -> str:
    return parts(url)[0].rpartition("/")[2]


def _checksums(url: str) -> dict[str, str]:
    """Return an index's checksums by shard name; empty if the index is missing or another program wrote it."""
    try:
        return {str(entry["name"]): str(entry["sha256"]) for entry in json.loads(read_bytes(url))["shards"]}
    except (StorageError, ValueError, LookupError, TypeError, RecursionError):
        return {}
