"""Group the rows of a source into a `RawSample` per image; count skipped rows with their place in the source.

The readers (`tables`, `caption_json`, `parquet`) turn files into rows: one column names the image, another holds its
captions, a third may name the split. Grouping takes one pass, and keeps the captions but not the images in memory.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sclip.data.parquet import IMAGE_FIELDS, Fault
from sclip.prepare.cells import captions_of, image_path, is_image, key_of, spelled_list
from sclip.prepare.pack import RawSample, Skips
from sclip.prepare.writing import PackError
from sclip.storage.globs import files_below

CAPTION_FIELDS = (
    "captions", "caption", "sentences", "sentences_raw", "raw", "comment", "text", "title",
    "original_caption", "original",
)  # fmt: skip
KEPT_FIELDS = (
    "neg_caption", "neg_captions", "negatives", "enhanced", "swap_negatives", "negative_components",
    "paraphrased_caption", "relation_aug_caption", "adj_aug_caption", "noun_aug_caption", "verb_aug_caption",
)  # fmt: skip
"""Fields that come with captions in the files of NegCLIP, DeGLA, CS-CLIP and CE-CLIP (`sclip.data.foreign`)."""
SPLIT_FIELDS = ("split", "subset", "partition", "fold")
"""Names of split columns, in any letter case. In columns other than "split", only SPLIT_WORDS count as a split."""
SPLIT_WORDS = ("train", "restval", "validation", "valid", "val", "dev", "test", "eval")
FOLDER_FIELD = "filepath"
"""Field of Karpathy's files with the folder of the image that `filename` names."""
ID_FIELD = "image_id"
TRAIN = {"train", "restval"}
"""Training splits. Karpathy's "restval" is the rest of COCO's val2014."""

Row = tuple[str, Mapping[str, Any] | str]
"""Place of a row ("pairs.csv line 3"), and its fields. An unreadable row has a reason instead of fields."""
Root = tuple[Path, bool]
"""Base folder of relative image paths, and whether images that no row names are also searched in its subfolders."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Fields and splits that the user chooses; empty values mean the defaults."""

    image_field: str = ""
    caption_field: str = ""
    splits: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Fields besides KEPT_FIELDS that the sample's .json keeps, as a list with one value per caption."""

    @property
    def kept_fields(self) -> tuple[str, ...]:
        """All fields that are kept if a row has them."""
        return tuple(dict.fromkeys((*KEPT_FIELDS, *self.kept)))


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that are read; a name is empty if the source has no such column."""

    image: str
    caption: str
    folder: str = ""

    @classmethod
    def choose(cls, source: Path, row: Mapping[str, Any], choice: Choice) -> Columns:
        """Return the columns of a source from its first row. Raises PackError if they are missing or ambiguous."""
        image = _field(source, row, choice.image_field, IMAGE_FIELDS, "--image-field")
        caption = _field(source, row, choice.caption_field, CAPTION_FIELDS, "--caption-field")
        alternatives = [name for name in CAPTION_FIELDS if name in row and name not in (caption, image)]
        if not choice.caption_field and alternatives not in ([], ["caption"]):
            names = " and ".join((caption, *alternatives))
            raise PackError(f"{source}: {names} could each be the caption; choose with --caption-field")
        in_folder = not choice.image_field and image == "filename" and FOLDER_FIELD in row
        folder = FOLDER_FIELD if in_folder and not is_image(str(row[FOLDER_FIELD])) else ""
        return cls(image, caption, folder)

    def unread(self, names: Iterable[str], choice: Choice) -> list[str]:
        """Return a note about the columns that are not packed, as a list; empty if all are packed."""
        read = (self.image, self.caption, self.folder, ID_FIELD, *choice.kept_fields)
        unused = [name for name in names if name not in read and name.lower() != SPLIT_FIELDS[0]]
        return [f"fields that are not packed: {_listed(unused)}"] if unused else []


def _field(source: Path, row: Mapping[str, Any], chosen: str, usual: Sequence[str], option: str) -> str:
    wanted = (chosen,) if chosen else usual
    for name in wanted:
        if name in row or "{" in name:
            return name
    names = _listed(map(str, row))
    raise PackError(f"{source}: no field {' or '.join(wanted)} (fields: {names}); set {option}")


def _listed(names: Iterable[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 200 else f"{text[:200]}.."


def split_of(row: Mapping[str, Any]) -> str:
    """Return the split that a row names; empty if it names none."""
    values = {name.lower(): value for name, value in row.items() if name.lower() in SPLIT_FIELDS}
    for name in SPLIT_FIELDS:
        value = "" if values.get(name) is None else str(values[name]).strip()
        if value and (name == SPLIT_FIELDS[0] or value.lower() in SPLIT_WORDS):
            return value
    return ""


@dataclass
class Splits:
    """Splits that the user wants, and the number of rows of each split in the source."""

    wanted: tuple[str, ...]
    counts: Counter[str] = field(default_factory=Counter)

    def check(self, name: str) -> None:
        """Count a row of split `name` ("" for none). Raises Fault if the user does not want this split."""
        self.counts[name] += 1
        wanted = {*self.wanted, *(TRAIN if "train" in self.wanted else ())}
        if wanted and name not in wanted:
            raise Fault(f"its split {name!r} is not in --split")

    def judge(self, source: Path) -> None:
        """Raise PackError if a wanted split is missing, or if the user must choose between the source's splits."""
        listed = ", ".join(f"{name or '(none)'} ({count:,})" for name, count in self.counts.most_common())
        if self.wanted and set(self.counts) <= {""}:
            raise PackError(f"{source}: has no splits; leave out --split")
        if unknown := [name for name in self.wanted if name not in self.counts]:
            raise PackError(f"{source}: has no split {unknown[0]!r}, only {listed}; choose with --split")
        # The user need not choose if no row has a split, or if all splits are for training.
        if not self.wanted and not (set(self.counts) <= {""} or set(self.counts) <= TRAIN):
            hint = "choose with --split NAME, once for each (train takes restval too)"
            raise PackError(f"{source}: has the splits {listed}; {hint}")


