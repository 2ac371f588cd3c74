"""Write and read a sample's annotation: one shard member with the scene graph and negatives of each caption.

`KEY.graph.json.gz` is gzipped JSON Lines. The first line holds the stamp: the version of the parser and of the
negatives. Each further line is the record of one caption, so the encoder decodes only the caption that it needs.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from typing import Any

from sclip.data.names import ANNOTATION_SUFFIX
from sclip.data.shards import Sample
from sclip.data.tar import MAX_ANNOTATION_BYTES
from sclip.negatives import Negative, draw
from sclip.scenegraph import SceneGraph

MAX_BYTES = 16 * 1024 * 1024
"""Maximum size of the member in bytes when decompressed. Five COCO captions take 16 kB (2 kB compressed)."""

_FORMAT = 1
_GZIP = 16 + zlib.MAX_WBITS


class AnnotationError(ValueError):
    """An annotation that cannot be used; the message says why."""


def dumps(value: dict[str, Any]) -> bytes:
    """Return a value as one line of JSON for a shard. Equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def write_record(graph: SceneGraph, negatives: Sequence[Negative]) -> bytes:
    """Return the record of a caption: its graph and its negatives."""
    return dumps({"graph": graph.to_json(), "negatives": [negative.to_json() for negative in negatives]})


def read_record(record: bytes, caption: str) -> tuple[SceneGraph, list[Negative]]:
    """Return a caption's graph and negatives. Raises AnnotationError if the record is broken or of another caption."""
    try:
        value = json.loads(record)
        graph = SceneGraph.from_json(value["graph"])
        negatives = [Negative.from_json(entry) for entry in value["negatives"]]
        graphs = [graph, *(negative.graph for negative in negatives)]
        words = [word for g in graphs for triple in g.triples() for word in triple]
        words += [text for negative in negatives for text in (negative.caption, negative.kind)]
        if len({(len(g.attributes), len(g.relations)) for g in graphs}) > 1:
            raise ValueError("a negative has more or fewer triples than its caption")
        "".join(words).encode()  # raises for a value that is not text or not valid Unicode
        draw(negatives, seed=0, epoch=0, identity="")  # raises for an invalid strangeness
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise AnnotationError(f"annotation is not readable: {error}") from error
    if graph.caption != caption:
        raise AnnotationError("annotation belongs to another caption (data.caption_field)")
    return graph, negatives


def pack(stamp: str, records: Sequence[bytes]) -> bytes:
    """Return the member with the records of a sample's captions. Raises AnnotationError if it is too large."""
    content = b"\n".join([dumps({"format": _FORMAT, "stamp": stamp}), *records])
    member = gzip.compress(content, compresslevel=6, mtime=0)
    if len(content) > MAX_BYTES or len(member) > MAX_ANNOTATION_BYTES:
        raise AnnotationError(f"annotation of {len(content)} bytes, more than {MAX_BYTES}")
    return member


def unpack(member: bytes) -> tuple[str, list[bytes]]:
    """Return the stamp and the records of a member. Raises AnnotationError if it is malformed or too large."""
    try:
        stream = zlib.decompressobj(_GZIP)
        content = stream.decompress(member, MAX_BYTES + 1)  # no more, even from a decompression bomb
        head, *records = content.split(b"\n")
        fields = json.loads(head)
        format_, stamp = fields["format"], fields["stamp"]
    except (zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AnnotationError(f"annotation is not readable: {error}") from error
    if format_ != _FORMAT or not isinstance(stamp, str):
        raise AnnotationError(f"annotation has format {format_!r}, not {_FORMAT}")
    if not stream.eof or len(content) > MAX_BYTES:
        raise AnnotationError(f"annotation is cut off, or has more than {MAX_BYTES} bytes")
    return stamp, records


def read(sample: Sample) -> tuple[str, list[bytes]]:
    """Return the stamp of a sample's annotation and the records of its captions, in order.

    Raises AnnotationError if the annotation is missing or unreadable, or does not have one record per caption.
    """
    if ANNOTATION_SUFFIX not in sample.members:
        raise AnnotationError("not annotated")
    stamp, records = unpack(sample.members[ANNOTATION_SUFFIX])
    if len(records) != len(sample.captions):
        raise AnnotationError(
            f"annotation has {len(records)} captions, the sample {len(sample.captions)} (data.caption_field)"
        )
    return stamp, records


def read_stamped(sample: Sample, stamp: str) -> list[bytes]:
    """Return the records as `read` does. Also raises AnnotationError if the annotation has another stamp."""
    made_under, records = read(sample)
    if made_under != stamp:
        raise AnnotationError(f"annotated under {made_under}, not {stamp}")
    return records


def passing(sample: Sample, records: Sequence[bytes], least: tuple[int, int, int]) -> list[int]:
    """Return the indices of the captions whose graphs have the minimum numbers of objects, attributes and relations.

    Raises AnnotationError if a record is malformed or belongs to another caption.
    """
    if not any(least):
        return list(range(len(records)))
    indices = []
    for index, (caption, record) in enumerate(zip(sample.captions, records, strict=True)):
        try:
            graph = json.loads(record)["graph"]
            sizes = len(graph["objects"]), len(graph["attributes"]), len(graph["relations"])
            is_same_caption = graph["caption"] == caption
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise AnnotationError(f"annotation is not readable: {error}") from error
        if not is_same_caption:
            raise AnnotationError("annotation belongs to another caption (data.caption_field)")
        if all(size >= minimum for size, minimum in zip(sizes, least, strict=True)):
            indices.append(index)
    return indices
