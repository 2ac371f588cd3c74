"""Read Parquet files, as Hugging Face writes them, into a `RawSample` per image with its bytes or its path.

Embedded images are streamed in small batches, whatever the size of a row group. Captions are read before the images,
because one sample holds all rows of an image. Rows belong to the same image if they have the same name and the same
bytes. A row without a name is a separate image.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclip.data.parquet import (
    IMAGE_FIELDS,
    Fault,
    bytes_column,
    has_child,
    image_kind,
    is_text,
    parts_of_image,
)
from sclip.prepare.cells import captions_of, image_path, key_of, spelled_list
from sclip.prepare.pack import RawSample, Skips
from sclip.prepare.rows import (
    SPLIT_FIELDS,
    SPLIT_WORDS,
    Choice,
    Columns,
    Root,
    Row,
    Splits,
    by_field,
    group,
    kept_values,
    split_of,
)
from sclip.prepare.writing import PackError

_BATCH_ROWS = 64
_BUFFER_BYTES = 1 << 20
_SPLIT_WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(SPLIT_WORDS)})(?![a-z])")
"""Pattern of a split in names like "validation-00000-of-00002", "coco_test", "split=test" and "val2014"."""


@dataclass(slots=True)
class _Image:
    """An image to pack, with all its captions. Its bytes are read later, from its first row."""

    key: str
    place: str
    name: str
    captions: list[str] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0


def parquet_samples(
    source: Path, files: Sequence[Path], roots: Sequence[Root], choice: Choice, skips: Skips
) -> Iterable[RawSample]:
    """Return the samples of files with the same columns: a stream if the files embed images, a list if they name paths.

    Raises PackError, perhaps only while the stream is read.
    """
    with _errors(source):
        schemas = [pq.read_schema(file) for file in files]
    schema = schemas[0]
    image = bytes_column(schema, choice.image_field)
    if image:
        choice = replace(choice, image_field=image)
    columns = Columns.choose(source, dict.fromkeys(schema.names, ""), choice)
    for file, other in zip(files, schemas, strict=True):
        if missing := {columns.image, columns.caption} - set(other.names):
            raise PackError(
                f"{file}: has no column {missing.pop()}, unlike {files[0].name}; pack the files one by one"
            )
        kinds = [one.field(columns.image).type for one in (schema, other)]
        if image_kind(kinds[0]) != image_kind(kinds[1]):
            types = f"{kinds[1]}, in {files[0].name} {kinds[0]}"
            raise PackError(f"{file}: {columns.image} holds {types}; pack the files one by one")
    key = _key_column(schema, columns.image) if image else ""
    skips.notes += columns.unread((name for name in schema.names if name != key), choice)
    kept = [name for name in choice.kept_fields if name in schema.names]
    if not image:
        rows = _rows(source, files, [columns.image, columns.caption, columns.folder, *kept])
        return group(source, rows, roots, choice, skips, spelled=True)
    plan = _plan(source, files, columns, key, has_child(schema, image, "path"), choice, skips)
    return _stream(files, columns.image, plan, roots[0][0], skips)


def _key_column(schema: pa.Schema, image: str) -> str:
    names = [name for name in (*IMAGE_FIELDS, "key", "__key__") if name != image]
    return next((name for name in names if is_text(schema, name)), "")


def _rows(source: Path, files: Sequence[Path], columns: Collection[str]) -> Iterator[Row]:
    """Yield each row with these columns and its split, which comes from a column or else from the file's path."""
    for file in files:
        with _errors(file):
            splits = [name for name in pq.read_schema(file).names if name.lower() in SPLIT_FIELDS]
        split = _split_of(source, file)
        number = 0
        for batch in _batches(file, [name for name in (*columns, *splits) if name]):
            for row in batch.to_pylist():
                number += 1
                named = {SPLIT_FIELDS[0]: split_of(row) or split}
                yield f"{file} row {number}", {name: row[name] for name in row if name not in splits} | named


def _split_of(source: Path, file: Path) -> str:
    """Return the split that the file's name states, or else its nearest folder's name; "" if there is none.

    Only folders below the path that the user typed count. If the user typed the file itself, its name does not count.
    """
    if file == source:
        return ""
    top = source if source.is_dir() else next(p for p in source.parents if not glob.has_magic(str(p)))
    for name in (file.stem, *(parent.name for parent in file.relative_to(top).parents)):
        if words := _SPLIT_WORD.findall(name.lower()):
            return str(words[-1])
    return ""


