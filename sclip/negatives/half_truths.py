"""Make half-truths from negatives. A half-truth is a true text with one false detail added.

CLIP often scores "a dog under a table" above "a dog" although the image has no table (Kargi et al. 2026,
arXiv 2602.23906). The half-truth is the foil, a caption's part as the negative falsified it (`sclip.negatives.units`).
The true text is the foil without its false detail. If the foil is only a false object, the half-truth adds it to the
true part: "a dog and a cat".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sclip.negatives.agreement import article
from sclip.negatives.drawing import Negative
from sclip.negatives.reading import Reading
from sclip.negatives.replaced_objects import SPORTS
from sclip.negatives.units import phrase_of, unit_of
from sclip.scenegraph.graph import SceneGraph

_DEGREES = (
    "very",
    "really",
    "extremely",
    "quite",
    "so",
    "too",
    "rather",
    "more",
    "most",
    "all",
    "half",
    "and",
)
"""Words after which no attribute may be left out: "very [big] dog"."""


@dataclass(frozen=True, slots=True)
class HalfTruth:
    """A true text (`unit`), and the same text with one false detail added (`half_truth`)."""

    kind: Literal["attribute", "relation", "object"]
    unit: str
    half_truth: str


def half_truth_of(caption: SceneGraph | Reading, negative: Negative) -> HalfTruth | None:
    """Return the half-truth of a caption's negative; None if the rules find none in correct English."""
    pair = unit_of(caption, negative)
    if pair is None:
        return None
    if pair.foil.relations:
        subject = phrase_of(pair.foil, 0)
        if subject not in (phrase_of(pair.unit, 0), phrase_of(pair.unit, 1)):
            return None  # the wrong detail is the subject, so no true part remains
        is_object = pair.kind == "replaced object"
        return HalfTruth("object" if is_object else "relation", subject, pair.foil.caption)
    if pair.kind == "replaced object":
        if pair.foil.objects[0].name.partition(" ")[0] in SPORTS:
            return None  # a "baseball racket"
        return HalfTruth("object", pair.unit.caption, f"{pair.unit.caption} and {pair.foil.caption}")
    unit = _without_new_attribute(pair.unit, pair.foil)
    return HalfTruth("attribute", unit, pair.foil.caption) if unit else None


def _without_new_attribute(unit: SceneGraph, foil: SceneGraph) -> str:
    """Return the foil without its only new attribute; "" means that this is impossible or not English."""
    known = {a.attribute for a in unit.attributes}
    new = [a.span for a in foil.attributes if a.attribute not in known]
    if len(new) != 1:
        return ""
    before, rest = foil.caption[: new[0][0]], foil.caption[new[0][1] :]
    words = before.lower().split()
    if not rest and len(words) > 1:
        return before.rstrip()  # "a man standing"
    if not rest[:2].strip().isalpha() or not rest.startswith(" ") or rest.startswith((" and ", " or ")):
        return ""
    if before.rstrip() != before[:-1] or (words and (words[-1] in _DEGREES or words[-1].endswith("ly"))):
        return ""
    rest = rest.lstrip()
    if words and words[-1] in ("a", "an"):
        before = f"{before.rstrip()[: -len(words[-1])]}{article(rest)} "
    return before + rest
