"""Write a tar or a small file atomically: it is there whole or not at all.

Both are written under a hidden temporary name and renamed when they are complete.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webdataset.writer import TarWriter


class PackError(Exception):
    """Nothing can be packed; one line with the place, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar in the index."""

    name: str
    samples: int
    bytes: int
    sha256: str


def refuse_sources(sources: Iterable[str], out: Path) -> None:
    """Raise PackError where a source lies in `out`, where it would be replaced."""
    for source in sources:
        if "://" not in source and Path(source).resolve().parent == out.resolve():
            raise PackError(f"{out}: holds the source {source}; choose another folder")


def write_tar(path: Path, samples: Iterable[dict[str, Any]]) -> Shard | None:
    """Write samples, as webdataset's TarWriter takes them, to a tar that is there whole or not at all.

    Returns its entry in the index; None, and no tar, where there is no sample.
    """
    temporary = _temporary(path)
    count = 0
    try:
        with temporary.open("wb") as file:
            with TarWriter(file, encoder=False, mtime=0, user="", group="") as tar:
                for sample in samples:
                    tar.write(sample)
                    count += 1
            file.flush()
            os.fsync(file.fileno())
        if not count:
            return None
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = temporary.stat().st_size
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Shard(path.name, count, size, digest)


def write_file(path: Path, content: bytes) -> None:
    """Write a small file that is there whole or not at all."""
    temporary = _temporary(path)
    temporary.write_bytes(content)
    temporary.replace(path)


def _temporary(path: Path) -> Path:
    """Return a hidden name of its own: what a killed job has left running may still write for the same path."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
