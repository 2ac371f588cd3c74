"""Small tars for the tests of reading."""

import io
import tarfile
from collections.abc import Iterable

Member = tuple[str, bytes]


def tar_bytes(members: Iterable[Member], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, body in members:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def pair(key: str, caption: str = "a dog") -> list[Member]:
    return [(f"{key}.jpg", b"image of " + key.encode()), (f"{key}.txt", caption.encode())]
