"""Pictures as bytes, for the tests of images, shards and rows."""

from __future__ import annotations

import io
import random
import zlib
from typing import Any

from PIL import Image


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(width * height * 3))


def picture(colour: Any = "red", size: tuple[int, int] = (80, 60), format: str = "PNG") -> bytes:
    return encoded(Image.new("RGB", size, colour), format)


def speckled(seed: int) -> bytes:
    """Return a coarse random picture; the towers can tell different seeds apart."""
    return encoded(noise(8, 8, seed).resize((72, 64)))


def animated(format: str, side: int = 64, frames: int = 3) -> bytes:
    first, *rest = (noise(side, side, seed) for seed in range(frames))
    return encoded(first, format, save_all=True, append_images=rest)


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def huge(side: int) -> bytes:
    """Return a PNG whose header says `side` x `side`. It lacks the pixels, which only decoding reveals."""
    image = bytearray(encoded(Image.new("L", (1, 1))))
    image[16:24] = side.to_bytes(4) * 2
    image[29:33] = zlib.crc32(bytes(image[12:29])).to_bytes(4)
    return bytes(image)


def swelling(kind: str, size: int, side: int = 64) -> bytes:
    """Return a PNG in which a compressed text ("zTXt", "iTXt") or color profile ("iCCP") expands to `size` bytes."""
    head = {"zTXt": b"Comment\0\0", "iTXt": b"Comment\0\1\0\0\0", "iCCP": b"profile\0\0"}[kind]
    compressor = zlib.compressobj(9)
    parts = [compressor.compress(bytes(2**20)) for _ in range(size // 2**20)]
    image = encoded(noise(side, side))
    body = head + b"".join(parts) + compressor.flush()
    return image[:33] + chunk(kind.encode(), body) + image[33:]
