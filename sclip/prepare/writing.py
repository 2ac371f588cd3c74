"""Write a tar or a small file atomically: under a hidden temporary name, with a rename when it is complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webdataset.writer import TarWriter


class PackError(Exception):
    """Error in reading a source or writing shards; the message is one line with the place, fault and remedy."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Index entry of one tar."""

    name: str
    samples: int
    bytes: int
    sha256: str


def refuse_sources(sources: Iterable[str], out: Path) -> None:
    """Raise PackError if a source lies in the folder `out`, where it might be overwritten."""
    for source in sources:
        if "://" not in source and Path(source).resolve().parent == out.resolve():
            raise PackError(f"{out}: holds the source {source}; choose another folder")


def write_tar(path: Path, samples: Iterable[dict[str, Any]]) -> Shard | None:
    """Atomically write samples (dicts for TarWriter) to a tar; return its index entry, or None without samples."""
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
    """Atomically write a small file."""
    temporary = _temporary(path)
    temporary.write_bytes(content)
    temporary.replace(path)


def _temporary(path: Path) -> Path:
    """Return a unique hidden name, because processes of a killed job may still be writing the same file."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
