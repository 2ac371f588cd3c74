"""Decode images into uint8 crops, or reject them. No other module decodes images.

The crop box is drawn after reading only the header. Pillow then decodes a JPEG at the smallest of its built-in scales
that gives the crop enough pixels (`Image.draft`). Torch resizes: its bicubic filter for uint8 is faster than Pillow's,
and the pixels differ by 0.02 of 255 on average. A crop of 224 pixels from a COCO photograph takes 2.9 ms on one core,
against 5.6 ms with a full decode and Pillow's resize. Pixels stay uint8 until they are on the training device.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 64_000_000
"""Larger images are rejected before decoding. 8,000 x 8,000 takes 256 MB of memory; corpus photographs are smaller."""
MIN_SIDE = 8
"""Images with a shorter side are rejected. They are tracking pixels and ruled lines, which no caption describes."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Accepted formats, whatever the member's suffix. Pillow has many more, and passes some to other programs (EPS)."""
_ORIENTATION = 0x0112
_STORED: dict[int, tuple[bool, bool, bool]] = {
    2: (False, True, False), 3: (False, True, True), 4: (False, False, True), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip
"""How to turn an image upright, by EXIF orientation: exchange x and y, mirror x, mirror y. Mirroring comes first."""

_Box = tuple[int, int, int, int]


class ImageError(ValueError):
    """An image that cannot be used for training; the message says why."""


def image_digest(image: bytes) -> int:
    """Return an unsigned 63-bit digest of an encoded image. Byte-identical copies have equal digests."""
    return int.from_bytes(hashlib.blake2b(image, digest_size=8).digest()) >> 1


def open_image(image: bytes) -> Image.Image:
    """Open an image and read only its header. `size` is the stored size, before the image is turned upright.

    Raises ImageError for bytes in none of the accepted formats, for animations, for TIFFs of measurements (32-bit
    values instead of colors), and for images above MAX_PIXELS or below MIN_SIDE.
    """
    with _image_errors():
        picture = Image.open(io.BytesIO(image), formats=_FORMATS)
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"{width} x {height} pixels, more than {MAX_PIXELS}")
        if min(width, height) < MIN_SIDE:
            raise ImageError(f"{width} x {height} pixels, less than {MIN_SIDE} on a side")
        # Phones write JPEGs of several images (MPO): the first is the photograph, others hold its depth or light.
        frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
        if frames > 1:
            raise ImageError(f"{frames} frames: it is unknown which one the caption describes")
        if picture.format == "TIFF" and picture.mode in ("I", "F"):
            raise ImageError(
                f"TIFF of measurements (mode {picture.mode}): it is unknown which value is white"
            )
    return picture


def random_crop(image: bytes, size: int, scale: tuple[float, float], rng: random.Random) -> NDArray[Any]:
    """Return a random resized crop of the upright image, uint8 [3, size, size].

    The crop's share of the area is drawn from `scale`, as in torchvision's RandomResizedCrop; (1, 1) gives the center
    square. There is no flip, because a flip would make "left of" false. Raises ImageError as `open_image` does, and for
    truncated images.
    """
    if scale == (1.0, 1.0):
        return centre_crop(image, size)
    return _crop(open_image(image), size, lambda width, height: _drawn(width, height, scale, rng))


def centre_crop(image: bytes | Image.Image, size: int) -> NDArray[Any]:
    """Return the center square of the upright image, scaled to uint8 [3, size, size] as in CLIP's evaluation.

    An image that is already open is not modified. Raises ImageError as `random_crop` does.
    """
    if isinstance(image, bytes):
        return _crop(open_image(image), size, _centred)
    with _image_errors():
        copy = image.copy()
    return _crop(copy, size, _centred)


def thumbnail(image: bytes, side: int) -> Image.Image:
    """Return the upright image as RGB, no side longer than `side` pixels. Raises ImageError as `random_crop` does."""
    picture = open_image(image)
    exchanged, mirrored_x, mirrored_y = _STORED.get(_orientation(picture), (False, False, False))
    with _image_errors():
        picture.draft("RGB", (side, side))
        thumb = _rgb(picture)
        thumb.thumbnail((side, side))
    for is_needed, transpose in (
        (mirrored_x, Image.Transpose.FLIP_LEFT_RIGHT),
        (mirrored_y, Image.Transpose.FLIP_TOP_BOTTOM),
        (exchanged, Image.Transpose.TRANSPOSE),
    ):
        thumb = thumb.transpose(transpose) if is_needed else thumb
    return thumb


def _drawn(width: int, height: int, scale: tuple[float, float], rng: random.Random) -> _Box:
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = 2 ** rng.uniform(math.log2(3 / 4), math.log2(4 / 3))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            break
    else:  # none of 10 crops fits: take the largest within the ratios, as torchvision does
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    return left, top, left + w, top + h


def _centred(width: int, height: int) -> _Box:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _crop(picture: Image.Image, size: int, choose: Callable[[int, int], _Box]) -> NDArray[Any]:
    """Return the crop, uint8 [3, size, size]. `choose` maps width and height of the upright image to a box."""
    width, height = picture.size
    exchanged, mirrored_x, mirrored_y = _STORED.get(_orientation(picture), (False, False, False))
    left, top, right, bottom = choose(height, width) if exchanged else choose(width, height)
    if exchanged:
        left, top, right, bottom = top, left, bottom, right
    if mirrored_x:
        left, right = width - right, width - left
    if mirrored_y:
        top, bottom = height - bottom, height - top
    shorter = min(right - left, bottom - top)
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or shorter >= s * size)
    with _image_errors():
        if not picture.draft("RGB", (width // scale, height // scale)):
            scale = 1  # not a JPEG, so decoded at full size
        left, top, right, bottom = (round(edge / scale) for edge in (left, top, right, bottom))
        pixels = _resized(_rgb(picture.crop((left, top, right, bottom))), size)
    if mirrored_x:
        pixels = pixels[:, :, ::-1]
    if mirrored_y:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(0, 2, 1) if exchanged else pixels)


def _orientation(picture: Image.Image) -> int:
    if "exif" not in picture.info:
        return 1
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # a parser of untrusted bytes may raise anything; the image itself may be sound
        return 1


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    if picture.mode.startswith("I;16"):  # convert() would clip 16-bit values to 255, which is white
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:  # the color stored in a transparent pixel is arbitrary, mostly black
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture.convert("RGBA"))
        return ground.convert("RGB")
    return picture.convert("RGB")


def _resized(picture: Image.Image, size: int) -> NDArray[Any]:
    """Return an RGB image resized with antialiasing, as uint8 [3, size, size]."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
    crop: NDArray[Any] = scaled[0].numpy()
    return crop


@contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"more than {MAX_PIXELS} pixels: {error}") from None
    except UnidentifiedImageError:  # its message contains a memory address
        formats = ", ".join(_FORMATS)
        raise ImageError(f"not a readable image: none of {formats}, or broken at its start") from None
    except Exception as error:  # decoders raise many types: OSError, SyntaxError, struct.error
        raise ImageError(f"not a readable image: {error or type(error).__name__}") from None
