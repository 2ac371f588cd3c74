"""Count the captions, graphs and negatives of a corpus, and write the statistics as JSON and as a page.

Statistics of parts can be merged in any order, so every actor of a pool counts its own part. To limit memory, only
the WORDS_KEPT most frequent words are kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sclip.negatives import Negative, draw
from sclip.report.cards import card
from sclip.report.page import render
from sclip.report.sample import SeededSample
from sclip.scenegraph import SceneGraph

WORDS_KEPT = 10_000
"""Maximum number of different words per kind (object name, attribute, predicate); COCO's captions have fewer."""

EXAMPLES = 24

SHARES = {
    "with_object": "with a graph", "with_triple": "with a triple", "with_negative": "with a negative",
    "with_relation_negative": "with a relation negative", "with_attribute_negative": "with an attribute negative",
}  # fmt: skip
"""Labels of counts in reports, by the field of `CorpusStatistics` that holds the count."""

_COUNTS = ("captions", *SHARES, "objects", "attributes", "relations", "negatives")
_WORDS = ("object_names", "attribute_words", "predicates")


@dataclass(frozen=True, slots=True)
class CorpusExample:
    """One caption of the corpus, with the negative that training with seed 0 would draw in epoch 0."""

    identity: str
    graph: SceneGraph
    negative: Negative | None


class WordCounts:
    """Counts of words. The rarest are dropped beyond WORDS_KEPT words, and count from 0 if they occur again."""

    def __init__(self, counts: dict[str, int] | None = None, dropped: int = 0) -> None:
        self.counts: Counter[str] = Counter(counts or {})
        self.dropped = dropped
        """Number of occurrences of dropped words."""

    def update(self, words: Sequence[str]) -> None:
        """Count the words of one caption."""
        self.counts.update(words)
        if len(self.counts) >= 2 * WORDS_KEPT:
            self._prune()

    def merge(self, other: WordCounts) -> None:
        """Add the counts of another part of the corpus."""
        self.counts.update(other.counts)
        self.dropped += other.dropped
        self._prune()

    def most(self, number: int | None = None) -> list[tuple[str, int]]:
        """Return the most frequent words with their counts; words with equal counts are in alphabetical order."""
        return sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0]))[:number]

    def _prune(self) -> None:
        if len(self.counts) > WORDS_KEPT:
            total = self.counts.total()
            self.counts = Counter(dict(self.most(WORDS_KEPT)))
            self.dropped += total - self.counts.total()


@dataclass
class CorpusStatistics:
    """Statistics over all captions of a corpus."""

    captions: int = 0
    with_object: int = 0
    with_triple: int = 0
    """Number of captions with a relation or an attribute; both give a triple."""
    with_negative: int = 0
    """Number of captions with a negative, of any kind, that training can draw."""
    with_relation_negative: int = 0
    with_attribute_negative: int = 0
    objects: int = 0
    attributes: int = 0
    relations: int = 0
    negatives: int = 0
    """Number of negatives that training can draw, over all captions."""
    object_names: WordCounts = field(default_factory=WordCounts)
    attribute_words: WordCounts = field(default_factory=WordCounts)
    predicates: WordCounts = field(default_factory=WordCounts)
    examples: SeededSample[CorpusExample] = field(default_factory=lambda: SeededSample(EXAMPLES))

    def add(self, identity: str, graph: SceneGraph, negatives: Sequence[Negative]) -> None:
        """Count a caption of the sample `identity`, with all negatives that training can draw for the caption."""
        kinds = {negative.kind for negative in negatives}
        self.captions += 1
        self.with_object += bool(graph.objects)
        self.with_triple += bool(graph.relations or graph.attributes)
        self.with_negative += bool(kinds)
        self.with_relation_negative += "relation" in kinds
        self.with_attribute_negative += "attribute" in kinds
        self.objects += len(graph.objects)
        self.attributes += len(graph.attributes)
        self.relations += len(graph.relations)
        self.negatives += len(negatives)
        self.object_names.update([obj.name for obj in graph.objects])
        self.attribute_words.update([attribute.attribute for attribute in graph.attributes])
        self.predicates.update([relation.predicate for relation in graph.relations])
        if self.examples.wants(identity, graph.caption):
            drawn = draw(negatives, seed=0, epoch=0, identity=identity)
            self.examples.add(CorpusExample(identity, graph, drawn), identity, graph.caption)

    def merge(self, other: CorpusStatistics) -> None:
        """Add the statistics of another part of the corpus."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _WORDS:
            getattr(self, name).merge(getattr(other, name))
        self.examples.merge(other.examples)

    def mean(self, name: str) -> float:
        """Return the mean number of `objects`, `attributes`, `relations` or `negatives` per caption."""
        return float(getattr(self, name) / max(1, self.captions))

    def share(self, name: str) -> float:
        """Return a `with_...` count as a share of the captions."""
        return float(getattr(self, name) / max(1, self.captions))

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as JSON values; `from_json` reads them back."""
        return (
            {name: getattr(self, name) for name in _COUNTS}
            | {name: dict(getattr(self, name).most()) for name in _WORDS}
            | {"dropped": {name: getattr(self, name).dropped for name in _WORDS}}
            | {"examples": [_example_to_json(example) for example in self.examples]}
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> CorpusStatistics:
        """Return the statistics that `to_json` wrote. Raises KeyError or TypeError if a field is missing."""
        statistics = cls()
        for name in _COUNTS:
            setattr(statistics, name, int(value[name]))
        for name in _WORDS:
            setattr(statistics, name, WordCounts(value[name], int(value["dropped"][name])))
        for entry in value["examples"]:
            graph = SceneGraph.from_json(entry["graph"])
            negative = Negative.from_json(entry["negative"]) if entry["negative"] else None
            statistics.examples.add(
                CorpusExample(entry["identity"], graph, negative), entry["identity"], graph.caption
            )
        return statistics


def _example_to_json(example: CorpusExample) -> dict[str, Any]:
    negative = example.negative.to_json() if example.negative else None
    return {"identity": example.identity, "graph": example.graph.to_json(), "negative": negative}


def write(statistics: CorpusStatistics, folder: Path, title: str, notes: Sequence[str] = ()) -> Path:
    """Write report.json and report.html into `folder`; return the path of the page, which begins with `notes`."""
    folder.mkdir(parents=True, exist_ok=True)
    value = {"title": title, "notes": list(notes)} | statistics.to_json()
    (folder / "report.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    page = folder / "report.html"
    cards = [card(e.identity, e.graph, [e.negative] if e.negative else []) for e in statistics.examples]
    html = render("corpus.html", title=title, notes=notes, statistics=statistics, shares=SHARES, cards=cards)
    page.write_text(html, encoding="utf-8")
    return page
