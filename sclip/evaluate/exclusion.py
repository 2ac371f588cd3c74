"""Lists of pictures that training must not see: benchmarks' test pictures in, a reason to leave a sample out.

Visual Genome, which ARO asks about, and COCO's test pictures lie in many a training set, under their own names or
under others. A list is a JSON Lines file; each line names one picture by `key`, by `phash`, or by both, and the
`source` that it is of: {"source": "coco-test", "key": "000000391895", "phash": "c3a1d0e4b2964f3c"}.

The perceptual hash (`imagehash.phash`, 64 bits of a cosine transform) finds a picture under any name. Measured on 159
photographs of COCO: JPEG or WebP at quality 30 to 50, other sizes down to 96 pixels, squares and grey are all within
2 bits; MOST_BITS finds them all, 99 % of the pictures that lost 1 % at each side, 90 % at 2 %, 13 % at 5 %. Of the
12,561 pairs of different photographs the nearest are 14 bits apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sclip.data.images import ImageError, thumbnail
from sclip.data.names import IMAGE_SUFFIXES

__all__ = ["Exclusion", "ExclusionError", "Exclusions", "name_of", "phash"]

MOST_BITS = 6
"""Two pictures whose hashes differ in no more bits are taken for one."""

_SIDE = 256
_FLAT = 8
"""Least difference of a grey picture's brightest and darkest part: the hash of a plain surface says nothing."""
_COCO = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})")
_SUFFIX = re.compile(rf"\.({'|'.join(IMAGE_SUFFIXES)})$", re.IGNORECASE)
_FEW_DIGITS = re.compile(r"\d{1,5}")


class ExclusionError(ValueError):
    """A file that is no exclusion list; one line with the place and what is wrong."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One picture of a list."""

    source: str
    """What the list was made from, told as the reason."""
    key: str = ""
    """Name of the picture, as `name_of` returns it; empty where only its likeness is known."""
    phash: str = ""
    """16 hexadecimal digits; empty where only its name is known."""


def name_of(key: str) -> str:
    """Return what names a picture in a key, path or file name: its last part without suffix, COCO's in one form.

    "val2014/COCO_val2014_000000391895.jpg" and "train2017/000000391895" are the same picture. A bare number of fewer
    than six digits names none, as any set has its "1.jpg", and "" is returned.
    """
    stem = _SUFFIX.sub("", re.split(r"[/\\]", key)[-1]).replace(
        ".", "_"
    )  # as `sclip.prepare.sources` makes keys
    coco = _COCO.fullmatch(stem)
    return coco[1] if coco else "" if _FEW_DIGITS.fullmatch(stem) else stem


def phash(image: bytes | Image.Image) -> str:
    """Return the perceptual hash of an upright picture as 16 hexadecimal digits, "" of a plain surface.

    Raises ImageError for bytes that are no picture.
    """
    picture = thumbnail(image, _SIDE) if isinstance(image, bytes) else image
    grey = np.asarray(picture.convert("L").resize((32, 32)))
    return str(imagehash.phash(picture)) if np.ptp(grey) >= _FLAT else ""


class Exclusions:
    """Lists to look pictures up in. Pickles with its data, so that every process can have one."""

    def __init__(self, entries: Sequence[Exclusion]) -> None:
        """Take the entries; of two of the same picture the first tells the reason."""
        self._sources = [entry.source for entry in entries]
        self._names: dict[str, int] = {}
        for at, entry in enumerate(entries):
            if entry.key:
                self._names.setdefault(entry.key, at)
        hashed = [at for at, entry in enumerate(entries) if entry.phash]
        self._hashed: NDArray[np.int64] = np.array(hashed, dtype=np.int64)
        self._hashes: NDArray[np.uint64] = np.array(
            [int(entries[at].phash, 16) for at in hashed], dtype=np.uint64
        )

    def __len__(self) -> int:
        return len(self._sources)

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Exclusions:
        """Return the lists of these files as one. Raises ExclusionError naming file and line."""
        return cls([entry for path in paths for entry in _read(path)])

    def match(self, key: str, image: bytes | Image.Image | None = None) -> str | None:
        """Return why a picture is excluded, or None; there are as many reasons as sources, twice.

        Args:
            key: key of a sample, or path or name of a file.
            image: the picture itself, encoded or decoded; bytes that are no picture have no likeness.
        """
        at = self._names.get(name_of(key))
        if at is not None:
            return f"excluded: named as a picture of {self._sources[at]}"
        if image is None or not len(self._hashes):
            return None
        try:
            found = phash(image)
        except ImageError:
            return None
        at = self._nearest(found) if found else None
        return None if at is None else f"excluded: looks like a picture of {self._sources[at]}"

    def _nearest(self, found: str) -> int | None:
        """Return the entry whose hash is nearest, if near enough: 0.2 ms among 100,000."""
        bits = np.bitwise_count(self._hashes ^ np.uint64(int(found, 16)))
        nearest = int(bits.argmin())
        return int(self._hashed[nearest]) if bits[nearest] <= MOST_BITS else None


def _read(path: Path) -> list[Exclusion]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExclusionError(f"{path}: cannot be read: {error}") from error
    return [_entry(f"{path} line {at}", line) for at, line in enumerate(lines, start=1) if line.strip()]


def _entry(place: str, line: str) -> Exclusion:
    try:
        tree: Any = json.loads(line)
        entry = Exclusion(**{name: str(value) for name, value in tree.items()})
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ExclusionError(f'{place}: is no {{"source": .., "key": .., "phash": ..}}: {error}') from error
    if entry.phash and not re.fullmatch("[0-9a-f]{16}", entry.phash):
        raise ExclusionError(f"{place}: phash {entry.phash!r} is not 16 hexadecimal digits")
    if not entry.key and not entry.phash:
        raise ExclusionError(f"{place}: names no picture; give a key, a phash or both")
    return entry
