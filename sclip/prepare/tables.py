"""Read the rows of a text file with their line numbers: CSV, TSV, `|`, Flickr's `results_20130124.token`, JSON Lines.

Three rules keep each caption with its image:
- CSV is read strictly. A quoted cell that never closes, or that seems to contain another row, stops the reader.
- In tables with tabs or `|`, a quote is an ordinary character unless a CSV writer quoted the cells (`_is_quoted`).
- A row must have as many cells as the header. A row with more or fewer cells is skipped and counted.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sclip.data.names import IMAGE_SUFFIXES
from sclip.data.parquet import IMAGE_FIELDS
from sclip.prepare.cells import is_image
from sclip.prepare.rows import CAPTION_FIELDS, Choice, Row
from sclip.prepare.writing import PackError

_DELIMITERS = ("\t", "|", ",", ";")
_RAW = ("\t", "|")
"""Delimiters of tables that people write without quoting."""
_TOKEN = re.compile(r"(?P<image>[^\t]*[^\t ])#\d+\t(?P<caption>.*)")
_IMAGE_SUFFIX = rf"\.(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})"
_TOO_FEW = "fewer cells than the header has"
_TOO_MANY = "more cells than the header has (a cell that holds the delimiter must be quoted)"
_Cells = tuple[int, list[str], str]
"""Row of a table: the number of its first line, its cells, and its text."""


def jsonl_rows(source: Path) -> Iterator[Row]:
    """Yield one row per non-blank line."""
    for number, line in _lines(source):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield f"{source} line {number}", row if isinstance(row, dict) else "line is not a JSON object"


def table_rows(source: Path, choice: Choice) -> Iterator[Row]:
    """Yield the rows below the header. If the first line is IMAGE#NUMBER, tab, caption, it is a row too, not a header.

    Raises PackError at the first line that cannot be read as part of the table.
    """
    header = first_line(source)
    if "\r" in header:
        raise PackError(f"{source}: lines end in a carriage return alone; save it with line feeds")
    if _TOKEN.fullmatch(header):
        for number, line in _lines(source):
            match = _TOKEN.fullmatch(line)
            row = match.groupdict() if match else "line is not IMAGE#NUMBER, tab, caption"
            yield f"{source} line {number}", row
        return
    try:
        delimiter = _delimiter(header, choice)
    except csv.Error as error:
        raise PackError(f"{source}: first line is not readable as a header: {error}") from error
    names: list[str] = []
    for number, cells, line in _cells(source, delimiter):
        if not names:
            names = [cell.strip() for cell in cells]
            if duplicate := next((name for name in names if names.count(name) > 1), ""):
                raise PackError(f"{source}: two columns are named {duplicate!r}; give each a name of its own")
            image = next(filter(is_image, names), "")
            if image and not {*IMAGE_FIELDS, choice.image_field} & set(names):
                line = f"add a header line, such as {f'image{delimiter}caption'!r}"
                raise PackError(f"{source}: has no header line, but {image} in its first line; {line}")
            continue
        is_flickr8k = source.suffix == ".txt" and names == ["image", "caption"] and '"' not in line
        if len(cells) > 2 and is_flickr8k and is_image(cells[0]):
            # Some programs rewrite Flickr8k's captions.txt without quotes.
            cells = line.rstrip("\r\n").split(delimiter, 1)
        yield f"{source} line {number}", _fields(names, cells)


def first_line(source: Path) -> str:
    """Return the first non-blank line; empty if there is none."""
    return next(_lines(source), (0, ""))[1]


def _lines(source: Path) -> Iterator[tuple[int, str]]:
    """Yield the non-blank lines with their numbers. Only a line feed ends a line; U+2028 and the like do not."""
    with source.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def _fields(names: list[str], cells: list[str]) -> Mapping[str, Any] | str:
    if len(cells) != len(names):
        return _TOO_FEW if len(cells) < len(names) else _TOO_MANY
    return dict(zip(names, cells, strict=True))


def _delimiter(header: str, choice: Choice) -> str:
    """Return the delimiter that gives an image and a caption column, or else the delimiter with the most columns."""
    images = {choice.image_field} if choice.image_field else set(IMAGE_FIELDS)
    captions = {choice.caption_field} if choice.caption_field else set(CAPTION_FIELDS)

    def fit(delimiter: str) -> tuple[bool, int]:
        names = {name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])}
        return bool(names & images and names & captions), len(names)

    return max(_DELIMITERS, key=fit)


def _cells(source: Path, delimiter: str) -> Iterator[_Cells]:
    if delimiter in _RAW and not _is_quoted(source.read_bytes().decode("utf-8-sig"), delimiter):
        return ((number, line.split(delimiter), line) for number, line in _lines(source))
    return _csv_cells(source, delimiter)


def _is_quoted(text: str, delimiter: str) -> bool:
    """Return True if the quotes in a table mark CSV cells, False if they are characters of the captions.

    Quotes mark cells if all of them follow the CSV rules, and if a whole column is quoted or every quoted cell holds a
    doubled quote or a line break (as pandas writes).
    """
    if '"' not in text:
        return False
    cell = _cell(delimiter, plain=r'"')
    header, throughout, needed, everywhere, joined = True, dict[int, bool](), True, True, False
    position = column = 0
    while position < len(text):
        match = cell.match(text, position)
        if match is None or match.end() == position:
            return False
        position, (raw, end) = match.end(), match.groups()
        is_quoted, is_blank = raw.startswith('"'), not raw and not column and end != delimiter
        joined |= is_quoted and "\n" in raw and delimiter in raw
        everywhere &= is_quoted or is_blank
        needed &= not is_quoted or "\n" in raw or '""' in raw[1:-1]
        if not header and not is_blank:
            throughout[column] = throughout.get(column, True) and is_quoted
        header, column = header and (is_blank or end == delimiter), column + 1 if end == delimiter else 0
    # A quoted cell with a line break and a delimiter may be two rows joined by stray quotes: be strict.
    return everywhere if joined else needed or any(throughout.values())


def _cell(delimiter: str, plain: str = "") -> re.Pattern[str]:
    """Return a pattern for a cell and what ends it. An unquoted cell must not contain a character of `plain`."""
    mark = re.escape(delimiter)
    return re.compile(rf'("[^"]*+(?:""[^"]*+)*+"|(?!")[^{mark}{plain}\r\n]*+)({mark}|\r?\n|\Z)')


def _csv_cells(source: Path, delimiter: str) -> Iterator[_Cells]:
    """Yield the non-blank rows. Raises PackError with the line of a quote that does not close."""
    swallowed = re.compile(
        rf'{_IMAGE_SUFFIX}"?[ ]*(?:{re.escape(delimiter)}|\r?$)', re.IGNORECASE | re.MULTILINE
    )
    with source.open(encoding="utf-8-sig", newline="\n") as file:
        row_lines: list[str] = []

        def lines() -> Iterator[str]:
            for line in file:
                row_lines.append(line)
                yield line

        reader = csv.reader(lines(), delimiter=delimiter, strict=True)
        first = 1
        try:
            for cells in reader:
                if len(row_lines) > 1 and any("\n" in cell and swallowed.search(cell) for cell in cells):
                    span = f"{source} line {first}: a quote opens a cell that runs into another row"
                    raise PackError(f"{span}, up to line {reader.line_num}; close the quote, or double it")
                if any(cell.strip() for cell in cells) or len(cells) > 1:
                    yield first, cells, "".join(row_lines)
                row_lines.clear()
                first = reader.line_num + 1
        except csv.Error as error:
            fault = _csv_fault("".join(row_lines), first, reader.line_num, delimiter, error)
            raise PackError(f"{source} {fault}") from error


def _csv_fault(text: str, first: int, last: int, delimiter: str, error: csv.Error) -> str:
    """Return the line and the fault of the broken cell in a row. `text` is the row, from line `first` to `last`."""
    cell, position = _cell(delimiter), 0
    while (match := cell.match(text, position)) and position < match.end() < len(text):
        position = match.end()
    line = first + text.count("\n", 0, position)
    if text[position : position + 1] == '"':
        hint = "close the quote, or double it if it is part of the text"
        return f"line {line}: a quote opens a cell that is not closed correctly by line {last}; {hint}"
    return f"line {line}: not readable: {error}"
