"""Three images, their captions, and a function that reads the captions of each image from a source."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from PIL import Image

from sclip.prepare.pack import RawSample, Skips
from sclip.prepare.sources import read_source

NAMES = ("a.jpg", "b.jpg", "sub/a.jpg")
DOG, CAT, BIRD = ("a dog", 'a "brown" dog, running'), ("a cat",), ("a bird",)
PAIRS = {"a.jpg": DOG, "b.jpg": CAT, "sub/a.jpg": BIRD}


def image_bytes(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (60 * NAMES.index(name), 90, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


NAME_OF = {image_bytes(name): name for name in NAMES}


def folder_of_images(folder: Path) -> Path:
    """Write three images, two of which have the same file name; return their folder."""
    (folder / "sub").mkdir()
    for name in NAMES:
        (folder / name).write_bytes(image_bytes(name))
    return folder


def read(source: Path, **options: Any) -> tuple[dict[str, tuple[str, ...]], Skips]:
    """Return captions by image name (images are known by their bytes). Check that each row is used or skipped."""
    samples, skips = read_source(source, **options)
    used: list[RawSample] = list(samples)
    assert len({sample.key for sample in used}) == len(used)
    assert skips.sum(sum(sample.rows for sample in used))
    records = {
        NAME_OF[sample.image if isinstance(sample.image, bytes) else sample.image.read_bytes()]: sample
        for sample in used
    }
    assert len(records) == len(used)
    return {name: tuple(text.strip() for text in sample.captions) for name, sample in records.items()}, skips


def table(rows: list[list[str]], **form: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", **form).writerows(rows)
    return text.getvalue()


ROWS = [[name, caption] for name, captions in PAIRS.items() for caption in captions]
LISTS = [[name, list(captions)] for name, captions in PAIRS.items()]
