"""Read text files, JSON Lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sclip.evaluate.benchmarks import BenchmarkDataError, at_case, no_such_file

__all__ = ["csv_rows", "json_lines", "other_version", "text"]


def text(path: Path) -> str:
    """Return the content of a text file. Raises BenchmarkDataError naming the file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkDataError(f"{path}: cannot be read: {error}") from error


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 0, object) for each line that is not blank. Raises BenchmarkDataError for a bad line."""
    lines = text(path).split("\n")  # splitlines would also split at a U+2028 inside a text
    if not any(map(str.strip, lines)):
        raise BenchmarkDataError(f"{path}: no lines; it must hold a line for each case")
    for number, line in enumerate(lines):
        if line.strip():
            with at_case(path, number):
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError(f"{line[:50]!a} must be an object with fields")
            yield number, entry


def other_version(path: Path, lacking: Sequence[str], names: Sequence[str]) -> str:
    """Return the error message for a table that has the columns `names` and lacks the columns `lacking`."""
    present = ", ".join(names) or "none"
    return f"{path}: lacks the columns {', '.join(lacking)}, has {present}: the file is another version"


def csv_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of a CSV with at least these columns. Raises BenchmarkDataError naming columns or row."""
    reader = csv.DictReader(io.StringIO(text(path), newline=""), strict=True)
    try:
        names = reader.fieldnames or []
        lacking = [column for column in columns if column not in names]
        if lacking:
            raise BenchmarkDataError(other_version(path, lacking, names))
        rows = list(reader)
    except csv.Error as error:
        raise BenchmarkDataError(f"{path}: line {reader.line_num}: {error}") from error
    for number, row in enumerate(rows):
        if None in row or None in row.values():  # csv marks extra and missing fields with None
            raise BenchmarkDataError(
                f"{path}: case {number}: the header has {len(names)} columns, but the row has more or fewer"
            )
    if not rows:
        raise BenchmarkDataError(f"{path}: no rows; it must hold a row for each case")
    return rows
