"""Tars, Parquet files and captions as people bring them, made in small: the inputs of `support.brought`."""

from __future__ import annotations

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

from support.pictures import encoded, noise
from support.tars import Member, tar_bytes


def image(number: int, format: str = "JPEG") -> bytes:
    return encoded(noise(16, 16, number), format)


def pairs(
    count: int, first: int = 0, name: str = "{:06d}", suffixes: tuple[str, str] = ("jpg", "txt")
) -> list[Member]:
    """Return samples of one image and one caption each, neighbours."""
    return [
        member
        for at in range(first, first + count)
        for member in (
            (f"{name.format(at)}.{suffixes[0]}", image(at)),
            (f"{name.format(at)}.{suffixes[1]}", f"a dog and {at + 2} cats".encode()),
        )
    ]


def good(count: int, samples: int = 4) -> dict[str, bytes | str]:
    return {f"{shard}.tar": tar_bytes(pairs(samples, samples * shard)) for shard in range(count)}


def captioned(*captions: bytes | str) -> dict[str, bytes | str]:
    texts = [text if isinstance(text, bytes) else text.encode() for text in captions]
    return {
        "0.tar": tar_bytes(
            [m for at, text in enumerate(texts) for m in ((f"{at}.jpg", image(at)), (f"{at}.txt", text))]
        )
    }


def linked(*members: Member | tuple[str, str]) -> bytes:
    """Return a tar in which a member that has a name in place of a body is a hard link to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, body in members:
            info = tarfile.TarInfo(name)
            if isinstance(body, str):
                info.type, info.linkname = tarfile.LNKTYPE, body
                tar.addfile(info)
            else:
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def parquet(**columns: object) -> bytes:
    """Return a Parquet file of these columns."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))