def _batches(file: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with _errors(file), pq.ParquetFile(file, buffer_size=_BUFFER_BYTES) as opened:
        yield from opened.iter_batches(_BATCH_ROWS, columns=columns)


@contextmanager
def _errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.lib.ArrowException, OSError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise PackError(f"{file}: not readable as Parquet: {lines[0]}") from error


def _plan(
    source: Path, files: Sequence[Path], columns: Columns, key: str, named: bool, choice: Choice, skips: Skips
) -> dict[int, _Image]:
    """Return the images to pack, by the number of their first row over all files.

    The name of an image is the path beside its bytes (only with `named`), or else the cell in column `key`.
    """
    image, splits = columns.image, Splits(choice.splits)
    kept: list[tuple[int, str, str, list[str], list[dict[str, Any]]]] = []
    names = [f"{image}.path" if named else "", key, columns.caption, *choice.kept_fields]
    blank = Skips()
    for number, (place, row) in enumerate(_rows(source, files, names)):
        assert not isinstance(row, str)
        skips.rows += 1
        try:
            splits.check(split_of(row))
            captions = captions_of(columns.caption, spelled_list(row.get(columns.caption)))
        except Fault as fault:
            skips.add(str(fault), place)
            continue
        name = (row.get(image) or {}).get("path") if named else None
        values = kept_values(row, len(captions), choice, place, blank)
        kept.append((number, place, str(name or row.get(key) or ""), captions, values))
    splits.judge(source)
    skips.notes += blank.noted()
    counts = Counter(name for _, _, name, *_ in kept)
    digests = _digests(files, image, {number for number, _, name, *_ in kept if name and counts[name] > 1})
    folder = Path(os.path.commonpath([file.parent for file in files]))
    plan: dict[int, _Image] = {}
    images_by_name: dict[str, dict[str, _Image]] = {}
    for number, place, name, captions, values in kept:
        images = images_by_name.setdefault(name or place, {})
        digest = digests.get(number, "")
        if digest not in images:
            images[digest] = plan[number] = _Image(_key(name or _place_key(place, folder)), place, name)
        images[digest].captions += captions
        images[digest].kept += values
        images[digest].rows += 1
    for images in images_by_name.values():
        if len(images) > 1:  # same name in several folders: Hugging Face stores no folder
            for digest, planned in images.items():
                planned.key += f"-{digest[:8]}"
    return plan


def _place_key(place: str, folder: Path) -> str:
    file, _, number = place.rpartition(" row ")
    return f"{Path(file).relative_to(folder).with_suffix('')}/{int(number):08d}"


def _key(name: str) -> str:
    parts = PurePath(re.sub(r"[\0\\]", "_", os.path.normpath(name))).parts
    return key_of(PurePath(*(part for part in parts if part not in ("/", "//", ".."))))


def _digests(files: Sequence[Path], image: str, wanted: Collection[int]) -> dict[int, str]:
    if not wanted:
        return {}
    return {
        number: hashlib.sha256(content or b"").hexdigest()
        for number, content, _ in _images(files, image, wanted)
    }


def _images(
    files: Sequence[Path], image: str, wanted: Collection[int]
) -> Iterator[tuple[int, bytes | None, str | None]]:
    """Yield row number, bytes and path of the images in the rows `wanted`."""
    number = 0
    for file in files:
        for batch in _batches(file, [image]):
            for cell in batch.column(0):
                if number in wanted:
                    yield number, *parts_of_image(cell.as_py())
                number += 1


def _stream(
    files: Sequence[Path], image: str, plan: dict[int, _Image], root: Path, skips: Skips
) -> Iterator[RawSample]:
    for number, content, path in _images(files, image, plan):
        planned = plan.pop(number)
        try:
            picture = content or Path(image_path(str(root), image, path)[0])
        except Fault as fault:
            skips.add(str(fault), planned.place, planned.rows)
            continue
        extra: dict[str, Any] = {"source": planned.name} if planned.name else {}
        extra |= by_field(planned.captions, planned.kept)
        yield RawSample(
            planned.key, picture, tuple(planned.captions), extra, place=planned.place, rows=planned.rows
        )
