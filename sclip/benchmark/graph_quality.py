"""Score the graphs of sclip's parser and of SceneGraphParser against human-written graphs, by FACTUAL's measures.

Captions with gold graphs come from a file of FACTUAL (.csv, short captions) or of DiscoSG-DS (.json, long captions; Lin
et al., EMNLP 2025). Scores that others published have their own column; they are of FACTUAL's random split.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from sclip.benchmark.graph_scores import Fact, WordNet, facts, phrases, set_match, soft_spice, spice
from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.table import Line, Table
from sclip.data.caption_text import clean_caption
from sclip.scenegraph import Parser
from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.lexicon import NUMBERS
from sclip.scenegraph.window import parsed_part

_MEASURED = "measured here, 95 % interval"
HEADS = {".csv": ("", "published, FACTUAL's test half", "", _MEASURED), ".json": ("", "", "", _MEASURED)}
OURS, SENTENCES, PEER = "sclip", "sclip, sentence by sentence", "SceneGraphParser"
MISSING = "not installed: pip install '.[benchmark]'"
PUBLISHED = {
    "FACTUAL-T5 large": (81.63, 93.20), "FACTUAL-T5 base": (81.37, 93.27), "FACTUAL-T5 small": (78.18, 92.26),
    "SPICE's parser (Stanford)": (19.30, 64.77),
}  # fmt: skip
"""Set Match and SPICE on the test half of the random split, from the README of FactualSceneGraph 0.7.3."""


Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Function that returns the unit features [N, D] of N texts."""


def table(gold_file: Path, wordnet_folder: Path, parser: Parser, encode: Encode | None = None) -> Table:
    """Return the scores of each parser on a file, Soft-SPICE only if `encode` is given.

    Raises BenchmarkError for errors that the user can fix.
    """
    gold = read_gold(gold_file)
    wordnet = WordNet.read(wordnet_folder)
    captions = [clean_caption(caption) for caption, _ in gold]
    golds = [facts(graph, wordnet) for _, graph in gold]
    lines = []
    for name, parse in _parsers(parser, captions).items():
        graphs = [facts(graph, wordnet) for graph in parse(captions)]
        scores = {
            "Set Match": [100 * set_match(ours, theirs) for ours, theirs in zip(graphs, golds, strict=True)],
            "SPICE": [100 * spice(ours, theirs, wordnet) for ours, theirs in zip(graphs, golds, strict=True)],
        }
        if encode:
            scores["Soft-SPICE"] = _soft_spice(graphs, golds, encode)
        words = ", ".join(f"{score} {_mean(values)}" for score, values in scores.items())
        lines.append(Line(name, "", "", words, scores))
    if importlib.util.find_spec("sng_parser") is None:
        lines.append(Line(PEER, "", "", MISSING, {}))
    if gold_file.suffix == ".csv":
        for name, (matched, f1) in PUBLISHED.items():
            lines.append(Line(name, f"Set Match {matched:.2f}, SPICE {f1:.2f}", "", "", {}))
    facts_each = sum(map(len, golds)) / len(golds)
    words_each = sum(len(caption.split()) for caption in captions) / len(captions)
    return Table(
        lines,
        {
            "gold graphs": f"{gold_file}: {len(gold)} captions, "
            f"{words_each:.1f} words and {facts_each:.1f} facts each",
            "graphs": parser.version,
            **machine(["spacy", "lemminflect", "SceneGraphParser"]),
        },
        HEADS[gold_file.suffix],
    )


def _soft_spice(
    graphs: Sequence[frozenset[Fact]], golds: Sequence[frozenset[Fact]], encode: Encode
) -> list[float]:
    distinct = dict.fromkeys(phrase for graph in (*graphs, *golds) for phrase in phrases(graph))
    features, rows = encode(list(distinct)), {phrase: row for row, phrase in enumerate(distinct)}
    sides = (
        [features[[rows[phrase] for phrase in phrases(graph)]] for graph in side] for side in (graphs, golds)
    )
    return [100 * soft_spice(ours, theirs) for ours, theirs in zip(*sides, strict=True)]


