"""Read held-out shards, tars or Parquet files, as a retrieval task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sclip.config import DataConfig
from sclip.data.patterns import find_shards
from sclip.data.shards import Rejected, read_shard
from sclip.evaluate.benchmarks import About, BenchmarkDataError
from sclip.evaluate.picture import Picture
from sclip.evaluate.retrieval import Captioned, Retrieval
from sclip.storage.masking import mask

__all__ = ["read"]

_log = logging.getLogger(__name__)


def read(about: About, shards: Sequence[str], limit: int = 0, **reading: Any) -> Retrieval:
    """Return the retrieval task of the first `limit` usable samples of the shards; 0 means all.

    Unusable samples are logged. `reading` holds settings for reading shards, as `DataConfig.reading` returns them.
    Raises BenchmarkDataError if there is no usable sample, and ShardError if a shard cannot be reached.
    """
    images: dict[str, Captioned] = {}
    data = DataConfig(**reading)
    matches = find_shards(shards)
    for shard in matches:
        if limit and len(images) >= limit:
            break
        for sample in read_shard(shard.url, data):
            if isinstance(sample, Rejected):
                _log.warning(
                    "%s leaves out %s %s: %s", about.name, mask(shard.url), sample.key, sample.reason
                )
                continue
            picture = Picture(shard.url, sample=sample.index, data=data)
            name = shard.identity(sample.key)
            images[name] = Captioned(name, picture, sample.captions)
            if limit and len(images) >= limit:
                break
    if not images:
        raise BenchmarkDataError(
            f"{about.name}: no usable sample in {len(matches)} shards, the first is {mask(matches[0].url)}"
        )
    return Retrieval(about, list(images.values()), skips_unreadable=True)
