"""Compare our parser with SceneGraphParser: captions per second on one core, or with `--gold` the accuracy of graphs.

Speed covers parsing and negatives. SceneGraphParser (github.com/vacancy/SceneGraphParser) is the field's rule-based
parser; it uses the same spaCy pipeline. The speed of our spaCy pipeline alone is an upper bound for our parser. The
rows named "spaCy, ..." load the pipeline with `spacy.load`, as spaCy's users do.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import spacy

import sclip
from sclip.benchmark import graph_quality
from sclip.benchmark.captions import CaptionsError, generated, joined, read
from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError, rates_of
from sclip.benchmark.table import Line, Table, spread
from sclip.config import ModelConfig
from sclip.data.window import window_of
from sclip.model import ModelError, Tokenizer
from sclip.negatives import draw_of, draw_positives, drawn_in_training
from sclip.negatives.drawing import KINDS
from sclip.registry import RegistryError
from sclip.scenegraph import Parser, ParserError
from sclip.scenegraph.window import parsed_part
from sclip.train.manifest import CheckpointError

OURS, GRAPHS = "sclip, with negatives", "sclip, graphs alone"
EXCHANGES, VERIFIED = "sclip, exchanges alone, parsed again", "sclip, negatives parsed again"
POSITIVES = "sclip, the same and positives"
PIPELINE = "sclip's spaCy alone"
SAME, MORE = "spaCy, same components", "spaCy, with lemmatizer"
SCENE_GRAPH_PARSER = "SceneGraphParser (SGP)"
LONG = (150, 1000)
"""Numbers of words of the long captions. The parser reads only a part of a long caption."""
PEERS = {"its spaCy alone": PIPELINE, "SGP": SCENE_GRAPH_PARSER, "spaCy": SAME, "exchanges": EXCHANGES}
"""Short name -> name of a row; the table states all rates as multiples of these rows' rates."""
MISSING = "not installed: pip install '.[benchmark]'"

_BATCH = 256
_FEWER = 8  # a round of long captions has so many times fewer
_JOINED = 30
"""Generated captions that two long captions take, one of each length in `LONG`: about 14 per caption."""


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    arguments.add_argument(
        "--captions", type=Path, metavar="FILE", help="one a line, or COCO's .json (default: generated ones)"
    )
    arguments.add_argument("--count", type=int, default=400, help="captions in a round (default: 400)")
    arguments.add_argument("--rounds", type=int, default=7, help="measured rounds (default: 7)")
    arguments.add_argument(
        "--gold",
        type=Path,
        metavar="FILE",
        help="instead of the speed, score the graphs against FACTUAL's .csv or DiscoSG-DS's .json",
    )
    arguments.add_argument(
        "--wordnet",
        type=Path,
        metavar="FOLDER",
        help="folder of WordNet 3.0's index.noun, noun.exc and so on, for --gold",
    )
    arguments.add_argument(
        "--encoder",
        default="",
        metavar="MODEL",
        help="score Soft-SPICE too, with the text features of this model, as in sclip evaluate MODEL; for --gold",
    )
    arguments.add_argument("--spacy-model", default="", help="as data.spacy_model")


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure all rows. Raises BenchmarkError for errors that the user can fix."""
    if options.count < 1 or options.rounds < 1:
        raise BenchmarkError("--count and --rounds: 1 or more")
    if (options.gold is None) != (options.wordnet is None) or (options.gold and options.captions):
        raise BenchmarkError("--gold FILE and --wordnet FOLDER go together, without --captions")
    if options.encoder and not options.gold:
        raise BenchmarkError("--encoder goes with --gold: it scores graphs")
    needed = options.count * (options.rounds + 1)
    try:
        if options.gold:
            scorer = sclip.load(options.encoder) if options.encoder else None
            if scorer and scorer.model.kee is not None:
                raise BenchmarkError(
                    f"--encoder {options.encoder}: has a knowledge encoder, which would read the phrases with the "
                    "parser that is scored; name a model without one"
                )
            encode = (lambda texts: scorer.encode_text(texts).numpy()) if scorer else None
            return graph_quality.table(options.gold, options.wordnet, Parser(options.spacy_model), encode)
        pool = read(options.captions) if options.captions else generated(needed + _JOINED * needed // _FEWER)
        parser = Parser(options.spacy_model)
    except (CaptionsError, CheckpointError, ModelError, ParserError, RegistryError, OSError) as error:
        raise BenchmarkError(str(error)) from error
    captions = list(dict.fromkeys(pool))  # without repeats, because a parser caches words
    rounds = _rounds(captions, options.count, options.rounds)
    if not rounds:
        raise BenchmarkError(
            f"{options.captions}: {len(captions)} captions are too few for {options.rounds} rounds"
        )
    peers = _peers(parser)
    rates = rates_of(peers, rounds, on_round)
    lines = [line_of(name, rates) for name in peers if name != SCENE_GRAPH_PARSER]
    bare = _on_window(peers[PIPELINE])
    for number, words in enumerate(LONG):
        texts = joined(captions[needed + number :: len(LONG)], words)
        long_rounds = _rounds(texts, options.count // _FEWER, options.rounds)
        name, text = f"sclip, {words:,} words", f"too few captions to make captions of {words:,} words"
        if long_rounds:
            long_rates = rates_of({name: peers[OURS], PIPELINE: bare}, long_rounds, on_round)
        lines.append(line_of(name, long_rates) if long_rounds else Line(name, "", "", text, {}))
    lines.append(line_of(SCENE_GRAPH_PARSER, rates))
    used = [caption for round_captions in rounds for caption in round_captions]
    mean_words = sum(len(caption.split()) for caption in used) / len(used)
    source = f"{options.captions or 'generated'}, {mean_words:.1f} words each"
    return Table(
        lines,
        {
            "captions": f"{options.rounds} rounds of {len(rounds[0])}, {source}",
            "components": f"{', '.join(parser._nlp.pipe_names)}; with lemmatizer: all but ner and senter",
            "graphs": parser.version,
            **machine(["spacy", "lemminflect", "SceneGraphParser"]),
        },
    )


def line_of(name: str, rates: Mapping[str, Sequence[float]]) -> Line:
    """Return a table row: captions per second, and their ratios to the peers' rates in the same rounds."""
    if name not in rates:
        return Line(name, "", "", MISSING, {})
    words = f"{spread(rates[name], 0)} captions/s"
    for short, other in PEERS.items():
        if other in rates:
            ratios = [one / two for one, two in zip(rates[name], rates[other], strict=True)]
            words += f", {median(ratios):.2f} x {short}"
    return Line(name, "", "", words, {"per_s": rates[name]})


