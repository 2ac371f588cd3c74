"""Build the card of a case that a model got wrong: image, true and preferred caption, both graphs, and scores."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

from sclip.report.layout import Drawing, lay_out
from sclip.report.texts import Piece, differing, shortened
from sclip.scenegraph import SceneGraph

if TYPE_CHECKING:
    from sclip.evaluate.result import Candidate, Example

__all__ = ["GraphsOf", "Option", "Wrong", "drawn_captions", "wrong_cases"]

SIDE = 240
"""Maximum side of an image on the page, in pixels."""
QUALITY = 70
"""Quality of WebP images. 192 photographs take 1.6 MB; as JPEGs of quality 80, they would take 3.0 MB."""

GraphsOf = Callable[[Sequence[str]], Sequence[SceneGraph]]
"""A parser that returns one graph for each caption."""


@dataclass(frozen=True, slots=True)
class Option:
    """One of the captions or images that the model chose from."""

    pieces: list[Piece]
    score: str
    width: float
    """Width of the cosine's bar, in percent; the largest absolute cosine of the case is 100."""
    is_true: bool
    graph: Drawing | None = None


@dataclass(frozen=True, slots=True)
class Wrong:
    """The card of one case."""

    case: str
    group: str
    picture: str
    """Data URI of the image; empty if there is none."""
    alt: str
    true: Option | None
    """The true option with the highest score."""
    false: Option | None
    """The false option with the highest score."""
    told: str
    """Margin by which the false option won, in words."""
    ranked: list[Option]
    """All options, highest score first; empty if there are only two."""


def drawn_captions(examples: Iterable[Example]) -> list[str]:
    """Return the captions whose graphs the cards show, without duplicates."""
    return list(dict.fromkeys(c.text for example in examples for c in _best(example) if c))


def wrong_cases(examples: Iterable[Example], graphs: dict[str, SceneGraph]) -> list[Wrong]:
    """Return the cards. `graphs` maps the `drawn_captions` to their graphs; if empty, no graphs are drawn."""
    return [_wrong(example, graphs) for example in examples]


def _best(example: Example) -> tuple[Candidate | None, Candidate | None]:
    true, false = (
        max((c for c in example.candidates if c.is_true is wanted), key=_rank, default=None)
        for wanted in (True, False)
    )
    return true, false


def _rank(candidate: Candidate) -> float:
    return candidate.score if math.isfinite(candidate.score) else -math.inf


def _wrong(example: Example, graphs: dict[str, SceneGraph]) -> Wrong:
    best = true, false = _best(example)
    most = max((abs(c.score) for c in example.candidates if math.isfinite(c.score)), default=0.0)

    def option(candidate: Candidate, other: Candidate | None, drawn: bool = False) -> Option:
        pieces, _ = differing(candidate.text, other.text if other else candidate.text)
        width = 100 * max(0.0, candidate.score) / most if most and math.isfinite(candidate.score) else 0.0
        graph = (
            _drawing(graphs.get(candidate.text), graphs.get(other.text) if other else None) if drawn else None
        )
        return Option(pieces, f"{candidate.score:.4f}", round(width, 1), candidate.is_true, graph)

    with_graphs = any(graphs[c.text].triples() for c in best if c and c.text in graphs)
    ranked = sorted(example.candidates, key=_rank, reverse=True) if len(example.candidates) > 2 else []
    return Wrong(
        shortened(example.case, 80),
        shortened(example.group, 80),
        _thumbnail(example.picture),
        shortened(true.text if true else example.case, 300),
        option(true, false, with_graphs) if true else None,
        option(false, true, with_graphs) if false else None,
        _verdict(true, false),
        [option(candidate, None) for candidate in ranked],
    )


def _thumbnail(picture: bytes) -> str:
    file = io.BytesIO()
    try:
        with Image.open(io.BytesIO(picture), formats=["JPEG", "PNG", "WEBP"]) as opened:
            small = opened.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        small.save(file, "WEBP", quality=QUALITY)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _verdict(true: Candidate | None, false: Candidate | None) -> str:
    if not true or not false:
        return ""
    margin = false.score - true.score
    if not math.isfinite(margin):
        return "a score is not a number: counts as wrong"
    if margin > 0:
        return f"the false one scores {margin:.4f} higher"
    return "a tie: counts as wrong" if margin == 0 else ""


def _drawing(graph: SceneGraph | None, other: SceneGraph | None) -> Drawing | None:
    if graph is None:
        return None
    return lay_out(graph, _shared(graph, other) if other else None)


def _shared(graph: SceneGraph, other: SceneGraph) -> SceneGraph:
    """Return the graph with "" in place of all parts that `other` lacks, so that `lay_out` marks them."""
    # Compare triples, because the indices of two separately parsed graphs do not correspond.
    names, triples = {obj.name for obj in other.objects}, set(other.triples())
    own = [obj.name for obj in graph.objects]
    return SceneGraph(
        graph.caption,
        tuple(obj if obj.name in names else replace(obj, name="") for obj in graph.objects),
        tuple(
            a if (a.attribute, "is", own[a.object]) in triples else replace(a, attribute="")
            for a in graph.attributes
        ),
        tuple(
            r if (own[r.subject], r.predicate, own[r.object]) in triples else replace(r, predicate="")
            for r in graph.relations
        ),
    )
