"""A picture of a benchmark: where it is in, its bytes or its crop out.

Benchmarks name pictures, and only the encoder opens them: one that several benchmarks show is read and encoded once.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from sclip.config import DataConfig
from sclip.data.images import ImageError, thumbnail
from sclip.data.shards import Sample, read_shard
from sclip.evaluate.exclusion import Exclusions

__all__ = ["BenchmarkDataError", "Picture", "contents", "excluded", "missing", "thumbnails"]

SIDE = 256
"""Pixels of the longer side of a picture in a report."""
_QUALITY = 80
_DEFAULTS = DataConfig()


class BenchmarkDataError(ValueError):
    """A benchmark that cannot be used; one line with the place, what is wrong and the remedy."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture file, a crop of one, or the image of a sample in a tar shard."""

    path: str
    """The file; or path or URI of the shard."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom of the crop in pixels."""
    sample: int | None = None
    """Place of the sample in the shard, from 0; None for a file."""
    data: DataConfig = _DEFAULTS
    """Of a sample: how the shard is read, which decides what a sample is."""

    @property
    def image(self) -> str:
        """What crops of one picture have in common: they are drawn together for an interval."""
        return self.path if self.sample is None else f"{self.path}#{self.data.image_field}{self.sample}"


def missing(pictures: Iterable[Picture]) -> list[Picture]:
    """Return those whose file is not there, in their order, each once."""
    pictures = list(dict.fromkeys(pictures))
    files = {path: Path(path).is_file() for path in {p.path for p in pictures if p.sample is None}}
    return [p for p in pictures if p.sample is None and not files[p.path]]


def excluded(pictures: Iterable[Picture], exclusions: Exclusions) -> dict[str, str]:
    """Return by `Picture.image` why those that the lists name, or that look like one of theirs, are excluded.

    The whole picture is looked at, also where a benchmark shows a crop of it.
    """
    whole = {picture.image: replace(picture, box=None) for picture in pictures}
    found = {}
    for picture, content in contents(whole.values()):
        image = None if isinstance(content, ImageError) else content
        name = picture.path if picture.sample is None else ""
        if reason := exclusions.match(name, image):
            found[picture.image] = reason
    return found


def contents(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, bytes | Image.Image | ImageError]]:
    """Yield each picture with its encoded bytes, its crop, or why it cannot be had; those of a shard last.

    A shard is read once for all of its pictures. Raises ShardError where one cannot be reached.
    """
    of_shards: dict[tuple[str, DataConfig], dict[int, Picture]] = {}
    for picture in pictures:
        if picture.sample is None:
            yield picture, _file(picture)
        else:
            of_shards.setdefault((picture.path, picture.data), {})[picture.sample] = picture
    for (shard, data), wanted in of_shards.items():
        for sample in read_shard(shard, data):
            if sample.index in wanted:
                image = sample.image if isinstance(sample, Sample) else ImageError(sample.reason)
                yield wanted.pop(sample.index), image
                if not wanted:
                    break
        yield from ((p, ImageError("the shard no longer has it")) for p in wanted.values())


def _file(picture: Picture) -> bytes | Image.Image | ImageError:
    try:
        if picture.box is None:
            return Path(picture.path).read_bytes()
        with Image.open(picture.path) as image:
            return image.convert("RGB").crop(picture.box)
    except Exception as error:  # PIL raises what its many decoders raise
        return ImageError(str(error) or type(error).__name__)


def thumbnails(pictures: Iterable[Picture]) -> dict[Picture, bytes]:
    """Return JPEGs of no more than 256 pixels a side; those that cannot be read are left out."""
    found = {}
    for picture, content in contents(dict.fromkeys(pictures)):
        try:
            if isinstance(content, bytes):
                content = thumbnail(content, SIDE)
            if isinstance(content, Image.Image):
                content.thumbnail((SIDE, SIDE))
                found[picture] = encoded(content)
        except ImageError:
            continue
    return found


def encoded(image: Image.Image) -> bytes:
    """Return a picture as JPEG."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
