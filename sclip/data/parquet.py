"""Yield the rows of a Parquet file, each an image with its captions, in file order.

The reader accepts Hugging Face's files (a struct of bytes and path), img2dataset's (a column of bytes) and tables of
paths. The row number is the key, because a column may have duplicates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sclip.config import DataConfig
from sclip.data.names import IMAGE_SUFFIXES
from sclip.storage.filesystem import open_stream, parts, sibling
from sclip.storage.retries import StorageError, retry
from sclip.storage.seekable import SeekableFile

IMAGE_FIELDS = ("image", "image_path", "image_name", "path", "file_name", "filename", "filepath", "file")
"""Usual names of columns that hold images or their paths."""
_CAPTION_FIELDS = ("captions", "caption", "text", "TEXT")
_STATUS = "status"
"""Column where img2dataset records why a row has no image."""
_BATCH_ROWS = 32
_BUFFER_BYTES = 2 * 2**20
"""Bytes of a column that one read requests."""


class ParquetError(ValueError):
    """A Parquet file that is unreadable, in whole or from some row on.

    `args` are kind, remedy and detail, as in `sclip.data.sniff.NotATar`.
    """

    def __str__(self) -> str:
        kind, remedy, detail = self.args
        return f"{kind}{f': {detail}' if detail else ''}; {remedy}"


class Fault(Exception):
    """Error that says why a row is left out. Most texts are fixed, so that they can be counted."""


class Row(NamedTuple):
    """One row, or the reason why it cannot be used."""

    image: bytes
    captions: dict[str, Any]
    """Values of the caption columns by name, preferred columns first."""
    fault: str = ""
    foreign: Mapping[str, Any] = MappingProxyType({})
    """Values of the columns in data.foreign_fields, by name."""


class Columns(NamedTuple):
    """Names of the columns that are read."""

    image: str
    captions: tuple[str, ...]

    @classmethod
    def choose(cls, schema: pa.Schema, data: DataConfig) -> Columns:
        """Return the columns that `data.image_field` and `data.caption_field` name, or else the usual ones.

        Raises ParquetError, which lists the existing columns, if the image or a caption column is missing.
        """
        image = bytes_column(schema, data.image_field)
        wanted = (data.image_field,) if data.image_field else IMAGE_FIELDS
        image = image or next((name for name in wanted if is_text(schema, name)), "")
        usual = [name for name in (*_CAPTION_FIELDS, *data.text_suffixes) if name in schema.names]
        captions = tuple(data.caption_fields or (name for name in usual if name != image))
        if not (image and captions and set(captions) <= set(schema.names)):
            noun, key = ("a caption", "caption_field") if image else ("an image", "image_field")
            kind = f"a Parquet file without {noun} column {getattr(data, key)}".rstrip()
            raise ParquetError(f"{kind} (columns: {', '.join(schema.names)})", f"set data.{key}=COLUMN", "")
        return cls(image, captions)


def bytes_column(schema: pa.Schema, chosen: str = "") -> str:
    """Return the column that holds image bytes: `chosen`, or else a usual name. Empty if there is none."""
    structs = [name for name in schema.names if has_child(schema, name, "bytes")]
    usual = [*IMAGE_FIELDS, *IMAGE_SUFFIXES, *(structs if len(structs) == 1 else [])]
    names = [name for name in ([chosen] if chosen else usual) if name in schema.names]
    return next((name for name in names if image_kind(schema.field(name).type)), "")


def image_kind(type_: pa.DataType) -> str:
    """Return "struct" or "bytes" if a column of this type holds image bytes; empty otherwise."""
    is_bytes = pa.types.is_binary(type_) or pa.types.is_large_binary(type_)
    return "struct" if pa.types.is_struct(type_) else "bytes" * is_bytes


def has_child(schema: pa.Schema, column: str, name: str) -> bool:
    """Return whether a column is a struct with a field of this name."""
    kind = schema.field(column).type
    return bool(pa.types.is_struct(kind) and kind.get_field_index(name) >= 0)


def is_text(schema: pa.Schema, column: str) -> bool:
    """Return whether the column exists and holds text."""
    type_ = schema.field(column).type if column in schema.names else pa.null()
    type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
    return type_ in (pa.string(), pa.large_string(), pa.string_view())


def is_parquet(url: str) -> bool:
    """Return whether a shard is read as Parquet: its name ends with .parquet."""
    return parts(url)[0].lower().endswith(".parquet")


def rows(url: str, data: DataConfig) -> Iterator[Row]:
    """Yield the rows of a file. Raises StorageError, and ParquetError for a broken file, perhaps after some rows."""
    with opened(url) as file:
        columns = Columns.choose(file.schema_arrow, data)
        foreign = {name for names in data.foreign_fields.values() for name in names}
        names = list({columns.image, *columns.captions, *foreign, _STATUS} & set(file.schema_arrow.names))
        # One group at a time: a batch across groups would lose the intact rows next to a broken group.
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(_BATCH_ROWS, [group], names, use_threads=False):
                for number in range(batch.num_rows):
                    cells = {name: batch.column(name)[number] for name in names}
                    yield _row(url, columns, foreign.intersection(names), cells)


@contextmanager
def opened(url: str) -> Iterator[pq.ParquetFile]:
    """Open a file for the block. Raises ParquetError and StorageError, also for reads inside the block."""
    with closing(SeekableFile(url)) as file:
        try:
            with pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as parquet:
                yield parquet
        except (pa.lib.ArrowException, OSError, ValueError, LookupError) as error:
            if file.failure or isinstance(error, StorageError | ParquetError):
                raise (file.failure or error) from None
            detail = (str(error).splitlines() or [type(error).__name__])[0]
            raise ParquetError("a broken Parquet file", "download it again", detail) from None


def _row(url: str, columns: Columns, foreign: Iterable[str], cells: dict[str, pa.Scalar]) -> Row:
    try:
        values = {name: cell.as_py() for name, cell in cells.items()}
        content, path = parts_of_image(values[columns.image])
        image = content or _file(url, path_below(columns.image, path))
    except UnicodeDecodeError as error:
        return Row(b"", {}, f"not UTF-8: {error.reason}")
    except Fault as fault:
        status = values.get(_STATUS) or "success"
        return Row(b"", {}, f"{fault}; its status is {status}" if status != "success" else str(fault))
    captions = {name: values[name] for name in columns.captions}
    return Row(image, captions, foreign={name: values[name] for name in foreign})


def parts_of_image(value: Any) -> tuple[bytes | None, Any]:
    """Return the bytes and the path in a cell of an image column. Either is None if absent."""
    fields = value if isinstance(value, dict) else {"bytes" if isinstance(value, bytes) else "path": value}
    return fields.get("bytes"), fields.get("path")


def _file(url: str, below: str) -> bytes:
    """Read an image file. `below` is its path, absolute or relative to the folder of the Parquet file `url`."""
    is_remote = "://" in url and not os.path.isabs(below)
    path = sibling(url, below) if is_remote else os.path.join(os.path.dirname(url), below)

    def ask() -> bytes:
        try:
            with closing(open_stream(path)) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return b""

    if content := retry(path, ask):
        return content
    raise Fault(f"no image: there is no file {below!r}, or it is empty")


def path_below(column: str, name: Any, folder: str = "") -> str:
    """Return the normalized path of an image, absolute or relative to the image folder.

    Raises Fault if `name` is not a path, or if it leads out of the image folder ("../x.jpg").
    """
    if name is None or (isinstance(name, str) and not name.strip()):
        raise Fault(f"row without {column}")
    if not isinstance(name, str):
        raise Fault(f"{column} holds {type(name).__name__}, not a path")
    name = name.strip()
    if name.startswith(("http://", "https://")):
        raise Fault("image is a URL; download it first, with img2dataset")
    longest = max(len(part.encode(errors="replace")) for part in name.split("/"))
    if "\0" in name or longest > 255 or name != name.encode(errors="replace").decode():
        raise Fault("image path is not a valid file name")
    below = os.path.normpath(os.path.join(folder, name) if folder else name)
    if below.split(os.sep)[0] == "..":
        raise Fault("image path leaves the image folder (sclip pack --images sets another)")
    return below
