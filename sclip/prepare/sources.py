"""Image-caption pairs as people have them, read into `RawSample`s for the packer.

A source is a COCO caption file, a folder of images with caption files beside them, or a CSV, TSV or JSONL
table of (image path, caption). All captions of an image end in one sample: rows of the same image are put
together, which takes one pass over the table and its captions (not the images) in memory.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sclip.data.tar import IMAGE_SUFFIXES
from sclip.prepare.pack import PackError, RawSample, Skips

__all__ = ["read_source"]

IMAGE_FIELDS = ("image", "image_path", "path", "file_name", "filename", "filepath", "file")
CAPTION_FIELDS = ("captions", "caption", "text", "title")
_Row = tuple[str, Mapping[str, Any]]
"""Place ("pairs.csv line 3") and fields of one row."""


def read_source(
    source: Path, images: Path | None = None, *, image_field: str = "", caption_field: str = ""
) -> tuple[list[RawSample], Skips]:
    """Return the samples of a source, in its order (a folder: by name), and what it holds that is none.

    `images` is the folder that relative image paths start at; default: that of the source, or `images` in it
    for a COCO file. The fields name the columns of a table; default: the first of the usual names.
    Raises PackError for a source that cannot be read.
    """
    skips = Skips()
    beside = source.parent / "images"
    try:
        if source.is_dir():
            return list(_folder(source, skips)), skips
        if source.suffix == ".json":
            root = images or (beside if beside.is_dir() else source.parent)
            return list(_coco(source, root, skips)), skips
        if source.suffix in (".csv", ".tsv"):
            rows = _csv_rows(source)
        elif source.suffix == ".jsonl":
            rows = _jsonl_rows(source, skips)
        else:
            raise PackError(f"{source}: not a folder, .json (COCO captions), .csv, .tsv or .jsonl")
        fields = ((image_field,) if image_field else IMAGE_FIELDS,
                  (caption_field,) if caption_field else CAPTION_FIELDS)  # fmt: skip
        return list(_table(source, rows, images or source.parent, fields, skips)), skips
    except OSError as error:
        raise PackError(f"{error.filename or source}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PackError(f"{source}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except (csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise PackError(f"{source}: not readable: {error}") from error


def _sample(path: Path, root: Path, captions: Iterable[str], extra: dict[str, Any]) -> RawSample:
    """Name the sample for its image: the path below `root` without suffix, dots turned to underscores."""
    below = path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
    key = below.with_suffix("").as_posix().replace(".", "_")
    return RawSample(key, path, path.suffix.removeprefix(".").lower(), tuple(captions), extra)


def _coco(source: Path, root: Path, skips: Skips) -> Iterator[RawSample]:
    content = json.loads(source.read_text(encoding="utf-8"))
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        captions: dict[Any, list[str]] = {key: [] for key in names}
        for annotation in content["annotations"]:
            if annotation["image_id"] in captions:
                captions[annotation["image_id"]].append(str(annotation["caption"]))
            else:
                place = f"{source} annotation {annotation.get('id')}"
                skips.add("annotation of an image that the file does not list", place)
    except (KeyError, TypeError) as error:
        message = f"{source}: no COCO caption file ({type(error).__name__} {error})"
        raise PackError(
            f"{message}; it needs images: id, file_name and annotations: image_id, caption"
        ) from error
    for key, name in names.items():
        yield _sample(root / name, root, captions[key], {"image_id": key})


def _folder(folder: Path, skips: Skips) -> Iterator[RawSample]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.removeprefix(".").lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        text, record = path.with_suffix(".txt"), path.with_suffix(".json")
        try:
            if record.is_file():
                content = json.loads(record.read_text(encoding="utf-8"))
                found: Any = next((content[name] for name in CAPTION_FIELDS if content.get(name)), None)
                yield _sample(path, folder, _texts(found), {})
            elif text.is_file():
                yield _sample(path, folder, text.read_text(encoding="utf-8").splitlines(), {})
            else:
                skips.add("no .txt or .json of the same name beside the image", str(path))
        except (ValueError, AttributeError, RecursionError):
            skips.add(
                "caption file is not UTF-8 text or a JSON object", str(record if record.is_file() else text)
            )


def _csv_rows(source: Path) -> Iterator[_Row]:
    with source.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, delimiter="\t" if source.suffix == ".tsv" else ",")
        for row in table:
            yield f"{source} line {table.line_num}", row


def _jsonl_rows(source: Path, skips: Skips) -> Iterator[_Row]:
    with source.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{source} line {number}"
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield place, row
            else:
                skips.add("line is not a JSON object", place)


def _table(
    source: Path, rows: Iterable[_Row], root: Path, fields: tuple[tuple[str, ...], ...], skips: Skips
) -> Iterator[RawSample]:
    captions: dict[str, list[str]] = {}
    names: list[str] = []
    for place, row in rows:
        if not names:
            names = [_field(source, row, wanted) for wanted in fields]
        image, found = row.get(names[0]), _texts(row.get(names[1]))
        if not isinstance(image, str) or not image.strip():
            skips.add(f"row without {names[0]}", place)
        elif not any(text.strip() for text in found):
            skips.add(f"row without {names[1]}", place)
        else:
            captions.setdefault(image.strip(), []).extend(found)
    for image, texts in captions.items():
        yield _sample(root / image, root, texts, {"source": image})


def _field(source: Path, row: Mapping[str, Any], wanted: tuple[str, ...]) -> str:
    """Return the first wanted field that the first row has."""
    for name in wanted:
        if name in row:
            return name
    option = "--image-field" if wanted[0] in IMAGE_FIELDS else "--caption-field"
    raise PackError(
        f"{source}: no field {' or '.join(wanted)} among {', '.join(map(str, row))}; name it: {option}"
    )


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
