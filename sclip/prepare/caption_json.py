"""Read the rows of a JSON caption file: COCO's layout, Karpathy's splits, or a list of objects like BLIP's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sclip.prepare.rows import Row
from sclip.prepare.writing import PackError

_KNOWN = (
    "it needs images: id, file_name and annotations: image_id, caption; or Karpathy's images: filename, split, "
    "sentences; or a list of objects with an image and its captions"
)


def json_rows(source: Path) -> Iterator[Row]:
    """Return the rows of a file. Raises PackError for an unknown layout, ValueError if the file is not JSON."""
    content = json.loads(source.read_text(encoding="utf-8-sig"))
    if isinstance(content, list) and content:
        return _list(source, content)
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images):
        return _karpathy(source, images)
    try:
        return iter(_coco(source, content))
    except (LookupError, TypeError) as error:
        raise PackError(
            f"{source}: not a COCO caption file ({type(error).__name__} {error}); {_KNOWN}"
        ) from error


def _list(source: Path, rows: list[Any]) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        yield f"{source} row {number}", row if isinstance(row, dict) else "row is not a JSON object"


def _karpathy(source: Path, images: list[Any]) -> Iterator[Row]:
    for number, image in enumerate(images, start=1):
        place = f"{source} row {number}"
        if not isinstance(image, dict):
            yield place, "row is not a JSON object"
            continue
        row = {name: image.get(name) for name in ("filename", "sentences", "split")}
        yield (
            place,
            row
            | {"filepath": image.get("filepath", ""), "image_id": image.get("cocoid", image.get("imgid"))},
        )


def _coco(source: Path, content: Any) -> list[Row]:
    """Return one row per annotation, and one row per image without an annotation."""
    names: dict[Any, str] = {}
    duplicates = set()
    for image in content["images"]:
        name = str(image["file_name"])
        if names.setdefault(image["id"], name) != name:
            duplicates.add(image["id"])
    rows: list[Row] = []
    annotated = set()
    for number, annotation in enumerate(content["annotations"], start=1):
        key = annotation["image_id"]
        annotated.add(key)
        place = f"{source} annotation {annotation.get('id', number)}"
        if key not in names:
            rows.append((place, "annotation of an image that the file does not list"))
        elif key in duplicates:
            rows.append((place, "annotation of an image id that two images share"))
        else:
            rows.append((place, {"file_name": names[key], "caption": annotation["caption"], "image_id": key}))
    for key, name in names.items():
        if key not in annotated:
            rows.append((f"{source} image {key}", {"file_name": name, "caption": None}))
    return rows
