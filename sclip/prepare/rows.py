"""Group the rows of a source (place, fields) into a `RawSample` per image; rows left out are counted with their place.

The readers beside this file (`tables`, `caption_json`, `parquet`) differ in how a file becomes rows. What a row means
is the same for all: a column names the image, another holds its caption or captions, a third may name the split. Rows
of the same image are put together, which takes one pass over the rows and their captions (not the images) in memory.
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
"""What comes with captions in the files of NegCLIP, DeGLA, CS-CLIP and CE-CLIP (`sclip.data.foreign`)."""
SPLIT_FIELDS = ("split", "subset", "partition", "fold")
"""In any case of letters; all but the first count only where they hold one of SPLIT_WORDS."""
SPLIT_WORDS = ("train", "restval", "validation", "valid", "val", "dev", "test", "eval")
FOLDER_FIELD = "filepath"
"""Of Karpathy's files: the folder of the image that `filename` names."""
ID_FIELD = "image_id"
TRAIN = {"train", "restval"}
"""Splits that are there to train on; Karpathy's "restval" is the rest of COCO's val2014."""

Row = tuple[str, Mapping[str, Any] | str]
"""Place ("pairs.csv line 3") and fields of a row, or the reason why it has none."""
Root = tuple[Path, bool]
"""A folder that relative image paths start at, and whether all images in it, at any depth, are of the source."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Fields and splits that the user chooses; empty ones mean the usual."""

    image_field: str = ""
    caption_field: str = ""
    splits: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Fields to keep in the .json beside KEPT_FIELDS, a value for each caption."""

    @property
    def kept_fields(self) -> tuple[str, ...]:
        """All fields that are kept, where a row has them."""
        return tuple(dict.fromkeys((*KEPT_FIELDS, *self.kept)))


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that are read; an empty name is a column that the source has not."""

    image: str
    caption: str
    folder: str = ""

    @classmethod
    def choose(cls, source: Path, row: Mapping[str, Any], choice: Choice) -> Columns:
        """Return the columns of a source by its first row; raises PackError where they are not clear."""
        image = _field(source, row, choice.image_field, IMAGE_FIELDS, "--image-field")
        caption = _field(source, row, choice.caption_field, CAPTION_FIELDS, "--caption-field")
        others = [name for name in CAPTION_FIELDS if name in row and name not in (caption, image)]
        if not choice.caption_field and others not in ([], ["caption"]):
            names = " and ".join((caption, *others))
            raise PackError(f"{source}: {names} may all be the caption; choose with --caption-field")
        in_folder = not choice.image_field and image == "filename" and FOLDER_FIELD in row
        folder = FOLDER_FIELD if in_folder and not is_image(str(row[FOLDER_FIELD])) else ""
        return cls(image, caption, folder)

    def unread(self, names: Iterable[str], choice: Choice) -> list[str]:
        """Return a line about the columns that are not packed; none where there is none."""
        read = (self.image, self.caption, self.folder, ID_FIELD, *choice.kept_fields)
        others = [name for name in names if name not in read and name.lower() != SPLIT_FIELDS[0]]
        return [f"fields that are not packed: {_listed(others)}"] if others else []


def _field(source: Path, row: Mapping[str, Any], chosen: str, usual: Sequence[str], option: str) -> str:
    wanted = (chosen,) if chosen else usual
    for name in wanted:
        if name in row or "{" in name:
            return name
    names = _listed(map(str, row))
    raise PackError(f"{source}: no field {' or '.join(wanted)} among {names}; name it: {option}")


