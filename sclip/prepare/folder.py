"""Read a folder of images with caption files of the same names into a `RawSample` per image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sclip.data.caption_text import caption_lines, clean_caption
from sclip.data.parquet import Fault
from sclip.prepare.cells import captions_of, is_image, key_of
from sclip.prepare.pack import RawSample, Skips
from sclip.prepare.rows import CAPTION_FIELDS
from sclip.storage.globs import files_below


def folder_samples(folder: Path, caption_field: str, skips: Skips) -> Iterator[RawSample]:
    """Yield one sample per image of a folder, sorted by path, with the captions of its .json or .txt file."""
    skips.unit = "images"
    files = sorted(path for path in map(Path, files_below(str(folder))) if path.is_file())
    images = [path for path in files if is_image(path.name)]
    for path in images:
        skips.rows += 1
        try:
            captions = _captions(path, (caption_field,) if caption_field else CAPTION_FIELDS)
        except Fault as fault:
            skips.add(str(fault), str(path))
            continue
        key = key_of(path.relative_to(folder))
        yield RawSample(key, path, tuple(captions), place=str(path))
    stems = {path.with_suffix("") for path in images}
    unpaired = [
        path for path in files if path.suffix in (".txt", ".json") and path.with_suffix("") not in stems
    ]
    if unpaired:
        skips.notes.append(
            f"{len(unpaired)} .txt or .json files without an image of the same name (first: {unpaired[0]})"
        )


def _captions(image: Path, fields: tuple[str, ...]) -> list[str]:
    text, record = image.with_suffix(".txt"), image.with_suffix(".json")
    name, value = "caption", None
    try:
        if record.is_file():
            content: Any = json.loads(record.read_text(encoding="utf-8-sig"))
            if not isinstance(content, dict):
                raise Fault(".json beside the image is not an object")
            name, value = next(((name, content[name]) for name in fields if content.get(name)), (name, None))
        if value is None and text.is_file():
            name, value = ".txt", [line for line in caption_lines(text.read_bytes()) if clean_caption(line)]
    except (ValueError, RecursionError):
        raise Fault("caption file is not UTF-8 text or a JSON object") from None
    except OSError as error:
        raise Fault(f"caption file cannot be read ({error.strerror})") from None
    if value is None and not record.is_file():
        raise Fault("no .txt or .json of the same name beside the image")
    return captions_of(name, value)
