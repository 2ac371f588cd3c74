"""Count how many false captions (foils) of SugarCrepe's replace_obj, replace_att and replace_rel sclip could make.

A foil differs from its caption in one place. The foil counts as placed if sclip has a replacement of the same kind
(object, attribute or relation) at this place. It counts as proposed if one of the first `CANDIDATES` (20) replacements
uses only words that the foil has there.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.table import Line, Table
from sclip.negatives.drawing import candidate_replacements
from sclip.negatives.planned_exchange import Kind
from sclip.scenegraph import Parser, ParserError
from sclip.scenegraph.graph import Span

CANDIDATES = 20
_KINDS: dict[str, Kind] = {
    "replace_obj": "replaced object",
    "replace_att": "replaced attribute",
    "replace_rel": "replaced relation",
}
_WORD = re.compile(r"[^\W_]+")


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    arguments.add_argument(
        "--sugarcrepe", type=Path, metavar="FOLDER", required=True, help="folder of replace_obj.json, .."
    )
    arguments.add_argument("--spacy-model", default="", help="as data.spacy_model")


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure all rows. Raises BenchmarkError for errors that the user can fix."""
    lines = []
    try:
        parser = Parser(options.spacy_model)
        for name, kind in _KINDS.items():
            cases = list(json.loads((options.sugarcrepe / f"{name}.json").read_text("utf-8")).values())
            graphs = parser.parse([case["caption"] for case in cases])
            placed = proposed = 0
            for case, graph in zip(cases, graphs, strict=True):
                region, foil_words = changed(case["caption"], case["negative_caption"])
                candidates = [
                    new
                    for span, new in candidate_replacements(graph, kind)
                    if span[0] < region[1] and region[0] < span[1]
                ]
                placed += bool(candidates)
                proposed += any(_words(new) <= foil_words for new in candidates[:CANDIDATES])
            shares = {"placed": placed / len(cases), "proposed": proposed / len(cases)}
            words = f"{shares['proposed']:.3f} of {len(cases)} proposed, {shares['placed']:.3f} placed"
            lines.append(Line(name, "", "", words, {share: [value] for share, value in shares.items()}))
            on_round(len(lines))
    except (ParserError, OSError, ValueError, AttributeError, LookupError, TypeError) as error:
        raise BenchmarkError(f"{options.sugarcrepe}: {error}") from error
    return Table(lines, {"candidates": f"the first {CANDIDATES} of a place"})


def changed(caption: str, foil: str) -> tuple[Span, frozenset[str]]:
    """Return the character span in which a caption differs from its foil, and the foil's words at this place."""
    one, other = (list(_WORD.finditer(text.lower())) for text in (caption, foil))
    shorter = min(len(one), len(other))
    first = next((k for k in range(shorter) if one[k].group() != other[k].group()), shorter)
    last = next(
        (k for k in range(shorter - first) if one[-1 - k].group() != other[-1 - k].group()), shorter - first
    )
    start = one[first].start() if first < len(one) else len(caption)
    end = one[len(one) - last - 1].end() if len(one) - last > first else start
    return (start, end), frozenset(match.group() for match in other[first : len(other) - last])


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))
