"""Locate a picture of a benchmark, and read its bytes or its crop.

Benchmarks only name pictures, and the encoder opens them. So a picture that several benchmarks use is encoded once.
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
"""Maximum side of a picture in a report, in pixels."""
_QUALITY = 80
_DEFAULTS = DataConfig()


class BenchmarkDataError(ValueError):
    """Error for an unusable benchmark. The message is one line with the place, the mistake and the remedy."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture file, a crop of one, or the image of a sample in a shard."""

    path: str
    """Path of the file, or path or URI of the shard."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom of the crop in pixels."""
    sample: int | None = None
    """Index of the sample in the shard, from 0; None for a file."""
    data: DataConfig = _DEFAULTS
    """Settings for reading the shard. Unused for a file."""

    @property
    def image(self) -> str:
        """Identifier of the whole image, the same for all of its crops."""
        return self.path if self.sample is None else f"{self.path}#{self.data.image_field}{self.sample}"


def missing(pictures: Iterable[Picture]) -> list[Picture]:
    """Return the distinct pictures whose file does not exist, in their order. Shards are not checked."""
    pictures = list(dict.fromkeys(pictures))
    files = {path: Path(path).is_file() for path in {p.path for p in pictures if p.sample is None}}
    return [p for p in pictures if p.sample is None and not files[p.path]]


def excluded(pictures: Iterable[Picture], exclusions: Exclusions) -> dict[str, str]:
    """Return {`Picture.image`: reason} for pictures that the lists name, or that look like a listed one.

    Pictures in shards are compared only by their looks, and crops by the looks of the whole picture.
    """
    whole = {picture.image: replace(picture, box=None) for picture in pictures}
    reasons = {}
    for picture, content in contents(whole.values()):
        image = None if isinstance(content, ImageError) else content
        name = picture.path if picture.sample is None else ""
        if reason := exclusions.match(name, image):
            reasons[picture.image] = reason
    return reasons


def contents(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, bytes | Image.Image | ImageError]]:
    """Yield each picture with its encoded bytes, its decoded crop, or the error if it cannot be read.

    Yields the files first, then each shard's pictures in the shard's order. Raises ShardError for an unreachable shard.
    """
    by_shard: dict[tuple[str, DataConfig], dict[int, Picture]] = {}
    for picture in pictures:
        if picture.sample is None:
            yield picture, _file(picture)
        else:
            by_shard.setdefault((picture.path, picture.data), {})[picture.sample] = picture
    for (shard, data), wanted in by_shard.items():
        for sample in read_shard(shard, data):
            if sample.index in wanted:
                image = sample.image if isinstance(sample, Sample) else ImageError(sample.reason)
                yield wanted.pop(sample.index), image
                if not wanted:
                    break
        yield from ((p, ImageError("the shard no longer holds this sample")) for p in wanted.values())


def _file(picture: Picture) -> bytes | Image.Image | ImageError:
    try:
        if picture.box is None:
            return Path(picture.path).read_bytes()
        with Image.open(picture.path) as image:
            return image.convert("RGB").crop(picture.box)
    except Exception as error:  # PIL's many decoders raise errors of any type
        return ImageError(str(error) or type(error).__name__)


def thumbnails(pictures: Iterable[Picture]) -> dict[Picture, bytes]:
    """Return JPEGs with sides of at most 256 pixels; unreadable pictures are left out."""
    jpegs = {}
    for picture, content in contents(dict.fromkeys(pictures)):
        try:
            if isinstance(content, bytes):
                content = thumbnail(content, SIDE)
            if isinstance(content, Image.Image):
                content.thumbnail((SIDE, SIDE))
                jpegs[picture] = encoded(content)
        except ImageError:
            continue
    return jpegs


def encoded(image: Image.Image) -> bytes:
    """Return a picture as JPEG."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
