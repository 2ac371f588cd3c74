"""Captions a second on one core: our parser and negatives beside spaCy alone and beside SceneGraphParser.

SceneGraphParser (github.com/vacancy/SceneGraphParser) is the rule-based parser of the field, on the same spaCy pipeline
and called as its README does. Our pipeline alone bounds what rules can leave of it; spaCy's own are loaded as its
users load them.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import spacy

from sclip.benchmark.captions import CaptionsError, generated, read
from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError, rates_of
from sclip.benchmark.table import Line, Table, spread
from sclip.negatives import draw, draw_several, first_sound, natural
from sclip.scenegraph import Parser, ParserError

OURS, GRAPHS = "sclip, with negatives", "sclip, graphs alone"
VERIFIED = "sclip, negatives parsed again"
PIPELINE = "sclip's spaCy alone"
SAME, MORE = "spaCy, same components", "spaCy, with lemmatizer"
SCENE_GRAPH_PARSER = "SceneGraphParser (SGP)"
MISSING = "not installed: pip install '.[benchmark]'"

_BATCH = 256


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare what this benchmark takes."""
    arguments.add_argument(
        "--captions", type=Path, metavar="FILE", help="one a line, or COCO's .json (default: generated ones)"
    )
    arguments.add_argument("--count", type=int, default=400, help="captions in a round (default: 400)")
    arguments.add_argument("--rounds", type=int, default=7, help="measured rounds (default: 7)")
    arguments.add_argument("--spacy-model", default="", help="as data.spacy_model")


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure; raises BenchmarkError for what the user can put right."""
    if options.count < 1 or options.rounds < 1:
        raise BenchmarkError("--count and --rounds: 1 or more")
    wanted = options.count * (options.rounds + 1)
    try:
        captions = read(options.captions) if options.captions else generated(wanted)
        parser = Parser(options.spacy_model)
    except (CaptionsError, ParserError, OSError) as error:
        raise BenchmarkError(str(error)) from error
    captions = (captions * (wanted // len(captions) + 1))[:wanted]
    rounds = [captions[at : at + options.count] for at in range(0, wanted, options.count)]
    rates = rates_of(_peers(parser), rounds, on_round)
    lines = [
        line_of(name, rates) for name in (OURS, VERIFIED, GRAPHS, PIPELINE, SAME, MORE, SCENE_GRAPH_PARSER)
    ]
    words = sum(len(caption.split()) for caption in captions) / len(captions)
    source = f"{options.captions or 'generated'}, {words:.1f} words each"
    return Table(
        lines,
        {
            "captions": f"{options.rounds} rounds of {options.count}, {source}",
            "components": f"{', '.join(parser._nlp.pipe_names)}; with lemmatizer: all but ner and senter",
            "graphs": parser.version,
            **machine(["spacy", "lemminflect", "SceneGraphParser"]),
        },
    )


def line_of(name: str, rates: Mapping[str, Sequence[float]]) -> Line:
    """Return the row of a peer: captions a second, and as multiples of SGP's and spaCy's of the same rounds."""
    if name not in rates:
        return Line(name, "", "", MISSING, {})
    found = f"{spread(rates[name], 0)} captions/s"
    for short, other in (("SGP", SCENE_GRAPH_PARSER), ("spaCy", SAME)):
        if other in rates:
            ratios = [one / two for one, two in zip(rates[name], rates[other], strict=True)]
            found += f", {median(ratios):.2f} x {short}"
    return Line(name, "", "", found, {"per_s": rates[name]})


def _peers(parser: Parser) -> dict[str, Callable[[Sequence[str]], None]]:
    pipeline = parser._nlp  # the very one that the parser runs
    unused = [name for name in spacy.load(pipeline.path).component_names if name not in pipeline.pipe_names]
    same = spacy.load(pipeline.path, exclude=unused)
    more = spacy.load(pipeline.path, exclude=["ner", "senter"])

    def ours(captions: Sequence[str]) -> None:
        for graph in parser.stream(captions):
            negative = draw(natural(graph), seed=0, epoch=0, identity=graph.caption)
            if negative is not None:
                negative.graph.triples()

    def graphs(captions: Sequence[str]) -> None:
        for _ in parser.stream(captions):
            pass

    def verified(captions: Sequence[str]) -> None:
        drawn = []
        for graph in parser.stream(captions):
            found = natural(graph)
            order = draw_several(found, len(found), seed=0, epoch=0, identity=graph.caption)
            drawn.append((graph, order))
        for kept in first_sound(drawn, 1, parser.shapes):
            for negative in kept:
                negative.graph.triples()

    peers: dict[str, Callable[[Sequence[str]], None]] = {
        OURS: ours, VERIFIED: verified, GRAPHS: graphs,
        PIPELINE: _piped(pipeline), SAME: _piped(same), MORE: _piped(more),
    }  # fmt: skip
    if importlib.util.find_spec("sng_parser"):
        import sng_parser

        theirs = sng_parser.Parser("spacy", model=pipeline.path)

        def scene_graph_parser(captions: Sequence[str]) -> None:
            for caption in captions:
                theirs.parse(caption)

        peers[SCENE_GRAPH_PARSER] = scene_graph_parser
    return peers


def _piped(nlp: Any) -> Callable[[Sequence[str]], None]:
    def pipe(captions: Sequence[str]) -> None:
        for _ in nlp.pipe(captions, batch_size=_BATCH):
            pass

    return pipe
