"""Read half-truths that `sclip halftruth` wrote: JSON Lines and a folder of images.

    {"image": "a.jpg", "unit": "a dog", "half_truth": "a dog on a skateboard", "kind": "relation"}

A case is won if `unit`, a true part of a caption, scores strictly higher than `half_truth`, the same part with a wrong
detail (Kargi et al., "Half-Truths Break Similarity-Based Retrieval", arXiv 2602.23906). The paper's figures are not
comparable, because a language model wrote its cases. Each kind is a group.
"""

from __future__ import annotations

from pathlib import Path

from sclip.evaluate.benchmarks import About, at_case, images_of, text_of
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.picture import Picture
from sclip.evaluate.readers.lines import json_lines

__all__ = ["read"]


def read(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of a file. Raises BenchmarkDataError naming file, case and field."""
    folder = images_of(file, images)
    cases = []
    for number, entry in json_lines(file):
        with at_case(file, number):
            picture = Picture(str(folder / text_of(entry, "image")))
            true, false = text_of(entry, "unit"), text_of(entry, "half_truth")
            cases.append(ChoiceCase(str(number), picture, true, (false,), str(entry.get("kind", ""))))
    return Choice(about, cases)