def read_gold(path: Path) -> list[tuple[str, str]]:
    """Return (caption, graph as text) of each row of a file. Raises OSError, and BenchmarkError for another format."""
    if path.suffix not in HEADS:
        raise BenchmarkError(f"--gold {path}: must be a .csv of FACTUAL or a .json of DiscoSG-DS")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = json.load(file) if path.suffix == ".json" else list(csv.DictReader(file))
        if gold := [(str(row["caption"]), row["scene_graph"].strip()) for row in rows]:
            return gold
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise BenchmarkError(
            f"--gold {path}: no captions with scene graphs ({type(error).__name__}: {error}): a .csv of FACTUAL or a "
            ".json of DiscoSG-DS has the fields caption and scene_graph"
        ) from error
    raise BenchmarkError(f"--gold {path}: no rows: name a .csv of FACTUAL or a .json of DiscoSG-DS")


def written(objects: Sequence[str], triples: Sequence[tuple[str, str, str]]) -> str:
    """Return a graph in FACTUAL's text form: triples (subject, predicate, object), then objects without a triple."""
    triples = list(dict.fromkeys(triples))
    paired = {subject for subject, _, _ in triples} | {
        name for _, predicate, name in triples if predicate != "is"
    }
    alone = [(name,) for name in dict.fromkeys(objects) if name not in paired]
    return " , ".join(f"( {' , '.join(fact)} )" for fact in (*triples, *alone)).lower()


def _parsers(parser: Parser, captions: Sequence[str]) -> dict[str, Callable[[Sequence[str]], Iterator[str]]]:
    def ours(texts: Sequence[str]) -> Iterator[str]:
        return (_graph_text([graph]) for graph in parser.stream(texts))

    def by_sentence(texts: Sequence[str]) -> Iterator[str]:
        import spacy

        splitter = spacy.blank("en")
        splitter.add_pipe("sentencizer")
        for doc in splitter.pipe(texts):
            yield _graph_text(parser.parse([sentence.text for sentence in doc.sents]))

    parsers: dict[str, Callable[[Sequence[str]], Iterator[str]]] = {OURS: ours}
    if any(parsed_part(caption)[1] for caption in captions):
        parsers[SENTENCES] = by_sentence
    if importlib.util.find_spec("sng_parser"):
        parsers[PEER] = _scene_graph_parser(parser)
    return parsers


def _graph_text(graphs: Sequence[SceneGraph]) -> str:
    objects, triples = [], []
    for graph in graphs:
        objects += [obj.name for obj in graph.objects if not obj.negated]
        for head, predicate, tail in graph.triples():
            triples.append((tail, "is", head) if predicate == "is" else (head, predicate, tail))
    return written(objects, triples)


def _scene_graph_parser(parser: Parser) -> Callable[[Sequence[str]], Iterator[str]]:
    import sng_parser

    theirs = sng_parser.Parser("spacy", model=parser._nlp.path)

    def graph_text(graph: dict[str, Any]) -> str:
        names = [entity["lemma_head"] for entity in graph["entities"]]
        pairs = [
            (name, "is", NUMBERS.get(modifier["lemma_span"], modifier["lemma_span"]))
            for name, entity in zip(names, graph["entities"], strict=True)
            for modifier in entity["modifiers"]
            if modifier["dep"] != "det"
        ]
        relations = [
            (names[relation["subject"]], relation["lemma_relation"], names[relation["object"]])
            for relation in graph["relations"]
        ]
        return written(names, pairs + relations)

    return lambda texts: (graph_text(theirs.parse(text)) for text in texts)


def _mean(scores: Sequence[float]) -> str:
    mean = float(np.mean(scores))
    if len(set(scores)) == 1:
        return f"{mean:.1f}"
    low, high = bootstrap(
        (scores,), np.mean, n_resamples=1000, method="percentile", rng=0
    ).confidence_interval
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"
