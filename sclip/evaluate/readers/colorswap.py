"""Read ColorSwap from its authors' files: JSON with a picture folder, or Parquet that holds the pictures.

Source: Burapacheep et al., "ColorSwap: A color and word order dataset for multimodal evaluation", ACL Findings 2024;
github.com/Top34051/colorswap at 4f2c9e4; the dataset stanfordnlp/colorswap. A case has `id`, `caption_1`, `caption_2`,
`image_1` and `image_2` (`images/img_0_1.png`). The text, image and group scores are Winoground's.
"""

from __future__ import annotations

from pathlib import Path

from sclip.evaluate.benchmarks import About, at_case, each, images_of, located, named_once, text_of
from sclip.evaluate.pairs import Pair, Pairs
from sclip.evaluate.picture import Picture
from sclip.evaluate.readers.paired_tables import paired_rows

__all__ = ["read"]

_IMAGES, _CAPTIONS = ("image_1", "image_2"), ("caption_1", "caption_2")


def read(about: About, file: Path, images: Path | None = None) -> Pairs:
    """Return the task of a `test.json` or a `.parquet`. Raises BenchmarkDataError naming file, case and field."""
    if file.suffix == ".parquet":
        return Pairs(about, list(paired_rows(file, _IMAGES, _CAPTIONS)))
    folder = images_of(file, images)
    cases = []
    for number, entry in each(file, "cases, ColorSwap's format", list):
        with at_case(file, number):
            first, second = (Picture(str(located(folder, text_of(entry, column)))) for column in _IMAGES)
            captions = text_of(entry, _CAPTIONS[0]), text_of(entry, _CAPTIONS[1])
            cases.append(Pair(str(entry.get("id", number)), (first, second), captions))
    named_once(file, (case.name for case in cases))
    return Pairs(about, cases)
