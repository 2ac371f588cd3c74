"""Read pairs from Parquet files that hold the pictures: each row has two pictures and two captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sclip.config import DataConfig
from sclip.data.parquet import ParquetError, bytes_column, opened
from sclip.evaluate.benchmarks import BenchmarkDataError, at_case, no_such_file, text_of
from sclip.evaluate.pairs import Pair
from sclip.evaluate.picture import Picture
from sclip.evaluate.readers.lines import other_version
from sclip.storage.retries import StorageError

__all__ = ["paired_rows"]

_NEEDS = "download the dataset's own Parquet files, whose rows hold the pictures"


def paired_rows(
    file: Path, images: tuple[str, str], captions: tuple[str, str], group: tuple[str, ...] = ()
) -> Iterator[Pair]:
    """Yield a pair for each row of a Parquet file, or of all Parquet files in a folder, sorted by name.

    `images`, `captions` and `group` are names of columns. Raises BenchmarkDataError naming file and column or row.
    """
    paths = sorted(file.rglob("*.parquet")) if file.is_dir() else [file]
    if not paths:
        raise BenchmarkDataError(f"{file}: a folder without Parquet files; {_NEEDS}")
    for path in paths:
        reading = [DataConfig(image_field=i, caption_field=c) for i, c in zip(images, captions, strict=True)]
        for number, row in enumerate(_rows(path, images, (*captions, *group))):
            with at_case(path, number, "row"):
                first, second = (Picture(str(path), sample=number, data=data) for data in reading)
                texts = text_of(row, captions[0]), text_of(row, captions[1])
                name = str(number) if len(paths) == 1 else f"{path.stem}/{number}"
                yield Pair(name, (first, second), texts, "_".join(text_of(row, column) for column in group))


def _rows(path: Path, images: tuple[str, ...], texts: tuple[str, ...]) -> list[Mapping[str, Any]]:
    if not path.is_file():
        raise no_such_file(path)
    try:
        with opened(str(path)) as table:
            schema = table.schema_arrow
            lacking = [column for column in (*images, *texts) if column not in schema.names]
            rows: list[Mapping[str, Any]] = [] if lacking else table.read(columns=list(texts)).to_pylist()
    except (ParquetError, StorageError) as error:
        raise BenchmarkDataError(f"{path}: {error}") from error
    if lacking:
        raise BenchmarkDataError(other_version(path, lacking, schema.names))
    for column in images:
        if not bytes_column(schema, column):
            raise BenchmarkDataError(
                f"{path}: column {column} must hold pictures, not {schema.field(column).type}; {_NEEDS}"
            )
    return rows
