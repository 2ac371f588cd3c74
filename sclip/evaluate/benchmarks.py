"""What all benchmarks share: how a file of their authors is read, what a task is, and how a mistake is told.

A reader (one module for each authors' format) turns files into a task; a task names the pictures and captions that
it needs, and turns their features into a `Result`. Nothing here or in a reader knows a model.
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
    """How a benchmark is called and what it asks."""

    name: str
    """What the suite calls it."""
    kind: str
    definition: str
    """One sentence for the reader of a report."""
    notes: tuple[str, ...] = ()
    """What the reader must know before the figures."""
    whole: int = 0
    """Cases or images that it has, of which some are missing; 0: none is."""


class Task(Protocol):
    """One benchmark, read and ready to be asked."""

    @property
    def about(self) -> About:
        """Name, kind and definition."""
        ...

    @property
    def skips_unreadable(self) -> bool:
        """Whether a picture that cannot be read is left out and logged instead of an error."""
        ...

    def sizes(self) -> dict[str, int]:
        """Return how large it is, as its authors count: cases, images, captions, classes."""
        ...

    def pictures(self) -> Sequence[Picture]:
        """Return the pictures that it needs; one may come several times."""
        ...

    def captions(self) -> Sequence[str]:
        """Return the captions that it needs; one may come several times."""
        ...

    def without(self, pictures: Collection[Picture]) -> Task:
        """Return what is left where these pictures are missing. Raises BenchmarkDataError where nothing is."""
        ...

    def result(self, features: Features) -> Result:
        """Return the scores; `features` holds every picture and caption of it."""
        ...


_Case = TypeVar("_Case")
_SURROGATE = re.compile("[\ud800-\udfff]")


def left(about: About, cases: Sequence[_Case], kept: Sequence[_Case], what: str = "cases") -> About:
    """Return what is said of a benchmark of which only these cases are left; BenchmarkDataError where none is."""
    if not kept:
        raise BenchmarkDataError(
            f"{about.name}: no readable image; set its images to the folder that holds them"
        )
    if len(kept) == len(cases):
        return about
    whole = about.whole or len(cases)
    note = f"{PARTIAL}{len(kept):,} of {whole:,} {what}, not comparable with published figures"
    others = about.notes[:-1] if about.whole else about.notes
    return replace(about, notes=(*others, note), whole=whole)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises BenchmarkDataError naming it."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BenchmarkDataError(f"{path}: cannot be read as JSON: {error}") from error


def no_such_file(path: Path) -> BenchmarkDataError:
    """Return the error for a benchmark's file that is missing."""
    return BenchmarkDataError(f"{path}: no such file; sclip fetch says where benchmarks are had")


def each(path: Path, what: str, kind: type[list[Any]] | type[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Return (name, entry) of a JSON list, named by their place from 0, or of a JSON object, by their keys.

    Raises BenchmarkDataError where the file holds something else, or nothing.
    """
    found = read_json(path)
    if not isinstance(found, kind) or not found:
        raise BenchmarkDataError(f"{path}: must hold {'a list' if kind is list else 'an object'} of {what}")
    return entries(path, found)


def entries(path: Path, found: object, what: str = "case") -> list[tuple[str, Any]]:
    """Return (name, entry) of a list or an object of entries as `each` does, of one that was read already.

    Raises BenchmarkDataError naming file and entry where it is neither, or one of them is no object with fields.
    """
    if not isinstance(found, list | dict):
        raise BenchmarkDataError(f"{path}: {what}s={ascii(found)[:50]}: must be a list")
    named = [
        (str(name), entry) for name, entry in (found.items() if isinstance(found, dict) else enumerate(found))
    ]
    for name, entry in named:
        if not isinstance(entry, dict):
            raise BenchmarkDataError(f"{path}: {what} {name}: {ascii(entry)[:50]} is no object with fields")
    return named


def named_once(path: Path, names: Iterable[str]) -> None:
    """Raise BenchmarkDataError where two cases have one name: one would be taken for the other."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BenchmarkDataError(f"{path}: two cases of one id, {twice[0]}")


class at_case:
    """Turn what a bad entry raises into a BenchmarkDataError that names file and case; a context manager."""

    def __init__(self, path: Path, name: Hashable, what: str = "case") -> None:
        self._place = f"{path}: {what} {name}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BenchmarkDataError):
            return
        if isinstance(error, KeyError):
            raise BenchmarkDataError(f"{self._place}: no field {error}") from error
        if isinstance(
            error, (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
        ):
            raise BenchmarkDataError(f"{self._place}: {error}") from error


def text_of(entry: Mapping[str, Any], field: str) -> str:
    """Return a field that must be text; ValueError where it is none or empty, KeyError where it is missing."""
    value = entry[field]
    if not is_text(value):
        raise ValueError(f"{field}={ascii(value)[:50]} is no text")
    return str(value)


def is_text(value: object) -> bool:
    """Return whether a value is text with something in it, which can be written: half of a surrogate pair cannot."""
    return isinstance(value, str) and bool(value.strip()) and not _SURROGATE.search(value)


def box_of(left: int, top: int, width: int, height: int, fields: str) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a crop in pixels; ValueError where it is empty."""
    if width < 1 or height < 1:
        raise ValueError(f"{fields}={width}, {height}: the crop is empty")
    return left, top, left + width, top + height


def images_of(file: Path, images: Path | None) -> Path:
    """Return the folder of the pictures: as given, else `images` beside the file, else the file's own folder."""
    if images is not None:
        return images
    beside = file.parent / "images"
    return beside if beside.is_dir() else file.parent


def located(folder: Path, name: str) -> Path:
    """Return the path of a picture whose name may start at another folder (`data/val2014/COCO_1.jpg`).

    The first that exists: an absolute path itself, the name below the folder, the name without its first
    folders. If none does, the path to report as missing: below the folder the name, or of an absolute path
    (another machine's) the file name alone. Raises ValueError for a name that ends in no file.
    """
    path = Path(name)
    if not path.name:
        raise ValueError(f"{name!a} is no path of a picture")
    places = [folder / Path(*path.parts[start:]) for start in range(len(path.parts))]
    return next((place for place in places if place.is_file()), places[-1 if path.is_absolute() else 0])


def texts_of(entry: Mapping[str, Any], field: str, least: int = 1) -> tuple[str, ...]:
    """Return a field that must be a list of so many texts or more; ValueError where it is none."""
    found = entry[field]
    if not isinstance(found, list) or len(found) < least or not all(map(is_text, found)):
        raise ValueError(f"{field}={ascii(found)[:50]} is no list of {least} or more texts")
    return tuple(found)
