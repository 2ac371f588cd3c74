"""Find the number of samples of each shard: read the recorded counts, and check them against the shards.

Some evenly spread shards are counted and compared with their records. If one differs, every shard is counted. Counting
reads only the headers of an uncompressed local tar, and only the footer of a Parquet file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from sclip.config import DataConfig
from sclip.data.parquet import ParquetError, is_parquet, opened
from sclip.data.patterns import would_name
from sclip.data.shards import shard_errors
from sclip.data.sniff import not_a_tar
from sclip.data.tar import Group, groups
from sclip.storage.compression import Peeked, decompressed
from sclip.storage.filesystem import parts, sibling
from sclip.storage.retries import StorageError, concurrently, read_bytes, resumed, retry

INDEX = "index.json"
_CHECKED, _CHECKED_REMOTE = 64, 16
"""Maximum number of local shards, and of remote ones, for which the recorded count is checked."""
_CHECKED_SAMPLES = 100_000
"""Approximate limit for the samples in all checked shards together: reading one tar header takes some 50 us."""


class Record(NamedTuple):
    """Recorded sample count of a shard, and the name of the file that records it."""

    file: str
    samples: int


@dataclass(frozen=True)
class Counts:
    """Sample counts of shards."""

    samples: dict[str, int]
    """Number of samples by shard URL: the counted number if the shard was counted, else the recorded one."""
    records: dict[str, Record] = field(default_factory=dict)
    """Recorded counts by shard URL. Shards without a record are left out."""
    broken: dict[str, str] = field(default_factory=dict)
    """Why a counted shard cannot be read to its end, by shard URL."""
    counted: frozenset[str] = frozenset()

    def wrong(self) -> list[str]:
        """Return the shards with a recorded count that differs from the counted one."""
        return [
            url
            for url in self.records
            if url in self.counted and self.records[url].samples != self.samples[url]
        ]

    def expected(self, url: str) -> int:
        """Return the number of samples that a reader should find in a shard; -1 means unknown."""
        # sclip writes index.json with the tars: a tar with fewer samples has lost some. Other records may be wrong.
        record = self.records.get(url)
        if record and (url not in self.counted or url in self.broken or record.file == INDEX):
            return record.samples
        return -1 if url in self.broken else self.samples[url]


_DEFAULTS = DataConfig()


def count_samples(
    urls: Sequence[str], data: DataConfig = _DEFAULTS, recorded: Mapping[str, Record] | None = None
) -> Counts:
    """Return the number of samples of each shard. Raises ShardError for a shard that cannot be reached.

    `recorded` is a result of `recorded_samples` for these shards; by default, the function calls it.
    """
    recorded = recorded_samples(urls) if recorded is None else recorded
    records = {url: recorded[url] for url in urls if url in recorded}
    counted: dict[str, tuple[int, str]] = {}

    def count(some: Iterable[str]) -> None:
        uncounted = [url for url in some if url not in counted]
        with shard_errors():
            counted.update(zip(uncounted, concurrently(partial(_count, data), uncounted), strict=True))

    count(url for url in urls if url not in records)
    local = [url for url in urls if url in records and "://" not in url]
    remote = [url for url in urls if url in records and "://" in url]
    limit = max(
        8, _CHECKED_SAMPLES * len(records) // max(1, sum(record.samples for record in records.values()))
    )
    checked = [*_spread(local, min(limit, _CHECKED)), *_spread(remote, min(limit, _CHECKED_REMOTE))]
    count(checked)
    if any(counted[url][0] != records[url].samples for url in checked):
        count(urls)
    return Counts(
        {url: counted[url][0] if url in counted else records[url].samples for url in urls}, records,
        {url: why for url, (_, why) in counted.items() if why}, frozenset(counted),
    )  # fmt: skip


def recorded_samples(urls: Sequence[str], patterns: Sequence[str] = ()) -> dict[str, Record]:
    """Return the sample counts that files next to the shards record. Shards without a record are left out.

    These files are `index.json` (`sclip.prepare.pack`) and `SHARD_stats.json` (img2dataset). Shards whose file is lost
    are included if a wildcard or a folder in `patterns` would match them.
    """
    urls = [url for url in urls if not is_parquet(url)]  # img2dataset counts only their rows with an image
    indexes = sorted({sibling(url, INDEX) for url in urls})
    indexed = dict(zip(indexes, concurrently(_indexed, indexes), strict=True))
    records = {url: indexed[sibling(url, INDEX)].get(_name(url)) for url in urls}
    unindexed = [url for url in urls if records[url] is None]
    records.update(zip(unindexed, concurrently(_successes, unindexed), strict=True))
    absent = _absent(urls, patterns, indexed) if patterns else {}
    return {url: record for url, record in records.items() if record is not None} | absent


def _absent(
    urls: Sequence[str], patterns: Sequence[str], indexed: Mapping[str, Mapping[str, Record]]
) -> dict[str, Record]:
    """Return the records of shards that do not exist but would match `patterns`."""
    stems: dict[str, set[str]] = {}
    for url in urls:  # 0.tar.zst may be recorded as 0.tar; its stats file is 0_stats.json
        stems.setdefault(sibling(url, INDEX), set()).update(
            _name(url).partition(separator)[0] for separator in (".", ".tar")
        )
    is_named, absent = would_name(patterns, urls), dict[str, Record]()
    for index, present in stems.items():
        records = dict(indexed[index])
        if "://" not in index:
            for path in sorted(Path(index).parent.glob("*_stats.json")):
                stem = path.name.removesuffix("_stats.json")
                if stem not in present and (record := _successes(sibling(index, f"{stem}.tar"))):
                    records.setdefault(f"{stem}.tar", record)
        for name, record in records.items():
            url = sibling(index, name)
            if record.samples and name.partition(".tar")[0] not in present and is_named(url):
                absent[url] = record
    return absent


def _spread(urls: Sequence[str], most: int) -> list[str]:
    if len(urls) <= most:
        return list(urls)
    return [urls[index * (len(urls) - 1) // (most - 1)] for index in range(most)]


def _name(url: str) -> str:
    return parts(url)[0].rpartition("/")[2]


def _indexed(url: str) -> dict[str, Record]:
    index = _json(url)
    try:
        return {
            str(shard["name"]): Record(INDEX, shard["samples"])
            for shard in index["shards"]
            if _is_count(shard["samples"])
        }
    except (LookupError, TypeError):
        return {}


def _successes(url: str) -> Record | None:
    """Return the number of successful downloads that img2dataset recorded for a shard; None without a record."""
    name = f"{_name(url).partition('.')[0]}_stats.json"
    samples = _json(sibling(url, name)).get("successes")
    return Record(name, samples) if _is_count(samples) else None


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _count(data: DataConfig, url: str) -> tuple[int, str]:
    """Return the number of sample groups or rows, and why the shard cannot be read to its end ("" if it can)."""
    if is_parquet(url):
        try:
            with opened(url) as file:
                return int(file.metadata.num_rows), ""
        except ParquetError as error:
            return 0, str(error)
    if "://" not in url and (counted := retry(url, lambda: _count_sought(data, url))):
        return counted
    return _tallied(resumed(url, lambda stream: groups(stream, data, bodies=False)))


def _count_sought(data: DataConfig, path: str) -> tuple[int, str] | None:
    """Count an uncompressed local tar by seeking from header to header. Return None for other files."""
    with open(path, "rb") as file:
        head = Peeked(file)
        if decompressed(head) is not head or not_a_tar(head.head) is not None:
            return None
        file.seek(0)
        return _tallied(groups(file, data, bodies=False))


def _tallied(members: Iterable[Group]) -> tuple[int, str]:
    """Return the number of groups, and why the tar breaks off after the last one ("" if it is complete)."""
    count, cut = 0, ""
    for group in members:
        count, cut = count + bool(group.key), group.cut  # no key: the tar breaks off at its start
    return count, cut


def _json(url: str) -> dict[str, Any]:
    try:
        value = json.loads(read_bytes(url))
    except (StorageError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
