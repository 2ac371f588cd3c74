"""Select the samples and captions of annotated shards that pass a filter; `sclip.prepare.pack` then writes them.

A run over the source shards with the same data.min_objects, data.min_attributes and data.min_relations trains on the
same captions. The captions keep their annotation, so they have the same negatives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sclip.config import DataConfig
from sclip.data import annotation
from sclip.data.annotation import AnnotationError
from sclip.data.shards import Rejected, read_shard
from sclip.prepare.pack import RawSample, Skips
from sclip.storage.masking import mask


@dataclass
class Kept:
    """Counts of samples and captions that pass the filter, out of `samples_of` and `captions_of` that were checked."""

    samples: int = 0
    samples_of: int = 0
    captions: int = 0
    captions_of: int = 0


def passing_samples(
    shards: Sequence[str], least: tuple[int, int, int], data: DataConfig, kept: Kept, skips: Skips
) -> Iterator[RawSample]:
    """Yield the samples with only the captions that have at least `least` (objects, attributes, relations).

    Counts samples and captions in `kept`, and unusable samples in `skips`. Raises ShardError if the storage fails.
    """
    stamp = ""
    fields = ["captions", "caption", *data.caption_fields]
    for shard in shards:
        for item in read_shard(shard, data):
            place = f"{mask(shard)} key {item.key!r}"
            if isinstance(item, Rejected):
                skips.add(item.reason, place)
                continue
            try:
                stamp = stamp or annotation.read(item)[0]  # of the first sample: a subset has one stamp
                records = annotation.read_stamped(item, stamp)
                passing = annotation.passing(item, records, least)
            except AnnotationError as error:
                skips.add(str(error), place)
                continue
            kept.samples_of += 1
            kept.captions_of += len(item.captions)
            if not passing:
                continue
            kept.samples += 1
            kept.captions += len(passing)
            record = json.loads(item.members.get("json", b"{}"))
            yield RawSample(
                item.key.replace(".", "_"), item.image,  # `sclip.prepare.pack` takes no dots
                captions=tuple(item.captions[index] for index in passing),
                extra={name: value for name, value in record.items() if name not in fields},
                annotation=annotation.pack(stamp, [records[index] for index in passing]),
            )  # fmt: skip