@dataclass(slots=True)
class _Image:
    place: str
    folder: str
    extra: dict[str, Any]
    captions: list[str] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    fault: str = ""


def group(
    source: Path, rows: Iterable[Row], roots: Sequence[Root], choice: Choice, skips: Skips, *, spelled: bool
) -> list[RawSample]:
    """Return one sample per image that the rows name, in the order of first rows; count the skipped rows.

    Args:
        source: path that messages show.
        rows: output of a reader.
        roots: possible base folders of image paths. The first folder that holds the first image is used, else roots[0].
        choice: fields and splits that the user chooses.
        skips: gets the number of all rows, the skipped rows, and notes, for example on images that no row names.
        spelled: whether a caption cell may be a list as text, such as '["a dog", "a pet"]'.
    """
    columns: Columns | None = None
    splits = Splits(choice.splits)
    images: dict[str, _Image] = {}
    paths: set[str] = set()
    blank = Skips()
    roots = [(Path(os.path.abspath(root)), deep) for root, deep in roots]
    root = ""
    for place, row in rows:
        skips.rows += 1
        try:
            if isinstance(row, str):
                raise Fault(row)
            if columns is None:
                columns = Columns.choose(source, row, choice)
                skips.notes += columns.unread(row, choice)
            name, folder = _image_name(columns.image, row), str(row.get(columns.folder) or "")
            if not root:
                roots = [_root(roots, columns.image, name, folder)]
                root = str(roots[0][0])
            path, is_flat = image_path(root, columns.image, name, folder)
            paths.add(path)
            splits.check(split_of(row))
            value = row.get(columns.caption)
            captions = captions_of(columns.caption, spelled_list(value) if spelled else value)
        except Fault as fault:
            skips.add(str(fault), place)
            continue
        image = images.get(path)
        if image is None:
            extra = {"source": str(name).strip()}
            if isinstance(row.get(ID_FIELD), int | str):
                extra[ID_FIELD] = row[ID_FIELD]
            image = images[path] = _Image(place, folder, extra)
        image.captions += captions
        image.kept += kept_values(row, len(captions), choice, place, blank)
        image.rows += 1
        if is_flat and image.folder != folder:
            image.fault = "image name occurs in several folders that are not in the image folder"
        if blanks := sum(not caption.strip() for caption in captions):
            blank.add("blank captions beside others", place, blanks)
    splits.judge(source)
    skips.notes += blank.noted()
    base, deep = roots[0]
    skips.notes += _unnamed(base, paths, deep)
    return list(_samples(images, base, skips))


def _image_name(column: str, row: Mapping[str, Any]) -> Any:
    """Return a row's image name: a cell, or a template filled with cells, such as `COCO_{image_id:012}.jpg`."""
    try:
        return column.format_map(row) if "{" in column else row.get(column)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise Fault(f"row that cannot fill the template {column}") from None


def kept_values(
    row: Mapping[str, Any], count: int, choice: Choice, place: str, skips: Skips
) -> list[dict[str, Any]]:
    """Return the kept fields of each of a row's `count` captions; count malformed fields in `skips`."""
    kept: list[dict[str, Any]] = [{} for _ in range(count)]
    for name in choice.kept_fields:
        value = row.get(name)
        if value is None or value == "":
            continue
        try:
            value = spelled_list(value)
            if (
                count > 1
                and not isinstance(value, dict)
                and not (isinstance(value, list) and len(value) == count)
            ):
                raise Fault(f"no entry for each of {count} captions")
        except Fault:
            skips.add(f"values of {name} that are not a list with one entry per caption, not packed", place)
            continue
        for number, fields in enumerate(kept):
            fields[name] = value[number] if count > 1 and isinstance(value, list) else value
    return kept


def by_field(captions: Sequence[str], kept: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the kept fields by name, with one value for each caption that is not blank."""
    records = [fields for caption, fields in zip(captions, kept, strict=True) if caption.strip()]
    return {
        name: [fields.get(name) for fields in records]
        for name in dict.fromkeys(name for fields in kept for name in fields)
    }


def _root(roots: Sequence[Root], column: str, name: Any, folder: str) -> Root:
    paths = [image_path(str(root), column, name, folder)[0] for root, _ in roots]
    return next((root for root, path in zip(roots, paths, strict=True) if os.path.isfile(path)), roots[0])


def _samples(images: dict[str, _Image], root: Path, skips: Skips) -> Iterator[RawSample]:
    for path, image in images.items():
        if image.fault:
            skips.add(image.fault, image.place, image.rows)
            continue
        file = Path(path)
        key = key_of(file.relative_to(root if file.is_relative_to(root) else file.anchor))
        extra = image.extra | by_field(image.captions, image.kept)
        yield RawSample(key, file, tuple(image.captions), extra, place=image.place, rows=image.rows)


def _unnamed(root: Path, named: set[str], deep: bool) -> list[str]:
    folders = {str(root)} if deep else {os.path.dirname(path) for path in named}
    files = [
        file
        for folder in sorted(filter(os.path.isdir, folders))
        for file in files_below(folder, "**/*" if deep else "*")
    ]
    unnamed = [file for file in files if is_image(file) and file not in named]
    return [f"{len(unnamed)} images in the image folder have no row (first: {unnamed[0]})"] if unnamed else []