def _listed(names: Iterable[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 200 else f"{text[:200]}.."


def split_of(row: Mapping[str, Any]) -> str:
    """Return the split that a row says it is of; empty where it says none."""
    values = {name.lower(): value for name, value in row.items() if name.lower() in SPLIT_FIELDS}
    for name in SPLIT_FIELDS:
        value = "" if values.get(name) is None else str(values[name]).strip()
        if value and (name == SPLIT_FIELDS[0] or value.lower() in SPLIT_WORDS):
            return value
    return ""


@dataclass
class Splits:
    """The splits that a source's rows are of, and those of them that the user wants."""

    wanted: tuple[str, ...]
    counts: Counter[str] = field(default_factory=Counter)

    def check(self, name: str) -> None:
        """Count a row of this split, which may be none (""); raises Fault where it is left out."""
        self.counts[name] += 1
        wanted = {*self.wanted, *(TRAIN if "train" in self.wanted else ())}
        if wanted and name not in wanted:
            raise Fault(f"of the split {name!r}, which --split leaves out")

    def judge(self, source: Path) -> None:
        """Raise PackError where the rows are of other splits than the user says, or of more than training may see.

        Rows without a split beside others with one may be of any.
        """
        listed = ", ".join(f"{name or '(none)'} ({count:,})" for name, count in self.counts.most_common())
        if self.wanted and set(self.counts) <= {""}:
            raise PackError(f"{source}: has no splits; leave out --split")
        if unknown := [name for name in self.wanted if name not in self.counts]:
            raise PackError(f"{source}: has no split {unknown[0]!r} but {listed}; choose with --split")
        if not self.wanted and not (set(self.counts) <= {""} or set(self.counts) <= TRAIN):
            hint = "choose with --split NAME, once for each (train takes restval too)"
            raise PackError(f"{source}: has the splits {listed}; {hint}")


@dataclass(slots=True)
class _Image:
    """Everything that the rows so far say about one image."""

    place: str
    folder: str
    extra: dict[str, Any]
    captions: list[str] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Of each caption, what came with it."""
    rows: int = 0
    fault: str = ""


def group(
    source: Path, rows: Iterable[Row], roots: Sequence[Root], choice: Choice, skips: Skips, *, spelled: bool
) -> list[RawSample]:
    """Return a sample for each image that the rows name, in the order of its first row; count the other rows.

    Args:
        source: what messages name.
        rows: of a reader.
        roots: folders that relative image paths may start at: the first that has the first image, else the first.
        choice: fields and splits.
        skips: counts the rows, those left out, and the images of the root that no row names.
        spelled: whether the text of a caption cell may spell a list.
    """
    columns: Columns | None = None
    splits = Splits(choice.splits)
    images: dict[str, _Image] = {}
    named: set[str] = set()
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
            named.add(path)
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
            image.fault = "images of this name are of several folders, which are not below the image folder"
        if blanks := sum(not caption.strip() for caption in captions):
            blank.add("blank captions beside others", place, blanks)
    splits.judge(source)
    skips.notes += blank.noted()
    at, deep = roots[0]
    skips.notes += _unnamed(at, named, deep)
    return list(_samples(images, at, skips))


def _image_name(column: str, row: Mapping[str, Any]) -> Any:
    """Return what a row says of its image: a cell, or a name that is made of cells, `COCO_{image_id:012}.jpg`."""
    try:
        return column.format_map(row) if "{" in column else row.get(column)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise Fault(f"row of which no name {column} can be made") from None


def kept_values(
    row: Mapping[str, Any], count: int, choice: Choice, place: str, left_out: Skips
) -> list[dict[str, Any]]:
    """Return what a row says of each of its captions, by field; count into `left_out` what is of no form."""
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
            left_out.add(f"{name} that are no list with an entry for each caption, and are not packed", place)
            continue
        for number, of_caption in enumerate(kept):
            of_caption[name] = value[number] if count > 1 and isinstance(value, list) else value
    return kept


def by_field(captions: Sequence[str], kept: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the fields of a .json that hold what came with the captions, a value for each that is not blank."""
    of_captions = [of for caption, of in zip(captions, kept, strict=True) if caption.strip()]
    return {
        name: [of.get(name) for of in of_captions]
        for name in dict.fromkeys(name for of in kept for name in of)
    }


def _root(roots: Sequence[Root], column: str, name: Any, folder: str) -> Root:
    """Return the first of the folders that has the image; the first of all where none has it."""
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
        yield RawSample(
            key, file, file.suffix.removeprefix(".").lower(), tuple(image.captions), extra,
            place=image.place, rows=image.rows,
        )  # fmt: skip


def _unnamed(root: Path, named: set[str], deep: bool) -> list[str]:
    """Return a line about the images below `root` that no row names, if there are any."""
    folders = {str(root)} if deep else {os.path.dirname(path) for path in named}
    files = [
        file
        for folder in sorted(filter(os.path.isdir, folders))
        for file in files_below(folder, "**/*" if deep else "*")
    ]
    unnamed = [file for file in files if is_image(file) and file not in named]
    return (
        [f"{len(unnamed)} images of the image folder are named in no row (first: {unnamed[0]})"]
        if unnamed
        else []
    )
