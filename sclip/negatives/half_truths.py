"""Negative -> a true part of its caption, and the same part with one wrong detail added (method, section 10).

CLIP often scores "a dog under a table" above "a dog" although no table is there: the half-truth of Kargi et al. 2026
(arXiv 2602.23906). Here the wrong detail is that of a unit's foil (`sclip.negatives.units`), and the true part is the
foil without it.
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
"""Words that need the attribute behind them."""


@dataclass(frozen=True, slots=True)
class HalfTruth:
    """A text that is true of the picture, and one that says more and is false."""

    kind: Literal["attribute", "relation", "object"]
    """What was added."""
    unit: str
    half_truth: str


def half_truth_of(caption: SceneGraph | Reading, negative: Negative) -> HalfTruth | None:
    """Return the half-truth that a negative of a caption gives, None where it gives none in plain English."""
    pair = unit_of(caption, negative)
    if pair is None:
        return None
    if pair.foil.relations:
        subject = phrase_of(pair.foil, 0)
        if subject not in (phrase_of(pair.unit, 0), phrase_of(pair.unit, 1)):
            return None  # the wrong detail is the subject, without which nothing is left
        is_object = pair.kind == "replaced object"
        return HalfTruth("object" if is_object else "relation", subject, pair.foil.caption)
    if pair.kind == "replaced object":
        if pair.foil.objects[0].name.partition(" ")[0] in SPORTS:
            return None  # a "baseball racket"
        return HalfTruth("object", pair.unit.caption, f"{pair.unit.caption} and {pair.foil.caption}")
    unit = _without_new_attribute(pair.unit, pair.foil)
    return HalfTruth("attribute", unit, pair.foil.caption) if unit else None


def _without_new_attribute(unit: SceneGraph, foil: SceneGraph) -> str:
    """Return the foil without the one attribute that its unit has not; empty where that is no English."""
    known = {a.attribute for a in unit.attributes}
    new = [a.span for a in foil.attributes if a.attribute not in known]
    if len(new) != 1:
        return ""
    before, behind = foil.caption[: new[0][0]], foil.caption[new[0][1] :]
    words = before.lower().split()
    if not behind and len(words) > 1:
        return before.rstrip()  # "a man standing"
    if not behind[:2].strip().isalpha() or not behind.startswith(" ") or behind.startswith((" and ", " or ")):
        return ""
    if before.rstrip() != before[:-1] or (words and (words[-1] in _DEGREES or words[-1].endswith("ly"))):
        return ""
    behind = behind.lstrip()
    if words and words[-1] in ("a", "an"):
        before = f"{before.rstrip()[: -len(words[-1])]}{article(behind)} "
    return before + behind
