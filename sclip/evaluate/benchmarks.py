"""Define what all benchmarks share: the task interface, helpers that read files, and errors that name the bad case.

A reader (one module for each file format) turns files into a task. A task lists the pictures and captions that it
needs, and turns their features into a `Result`. Readers and tasks work without a model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sclip.evaluate.features import Features
from sclip.evaluate.picture import BenchmarkDataError, Picture
from sclip.evaluate.result import PARTIAL, Result

__all__ = [
    "About",
    "BenchmarkDataError",
    "Task",
    "box_of",
    "each",
    "entries",
    "images_of",
    "is_text",
    "left",
    "located",
    "named_once",
]
__all__ += ["no_such_file", "read_json", "text_of", "texts_of"]


@dataclass(frozen=True)
class About:
    """Name, kind and definition of a benchmark, with notes for its report."""

    name: str
    kind: str
    definition: str
    """One sentence for the reader of a report: what the benchmark asks, and who published it."""
    notes: tuple[str, ...] = ()
    whole: int = 0
    """Number of cases or images before any was left out. 0 means that none is left out."""


class Task(Protocol):
    """A benchmark after its files are read, ready to be scored."""

    @property
    def about(self) -> About:
        """Name, kind and definition of the benchmark."""
        ...

    @property
    def skips_unreadable(self) -> bool:
        """Whether an unreadable picture is skipped with a warning instead of raising an error."""
        ...

    def sizes(self) -> dict[str, int]:
        """Return the benchmark's size as its authors count it: cases, images, captions, classes."""
        ...

    def pictures(self) -> Sequence[Picture]:
        """Return the pictures that the task needs; a picture may occur several times."""
        ...

    def captions(self) -> Sequence[str]:
        """Return the captions that the task needs; a caption may occur several times."""
        ...

    def without(self, pictures: Collection[Picture]) -> Task:
        """Return the task without these pictures. Raises BenchmarkDataError if nothing is left."""
        ...

    def result(self, features: Features) -> Result:
        """Return the scores. `features` must hold every picture and caption of the task."""
        ...


_Case = TypeVar("_Case")
_SURROGATE = re.compile("[\ud800-\udfff]")


def left(about: About, cases: Sequence[_Case], kept: Sequence[_Case], noun: str = "cases") -> About:
    """Return `about`; add a note if `kept` lacks some of `cases`. Raises BenchmarkDataError if `kept` is empty."""
    if not kept:
        raise BenchmarkDataError(
            f"{about.name}: none of its pictures can be read; set its images to the folder that holds them"
        )
    if len(kept) == len(cases):
        return about
    whole = about.whole or len(cases)
    note = f"{PARTIAL}{len(kept):,} of {whole:,} {noun}, not comparable with published figures"
    notes = about.notes[:-1] if about.whole else about.notes
    return replace(about, notes=(*notes, note), whole=whole)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises BenchmarkDataError, naming the file, if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BenchmarkDataError(f"{path}: cannot be read as JSON: {error}") from error


def no_such_file(path: Path) -> BenchmarkDataError:
    """Return the error for a missing benchmark file."""
    return BenchmarkDataError(f"{path}: no such file; sclip fetch says where to get each benchmark")


def each(path: Path, noun: str, kind: type[list[Any]] | type[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Return (name, entry) for each entry of a JSON file. Names are the keys of an object, or the indices of a list.

    Raises BenchmarkDataError if the content is empty or not of type `kind`, or if an entry is no object.
    The message calls the entries `noun`.
    """
    content = read_json(path)
    if not isinstance(content, kind) or not content:
        raise BenchmarkDataError(f"{path}: must hold {'a list' if kind is list else 'an object'} of {noun}")
    return entries(path, content)


def entries(path: Path, tree: object, noun: str = "case") -> list[tuple[str, Any]]:
    """Return (name, entry) for each entry of `tree`, the content of a JSON file; names as in `each`.

    Raises BenchmarkDataError, naming file and entry, if `tree` is no list or object, or if an entry is no object.
    """
    if not isinstance(tree, list | dict):
        raise BenchmarkDataError(f"{path}: {noun}s={ascii(tree)[:50]}: must be a list or an object")
    named = [
        (str(name), entry) for name, entry in (tree.items() if isinstance(tree, dict) else enumerate(tree))
    ]
    for name, entry in named:
        if not isinstance(entry, dict):
            raise BenchmarkDataError(
                f"{path}: {noun} {name}: {ascii(entry)[:50]} must be an object with fields"
            )
    return named


def named_once(path: Path, names: Iterable[str]) -> None:
    """Raise BenchmarkDataError if two cases share a name, because results are stored by case name."""
    duplicates = [name for name, count in Counter(names).items() if count > 1]
    if duplicates:
        raise BenchmarkDataError(f"{path}: two cases have the id {duplicates[0]}")


class at_case:
    """Context manager that turns an error of bad data, such as KeyError, into BenchmarkDataError with the case."""

    def __init__(self, path: Path, name: Hashable, noun: str = "case") -> None:
        self._location = f"{path}: {noun} {name}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BenchmarkDataError):
            return
        if isinstance(error, KeyError):
            raise BenchmarkDataError(f"{self._location}: no field {error}") from error
        if isinstance(
            error, (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
        ):
            raise BenchmarkDataError(f"{self._location}: {error}") from error


def text_of(entry: Mapping[str, Any], field: str) -> str:
    """Return a text field. Raises ValueError if it is empty or not text, KeyError if it is missing."""
    value = entry[field]
    if not is_text(value):
        raise ValueError(f"{field}={ascii(value)[:50]} must be text that is not blank")
    return str(value)


def is_text(value: object) -> bool:
    """Return whether a value is a non-blank text without lone surrogates, which cannot be written as UTF-8."""
    return isinstance(value, str) and bool(value.strip()) and not _SURROGATE.search(value)


def box_of(left: int, top: int, width: int, height: int, fields: str) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a crop in pixels. Raises ValueError, naming `fields`, for an empty crop."""
    if width < 1 or height < 1:
        raise ValueError(f"{fields}={width}, {height}: the crop is empty")
    return left, top, left + width, top + height


def images_of(file: Path, images: Path | None) -> Path:
    """Return the picture folder: `images` if given, else `images/` beside the file, else the file's own folder."""
    if images is not None:
        return images
    subfolder = file.parent / "images"
    return subfolder if subfolder.is_dir() else file.parent


def located(folder: Path, name: str) -> Path:
    """Return the path of a picture: for the name "a/b.jpg", the first of FOLDER/a/b.jpg and FOLDER/b.jpg that exists.

    If neither exists, return FOLDER/a/b.jpg (for an absolute name: FOLDER/b.jpg), for the caller to report. An absolute
    path that exists stays as it is. Raises ValueError if `name` has no file name.
    """
    path = Path(name)
    if not path.name:
        raise ValueError(f"{name!a} must be the path of a picture")
    places = [folder / Path(*path.parts[start:]) for start in range(len(path.parts))]
    return next((place for place in places if place.is_file()), places[-1 if path.is_absolute() else 0])


def texts_of(entry: Mapping[str, Any], field: str, least: int = 1) -> tuple[str, ...]:
    """Return a field that is a list of `least` or more texts. Raises ValueError if it is not."""
    texts = entry[field]
    if not isinstance(texts, list) or len(texts) < least or not all(map(is_text, texts)):
        raise ValueError(f"{field}={ascii(texts)[:50]} must be a list of {least} or more texts")
    return tuple(texts)
