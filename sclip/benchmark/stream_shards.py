"""Make the shards on which the stream is measured: photographs with captions, plain and annotated.

Photographs and captions come from the user or are generated. A generated picture has 640 x 480 pixels and a JPEG as
large as a photograph's. Few generated captions repeat, because a cache would make a parser look faster.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sclip.benchmark.captions import CaptionsError, generated, read
from sclip.benchmark.rounds import BenchmarkError
from sclip.data.images import ImageError, open_image
from sclip.prepare.actor_pool import ActorPool
from sclip.prepare.annotate import annotate
from sclip.prepare.pack import RawSample, write_shards

__all__ = ["Shards", "make", "numbered", "photograph"]

WIDTH, HEIGHT, QUALITY = 640, 480, 85
CAPTIONS = 5  # of each image, as in COCO
_DISTINCT = 64
"""Number of different generated photographs. Samples share them, because decoding a repeated one is not faster."""


@dataclass(frozen=True)
class Shards:
    """The same samples in plain and in annotated shards."""

    plain: tuple[str, ...]
    annotated: tuple[str, ...]
    counts: tuple[int, ...]
    source: str

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(self.counts)


def photograph(seed: int) -> bytes:
    """Return a JPEG of soft shapes under fine noise. It has 60 to 90 kB, like a photograph of this size."""
    random = np.random.default_rng(seed)
    picture = np.zeros((HEIGHT, WIDTH, 3))
    for cells, height in ((3, 60.0), (12, 30.0), (60, 12.0)):
        field = random.normal(128, height, (cells, cells * 4 // 3, 3)).clip(0, 255).astype(np.uint8)
        soft = Image.fromarray(field).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        picture += np.asarray(soft, np.float64) - 128
    picture += random.normal(128, 6, (HEIGHT, WIDTH, 1))
    file = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def numbered(image: bytes, number: int) -> bytes:
    """Return a JPEG with a number as its comment, so that equal pictures count as different images."""
    return image[:2] + b"\xff\xfe\x00\x0a" + f"{number:08d}".encode() + image[2:]


def make(
    folder: Path,
    samples: int,
    per_shard: int,
    photographs: Path | None,
    captions: Path | None,
    connect: Callable[[], float],
) -> Shards:
    """Write and annotate the shards; `connect` connects to a cluster. Raises BenchmarkError for unreadable files."""
    images = _images(photographs)
    wanted = samples * CAPTIONS
    try:
        texts = read(captions) if captions else generated(wanted)
    except (CaptionsError, OSError) as error:
        raise BenchmarkError(str(error)) from error

    def sample(number: int) -> RawSample:
        own = tuple(texts[(number * CAPTIONS + k) % len(texts)] for k in range(CAPTIONS))
        return RawSample(f"{number:08d}", numbered(images[number % len(images)], number), own)

    plain, annotated = folder / "plain", folder / "annotated"
    write_shards(map(sample, range(samples)), plain, samples_per_shard=per_shard)
    urls = sorted(str(path) for path in plain.glob("*.tar"))
    annotate(urls, annotated, connect, ActorPool(), on_shard=lambda _: None)
    kilobytes = sum(map(len, images)) / len(images) / 1000
    source = f"{samples:,} of {photographs or 'generated photographs'}, {kilobytes:.0f} kB each, "
    return Shards(
        tuple(urls),
        tuple(str(annotated / Path(url).name) for url in urls),
        tuple(min(per_shard, samples - start) for start in range(0, samples, per_shard)),
        source + f"{min(len(texts), wanted):,} captions, {captions or 'generated'}",
    )


def _images(folder: Path | None) -> Sequence[bytes]:
    if folder is None:
        return [photograph(seed) for seed in range(_DISTINCT)]
    images = []
    for path in sorted(folder.rglob("*.jp*g")) if folder.is_dir() else ():
        try:
            open_image(path.read_bytes())
        except ImageError as error:
            raise BenchmarkError(f"--photographs {path}: {error}") from error
        images.append(path.read_bytes())
    if not images:
        raise BenchmarkError(f"--photographs {folder}: no .jpg or .jpeg in it")
    return images
