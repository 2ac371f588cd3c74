"""Read MMVP-VLM from its authors' files: `Questions.csv` and a folder of pictures for each pattern.

Source: Tong et al., "Eyes wide shut? Exploring the visual shortcomings of multimodal LLMs", CVPR 2024; the
dataset MMVP/MMVP_VLM; github.com/tsb0601/MMVP at 7635005, `scripts/evaluate_vlm.py`.

A row has an id, a visual pattern and a statement; two adjacent rows are a pair. Pictures are `PATTERN/ID.jpg`. A
pair is won if each statement, prefixed with "a photo of ", scores higher with its picture than with the other
(Winoground's image score). A tie is lost. Each of the nine patterns is a group of 15 pairs.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from sclip.evaluate.benchmarks import About, BenchmarkDataError, at_case, images_of, named_once
from sclip.evaluate.pairs import Pair, Pairs
from sclip.evaluate.picture import Picture
from sclip.evaluate.readers.lines import text

__all__ = ["read"]

_FOLDER = "MLLM_VLM Images"
_PROMPT = "a photo of "


def read(about: About, file: Path, images: Path | None = None) -> Pairs:
    """Return the task of a `Questions.csv`. Raises BenchmarkDataError naming file and row."""
    own = file.parent / _FOLDER
    folder = own if images is None and own.is_dir() else images_of(file, images)
    try:
        _, *rows = [row for row in csv.reader(io.StringIO(text(file), newline="")) if row] or [[]]
    except csv.Error as error:
        raise BenchmarkDataError(f"{file}: {error}") from error
    if not rows or len(rows) % 2:
        raise BenchmarkDataError(
            f"{file}: must hold a header and two rows for each pair, but has {len(rows)} rows after the header"
        )
    cases = []
    for number in range(0, len(rows), 2):
        with at_case(file, number, "row"):
            if any(len(row) != 3 or not row[2].strip() for row in rows[number : number + 2]):
                raise ValueError("a row must hold id, pattern and statement")
            (first, pattern, one), (second, _, other) = rows[number : number + 2]
            if int(first) % 2 == 0 or int(second) != int(first) + 1:
                raise ValueError(
                    f"ids {first} and {second}: the first id of a pair must be odd, the second one higher"
                )
            pictures = tuple(
                Picture(str(folder / pattern / f"{int(image)}.jpg")) for image in (first, second)
            )
            captions = (_PROMPT + one, _PROMPT + other)
            cases.append(Pair(f"{int(first)}", (pictures[0], pictures[1]), captions, pattern))
    named_once(file, (case.name for case in cases))
    return Pairs(about, cases, headline="image")
