"""Read retrieval benchmarks with long captions from their authors' files: pictures with one caption each.

- Urban1k (Zhang et al., "Long-CLIP: Unlocking the long-text capability of CLIP", ECCV 2024;
  github.com/beichenzbc/Long-CLIP at 3966af9, `eval/retrieval/Urban1k.py`): a folder of `image/NNN.jpg` and
  `caption/NNN.txt`, whose first line is the caption. The authors report R@1 in both directions.
- DOCCI (Onoe et al., "DOCCI: Descriptions of connected and contrasting images", ECCV 2024): a line of
  `docci_descriptions.jsonlines` has `example_id`, `split` (5,000 test), `image_file` and `description`.

CLIP reads only the beginning of most of these captions; the result reports how many were truncated.
"""

from __future__ import annotations

from pathlib import Path

from sclip.evaluate.benchmarks import About, BenchmarkDataError, at_case, images_of, is_text, text_of
from sclip.evaluate.picture import Picture
from sclip.evaluate.readers.lines import json_lines, text
from sclip.evaluate.retrieval import Captioned, Retrieval

__all__ = ["docci", "urban1k"]


def urban1k(about: About, file: Path) -> Retrieval:
    """Return the task of Urban1k's folder. Raises BenchmarkDataError naming the folder or the caption file."""
    paths = sorted((file / "caption").glob("*.txt"))
    if not paths:
        raise BenchmarkDataError(f"{file}: no captions; it must hold image/NNN.jpg and caption/NNN.txt")
    records = []
    for path in paths:
        caption = text(path).split("\n")[0].strip()
        if not is_text(caption):
            raise BenchmarkDataError(f"{path}: the first line must be a caption, but is blank")
        records.append(Captioned(path.stem, Picture(str(file / "image" / f"{path.stem}.jpg")), (caption,)))
    return Retrieval(about, records)


def docci(about: About, file: Path, images: Path | None = None, split: str = "test") -> Retrieval:
    """Return the task of a split of DOCCI. Raises BenchmarkDataError naming file, line and field."""
    folder = images_of(file, images)
    records = []
    for number, entry in json_lines(file):
        with at_case(file, number):
            if text_of(entry, "split") == split:
                picture = Picture(str(folder / text_of(entry, "image_file")))
                records.append(
                    Captioned(text_of(entry, "example_id"), picture, (text_of(entry, "description"),))
                )
    if not records:
        raise BenchmarkDataError(f"{file}: no description in split {split!r}")
    return Retrieval(about, records)
