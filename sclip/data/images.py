"""JPEG bytes in, a uint8 crop out: the only place where a picture is decoded.

Pixels stay uint8 until they are on the training device; a JPEG is decoded at the smallest of its built-in
scales that still covers the crop (`Image.draft`), which skips most of the work for photographs.
"""

from __future__ import annotations

import io
import math
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before decoding: 8,000 x 8,000 is 192 MB, and no photograph of a corpus."""


class ImageError(ValueError):
    """Bytes that are no picture we train on; the message says why."""


def open_image(image: bytes, size: int) -> Image.Image:
    """Return an RGB picture, decoded no larger than it takes to cut `size` pixels out of it.

    Raises ImageError for bytes that PIL cannot read, for truncated files and for pictures over MAX_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(image)) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ImageError(f"{width} x {height} pixels, more than {MAX_PIXELS}")
            picture.draft("RGB", (size, size))
            if picture.mode.startswith("I;16"):  # convert() clips 16 bits to 8, which makes them white
                return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
            return picture.convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # PIL raises what its many decoders raise: OSError, SyntaxError, struct.error
        raise ImageError(f"not a readable image: {error or type(error).__name__}") from None


def random_crop(image: bytes, size: int, scale: tuple[float, float], rng: random.Random) -> NDArray[Any]:
    """Return a random resized crop, uint8 [3, size, size] (method, 5).

    The crop keeps a share of the area drawn from `scale` and an aspect ratio drawn from 3/4 .. 4/3 (log
    uniform), as torchvision's RandomResizedCrop does; there is no flip, which would make "left of" false. A scale of
    (1, 1) gives the centre square of `centre_crop`.
    """
    if scale == (1.0, 1.0):
        return centre_crop(image, size)
    # Large enough for the narrow side of the smallest crop.
    picture = open_image(image, math.ceil(size / (0.75 * scale[0]) ** 0.5))
    width, height = picture.size
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = 2 ** rng.uniform(np.log2(3 / 4), np.log2(4 / 3))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            break
    else:  # no such crop fits: the largest one within the ratios, as torchvision does
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    return _pixels(picture, size, (left, top, left + w, top + h))


def centre_crop(image: bytes, size: int) -> NDArray[Any]:
    """Return the centre square of a picture scaled to uint8 [3, size, size], as CLIP evaluates."""
    picture = open_image(image, size)
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return _pixels(picture, size, (left, top, left + side, top + side))


def _pixels(picture: Image.Image, size: int, box: tuple[float, float, float, float]) -> NDArray[Any]:
    scaled = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))
