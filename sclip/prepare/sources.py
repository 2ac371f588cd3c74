"""Read image-caption pairs in common layouts into `RawSample`s for the packer.

The content of a source decides how it is read: JSON (`caption_json`), a text table (`tables`), Parquet (`parquet`), or
a folder of images with caption files beside them (`folder`) or with Hugging Face's metadata.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from sclip.prepare.caption_json import json_rows
from sclip.prepare.cells import is_image
from sclip.prepare.folder import folder_samples
from sclip.prepare.pack import RawSample, Skips
from sclip.prepare.parquet import parquet_samples
from sclip.prepare.rows import Choice, Row, group
from sclip.prepare.tables import first_line, jsonl_rows, table_rows
from sclip.prepare.writing import PackError
from sclip.storage.globs import files_below

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""File names of the metadata table in Hugging Face's image folders."""


def read_source(
    source: Path,
    images: Path | None = None,
    *,
    image_field: str = "",
    caption_field: str = "",
    splits: Iterable[str] = (),
    kept: Iterable[str] = (),
) -> tuple[Iterable[RawSample], Skips]:
    """Return the samples of a source in its order (in a folder: by name), and the skipped rows.

    Args:
        source: a file, a folder, or a pattern of Parquet files.
        images: base folder of relative image paths; default: the source's own folder, or else `images` in it.
        image_field: column or field with the image; default: the first of the usual names.
        caption_field: column or field with the captions; default: the first of the usual names.
        splits: splits to pack; required if the source has splits that are not for training.
        kept: additional fields that come with captions, to keep in the sample's .json.

    Parquet files with embedded images are read while the samples are consumed; their counts are complete at the end.
    Raises PackError if the source cannot be read.
    """
    skips = Skips()
    choice = Choice(image_field, caption_field, tuple(splits), tuple(kept))
    try:
        if source.is_dir() and (metadata := _metadata(source)):
            source, images = metadata, images or metadata.parent
        samples = _read(source, images, choice, skips)
    except OSError as error:
        raise PackError(f"{error.filename or source}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PackError(f"{source}: not UTF-8 at {_not_utf8(source)}; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise PackError(f"{source}: not readable: {error}") from error
    if not skips.rows:
        raise PackError(f"{source}: holds no {skips.unit}; sclip pack --help lists what it reads")
    return samples, skips


def _metadata(folder: Path) -> Path | None:
    tables = sorted(path for path in map(Path, files_below(str(folder))) if path.name in _METADATA)
    if len(tables) > 1:
        raise PackError(f"{folder}: holds {tables[0]} and {tables[1]}; pack one of them")
    return tables[0] if tables else None


def _not_utf8(source: Path) -> str:
    content = source.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"byte {error.start} (line {line})"
    return "some byte"


def _read(source: Path, images: Path | None, choice: Choice, skips: Skips) -> Iterable[RawSample]:
    if source.is_dir():
        return _read_folder(source, images, choice, skips)
    files = [source]
    if not source.exists() and glob.has_magic(str(source)):
        files = [Path(name) for name in sorted(glob.glob(str(source), recursive=True))]
        if not files:
            raise PackError(f"{source}: no file fits the pattern")
        if other := next((file for file in files if not _is_parquet(file)), None):
            raise PackError(
                f"{source}: {other} is not Parquet; a pattern is for Parquet only, pack other files one by one"
            )
    parent = source.parent if len(files) == 1 else files[0].parent
    images_folder = parent / "images"
    roots = [(images, True)] if images else [(parent, False), (images_folder, True)]
    if source.suffix == ".json" and images_folder.is_dir():
        roots.reverse()
    if _is_parquet(files[0]):
        return parquet_samples(source, files, roots, choice, skips)
    if source.suffix == ".parquet":
        raise PackError(f"{source}: not readable as Parquet: it does not begin with PAR1")
    if first_line(source).lstrip()[:1] not in ("{", "[") and source.suffix not in (".json", ".jsonl"):
        return group(source, table_rows(source, choice), roots, choice, skips, spelled=True)
    return group(source, _json(source), roots, choice, skips, spelled=False)


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"PAR1"


def _json(source: Path) -> Iterator[Row]:
    if source.suffix == ".jsonl":
        return jsonl_rows(source)
    try:
        return json_rows(source)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        return jsonl_rows(source)


def _read_folder(folder: Path, images: Path | None, choice: Choice, skips: Skips) -> Iterable[RawSample]:
    below = sorted(map(Path, files_below(str(folder))))
    files = [path for path in below if path.suffix == ".parquet"]
    if files and any(is_image(path.name) for path in below):
        raise PackError(
            f"{folder}: holds Parquet files and images; pack '{folder}/*.parquet' or a folder of images"
        )
    if files:
        return parquet_samples(folder, files, [(images or folder, images is not None)], choice, skips)
    for name, value in (
        ("--images", images),
        ("--image-field", choice.image_field),
        ("--split", choice.splits),
    ):
        if value:
            raise PackError(f"{folder}: {name} is for tables; a folder of images has captions beside them")
    return list(folder_samples(folder, choice.caption_field, skips))