def _rounds(captions: Sequence[str], count: int, rounds: int) -> list[Sequence[str]]:
    """Split captions into `rounds` + 1 rounds, because the first does not count; return [] if there are too few."""
    count = min(max(1, count), len(captions) // (rounds + 1))
    return [captions[row : row + count] for row in range(0, count * (rounds + 1), count)] if count else []


def _peers(parser: Parser) -> dict[str, Callable[[Sequence[str]], None]]:
    model = ModelConfig()
    tokenizer = Tokenizer(model)
    pipeline = parser._nlp  # the object that the parser itself runs
    unused = [name for name in spacy.load(pipeline.path).component_names if name not in pipeline.pipe_names]
    same = spacy.load(pipeline.path, exclude=unused)
    more = spacy.load(pipeline.path, exclude=["ner", "senter"])

    def ours(captions: Sequence[str]) -> None:
        for graph in parser.stream(captions):
            window = window_of(graph, tokenizer)
            negative = next(draw_of(graph, seed=0, epoch=0, identity=graph.caption, window=window), None)
            if negative is not None:
                window.triples_of(negative.graph)

    def graphs(captions: Sequence[str]) -> None:
        for _ in parser.stream(captions):
            pass

    def verified(
        captions: Sequence[str], kinds: Sequence[str] = tuple(KINDS), positives: bool = False
    ) -> None:
        windows = [window_of(graph, tokenizer) for graph in parser.stream(captions)]
        shares = dict.fromkeys(KINDS, 0.0) | dict.fromkeys(kinds, 1 / len(kinds))
        drawn: list[Any] = list(drawn_in_training(windows, captions, parser.shapes, seed=0, shares=shares))
        if positives:
            drawn += draw_positives(windows, captions, parser.parse, seed=0, epochs=[0] * len(captions))
        for window, text in zip(cycle(windows), drawn):
            if text is not None:
                window.triples_of(text.graph)

    peers: dict[str, Callable[[Sequence[str]], None]] = {
        OURS: ours, EXCHANGES: partial(verified, kinds=["exchange"]), VERIFIED: verified,
        POSITIVES: partial(verified, positives=True), GRAPHS: graphs,
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


def _on_window(peer: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], None]:
    def cut(captions: Sequence[str]) -> None:
        peer([parsed_part(caption)[0] for caption in captions])

    return cut
