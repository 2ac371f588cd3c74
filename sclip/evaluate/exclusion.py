"""Look up samples in lists of pictures that training must not see, such as the test pictures of benchmarks.

Many training sets contain such pictures, some of them renamed. A list is a JSON Lines file. Each line identifies one
picture by `key`, `phash` or both: {"source": "coco-test", "key": "000000391895", "phash": "c3a1d0e4b2964f3c"}.

The perceptual hash (`imagehash.phash`, 64 bits) finds a picture under any name. Copies of 159 photographs of COCO
that were compressed (quality 30 to 50), resized (down to 96 pixels), made square or made grey were all found. Of
cropped copies, 99 % were found if each side lost 1 %, 90 % at 2 %, and 13 % at 5 %.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
"""Maximum number of hash bits in which two pictures may differ and still count as the same. Compressed, resized,
squared and grey copies differ by at most 2 bits; of 12,561 pairs of different photographs, the nearest by 14."""

_SIDE = 256
_FLAT = 8
"""Minimum range of a picture's grey values (0 to 255). The hash of a plainer picture does not identify it."""
_COCO = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})")
_SUFFIX = re.compile(rf"\.({'|'.join(IMAGE_SUFFIXES)})$", re.IGNORECASE)
_FEW_DIGITS = re.compile(r"\d{1,5}")


class ExclusionError(ValueError):
    """Error for a file that is no exclusion list. The message is one line with the place and the mistake."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One picture to exclude."""

    source: str
    """Data set that the picture belongs to."""
    key: str = ""
    """Name of the picture, as `name_of` returns it; empty if only the hash is known."""
    phash: str = ""
    """Perceptual hash, 16 hexadecimal digits; empty if only the name is known."""


def name_of(key: str) -> str:
    """Return the picture name in a key or path: the last part without suffix, with dots as underscores.

    COCO's names become numbers: "val2014/COCO_val2014_000000391895.jpg" and "train2017/000000391895" both become
    "000000391895". Numbers of up to five digits become "", because many data sets have a "1.jpg".
    """
    stem = _SUFFIX.sub("", re.split(r"[/\\]", key)[-1]).replace(
        ".", "_"
    )  # dots become underscores, as in the keys of `sclip.prepare`
    coco = _COCO.fullmatch(stem)
    return coco[1] if coco else "" if _FEW_DIGITS.fullmatch(stem) else stem


def phash(image: bytes | Image.Image) -> str:
    """Return the perceptual hash of a picture as 16 hexadecimal digits. "" means that the picture is a plain surface.

    A PIL image must be upright already; bytes are turned upright. Raises ImageError for bytes that are not a picture.
    """
    picture = thumbnail(image, _SIDE) if isinstance(image, bytes) else image
    grey = np.asarray(picture.convert("L").resize((32, 32)))
    return str(imagehash.phash(picture)) if np.ptp(grey) >= _FLAT else ""


class Exclusions:
    """Exclusion lists, indexed for look-up. The object can be pickled."""

    def __init__(self, entries: Sequence[Exclusion]) -> None:
        self._sources = [entry.source for entry in entries]
        self._names: dict[str, int] = {}
        for index, entry in enumerate(entries):
            if entry.key:
                self._names.setdefault(entry.key, index)
        hashed = [index for index, entry in enumerate(entries) if entry.phash]
        self._hashed: NDArray[np.int64] = np.array(hashed, dtype=np.int64)
        self._hashes: NDArray[np.uint64] = np.array(
            [int(entries[index].phash, 16) for index in hashed], dtype=np.uint64
        )

    def __len__(self) -> int:
        return len(self._sources)

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Exclusions:
        """Read the lists in these files as one list. Raises ExclusionError naming file and line."""
        return cls([entry for path in paths for entry in _read(path)])

    def match(self, key: str, image: bytes | Image.Image | None = None) -> str | None:
        """Return the reason to exclude a picture, such as "excluded: named like a picture of coco-test", or None.

        `key` is the key of a sample, or the path or name of a file. If `image` is unreadable, only names are compared.
        """
        index = self._names.get(name_of(key))
        if index is not None:
            return f"excluded: named like a picture of {self._sources[index]}"
        if image is None or not len(self._hashes):
            return None
        try:
            picture_hash = phash(image)
        except ImageError:
            return None
        index = self._nearest(picture_hash) if picture_hash else None
        return None if index is None else f"excluded: looks like a picture of {self._sources[index]}"

    def _nearest(self, picture_hash: str) -> int | None:
        # 0.2 ms for 100,000 entries
        bits = np.bitwise_count(self._hashes ^ np.uint64(int(picture_hash, 16)))
        nearest = int(bits.argmin())
        return int(self._hashed[nearest]) if bits[nearest] <= MOST_BITS else None


def _read(path: Path) -> list[Exclusion]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExclusionError(f"{path}: cannot be read: {error}") from error
    return [
        _entry(f"{path} line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()
    ]


def _entry(location: str, line: str) -> Exclusion:
    try:
        tree: Any = json.loads(line)
        entry = Exclusion(**{name: str(value) for name, value in tree.items()})
        entry = replace(entry, key=name_of(entry.key))  # a list written by hand may hold paths
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ExclusionError(
            f'{location}: must be {{"source": .., "key": .., "phash": ..}}: {error}'
        ) from error
    if entry.phash and not re.fullmatch("[0-9a-f]{16}", entry.phash):
        raise ExclusionError(f"{location}: phash {entry.phash!r} is not 16 hexadecimal digits")
    if not entry.key and not entry.phash:
        raise ExclusionError(
            f"{location}: names no picture: give a key that is more than a number of up to five digits, a phash or both"
        )
    return entry
