"""Read a benchmark in our own JSON form: pictures, each with a true caption and false ones.

    [{"image": "a.jpg", "caption": "a dog on a sofa", "false_captions": ["a sofa on a dog"],
      "group": "swap", "id": "17", "box": [10, 20, 300, 200]}, ...]

`image` is relative to the image folder. Three fields are optional: `group`, `id` (default: the index in the
list) and `box` (left, top, width and height of a crop in pixels). With groups, the mean over groups is the
headline. A case is won if the true caption scores strictly higher than every false one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sclip.evaluate.benchmarks import About, at_case, box_of, each, images_of, is_text, named_once, text_of
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.picture import Picture

__all__ = ["read"]


def read(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of a file. Raises BenchmarkDataError naming file, case and field."""
    folder = images_of(file, images)
    cases = []
    for number, entry in each(file, "cases with image, caption and false_captions", list):
        with at_case(file, number):
            picture = Picture(str(folder / text_of(entry, "image")), _box(entry))
            case = ChoiceCase(
                str(entry.get("id", number)), picture, text_of(entry, "caption"), _false(entry),
                str(entry.get("group", "")),
            )  # fmt: skip
            cases.append(case)
    named_once(file, (case.name for case in cases))
    return Choice(about, cases, macro=any(case.group for case in cases))


def _false(entry: Mapping[str, Any]) -> tuple[str, ...]:
    texts = entry["false_captions"]
    if not isinstance(texts, list) or not texts or not all(map(is_text, texts)):
        raise ValueError(f"false_captions={texts!r} must be a list of texts")
    return tuple(texts)


def _box(entry: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    if entry.get("box") is None:
        return None
    x, y, width, height = (int(number) for number in entry["box"])
    return box_of(x, y, width, height, "box: width, height")
