"""Read hard positives from their authors' files: two JSON files of the same name, and Visual Genome's pictures.

Source: Kamath et al., "The hard positive truth about vision-language compositionality", ECCV 2024;
github.com/amitakamath/hard_positives at 33addaa, `run_eval.py`. `data/` has the original caption of each case.
`swapped_data/` has its hard positive (a caption with the same meaning) and its negative. Both folders have these files,
with the cases in the same order:

    visual_genome_attribution.json (SWAP; pictures are crops)
    vl_checklist_attributes.json  vl_checklist_relations.json (REPLACE, the mean of both)

Each score is a share of cases:

    original     the original caption scores strictly higher than the negative
    positive     the hard positive scores strictly higher than the negative
    augmented    both (the headline)
    not_brittle  the negative does not score between these two captions (1 minus the paper's brittleness)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sclip.evaluate.benchmarks import (
    About,
    BenchmarkDataError,
    at_case,
    box_of,
    each,
    images_of,
    located,
    text_of,
)
from sclip.evaluate.picture import Picture
from sclip.evaluate.several import SeveralCase, SeveralTrue

__all__ = ["read"]

_SWAPPED = "swapped_data"


def read(about: About, file: Path, images: Path | None = None) -> SeveralTrue:
    """Return the task of a file in `data/`; `swapped_data/` must lie beside that folder.

    Raises BenchmarkDataError naming file, case and field.
    """
    folder, swapped = images_of(file, images), file.parent.parent / _SWAPPED / file.name
    description = "cases, the hard positives' format"
    originals, positives = each(file, description, list), each(swapped, description, list)
    if len(originals) != len(positives):
        raise BenchmarkDataError(f"{swapped}: has {len(positives)} cases, but {file} has {len(originals)}")
    cases, differ = [], 0
    for (name, original), (_, positive) in zip(originals, positives, strict=True):
        with at_case(swapped, name):
            if original.get("image_path") != positive["image_path"]:
                raise ValueError(f"image_path={positive['image_path']!a}: differs from this case in {file}")
            true, false = text_of(positive, "true_caption"), text_of(positive, "false_caption")
        with at_case(file, name):
            differ += text_of(original, "false_caption") != false
            picture = Picture(str(located(folder, text_of(original, "image_path"))), _box(original))
            cases.append(SeveralCase(name, picture, (text_of(original, "true_caption"), true), false))
    if differ:
        note = f"{differ:,} of {len(cases):,} cases have another false caption in {_SWAPPED}; all scores use that one"
        about = replace(about, notes=(*about.notes, note))
    return SeveralTrue(about, cases, "augmented", ("original", "positive"), together="not_brittle")


def _box(entry: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    if "bbox_x" not in entry:
        return None
    x, y, width, height = (int(entry[f"bbox_{side}"]) for side in "xywh")
    return box_of(x, y, width, height, "bbox_w, bbox_h")
