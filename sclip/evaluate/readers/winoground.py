"""Read Winoground from its authors' files: `examples.jsonl` and the picture folder.

Source: Thrush et al., "Winoground: Probing vision and language models for visio-linguistic compositionality",
CVPR 2022; the dataset `facebook/winoground`, after you accept its license on its page. Each of the 400 lines has
`id`, `image_0`, `image_1` (`ex_0_img_0`, the picture's name without its suffix), `caption_0`, `caption_1` and
`collapsed_tag` (Object, Relation or Both).
"""

from __future__ import annotations

from pathlib import Path

from sclip.evaluate.benchmarks import (
    About,
    at_case,
    images_of,
    named_once,
    text_of,
)
from sclip.evaluate.pairs import Pair, Pairs
from sclip.evaluate.picture import Picture
from sclip.evaluate.readers.lines import json_lines

__all__ = ["read"]


def read(about: About, file: Path, images: Path | None = None) -> Pairs:
    """Return the task of an `examples.jsonl`. Raises BenchmarkDataError naming file, case and field."""
    folder = images_of(file, images)
    cases = []
    for number, entry in json_lines(file):
        with at_case(file, number):
            first, second = (_picture(folder, text_of(entry, f"image_{side}")) for side in (0, 1))
            captions = text_of(entry, "caption_0"), text_of(entry, "caption_1")
            group = str(entry.get("collapsed_tag", ""))
            cases.append(Pair(str(entry.get("id", number)), (first, second), captions, group))
    named_once(file, (case.name for case in cases))
    return Pairs(about, cases)


def _picture(folder: Path, name: str) -> Picture:
    return Picture(str(folder / (name if Path(name).suffix else f"{name}.png")))
