"""Count the captions, graphs and negatives of given shards, or of the shards of a run.

    shards -> (Ray Data: one task per shard) -> statistics of each shard -> merged -> `sclip.report`

The graphs are those that a training run would see: captions without an annotation by this version of sclip are parsed.
For the folder of a run, only the captions that the run trains on are counted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from sclip.config import ConfigError, DataConfig
from sclip.data import annotation
from sclip.data.annotation import AnnotationError, read_record
from sclip.data.patterns import find_shards
from sclip.data.schedule import NamedShard
from sclip.data.shards import Sample, ShardError, read_shard
from sclip.model import most_words
from sclip.negatives import Negative, natural, sound
from sclip.prepare.actor_pool import ActorPool
from sclip.prepare.annotate import stamp
from sclip.report import CorpusStatistics
from sclip.scenegraph import Parser, SceneGraph
from sclip.scenegraph.window import MOST_WORDS
from sclip.storage.filesystem import parts
from sclip.storage.masking import is_masked, mask
from sclip.train.run_inputs import read_run_inputs

_SAMPLES_AT_ONCE = 64

_Known = tuple[SceneGraph, Sequence[Negative]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Shards with the captions to count, and the options for reading these shards."""

    title: str
    shards: tuple[NamedShard, ...]
    data: DataConfig
    most_words: int = MOST_WORDS


@dataclass(slots=True)
class CorpusCounts:
    """Statistics and counts of a corpus."""

    statistics: CorpusStatistics
    annotated: int = 0
    """Captions with a graph that was read from an annotation."""
    rejected: int = 0
    filtered: int = 0
    """Captions that the run does not train on because their graph is too small."""

    def notes(self, corpus: Corpus) -> list[str]:
        """Return lines of notes for the report."""
        counts = (
            (self.annotated, "graphs read from the annotation of their shard, not parsed"),
            (self.rejected, "unusable samples left out"),
            (self.filtered, "captions left out, as in a run, because their graph is too small (data.min_*)"),
        )
        first = f"{len(corpus.shards):,} shards, the first is {mask(corpus.shards[0].url)}"
        return [first, *(f"{count:,} {label}" for count, label in counts if count)]


def corpus_of(sources: Sequence[str], data: DataConfig) -> Corpus:
    """Return the corpus of `sources`: shards (paths, globs or URIs) read with the options `data`, or a run's folder.

    Raises ShardError if no shard is found, ConfigError if a pattern or the run's folder is unusable.
    """
    folder = Path(sources[0]).expanduser()
    if len(sources) == 1 and (folder / "shards.json").is_file():
        config, run_sources = read_run_inputs(folder)
        shards = tuple(shard for source in run_sources for shard in source)
        if masked := next((shard.url for shard in shards if is_masked(shard.url)), ""):
            raise ConfigError(
                f"{folder}: the run records {masked} without credentials or signature; name the shards instead"
            )
        return Corpus(folder.resolve().name, shards, config.data, most_words(config.model))
    shards = tuple(find_shards(sources))
    names = [
        parts(mask(shard.url))[0].rpartition("/")[0].rpartition("/")[2] for shard in (shards[0], shards[-1])
    ]
    return Corpus(", ".join(dict.fromkeys(names)), shards, data)


def count_corpus(
    corpus: Corpus, cpus: float, pool: ActorPool, on_shard: Callable[[str], None]
) -> CorpusCounts:
    """Count the corpus on the connected cluster, which has `cpus` CPUs; call `on_shard` with each finished shard.

    Raises ConfigError if no actor fits on the cluster, ShardError if a shard cannot be read, and ParserError.
    """
    counts = CorpusCounts(CorpusStatistics())
    shards = {shard.url: shard for shard in corpus.shards}
    parser = Parser(corpus.data.spacy_model, corpus.most_words)
    arguments = (corpus.data, stamp(parser), shards, corpus.most_words)
    for row in pool.run(CorpusCounter, arguments, list(shards), cpus):
        if row["failure"]:
            raise ShardError(row["failure"])
        counts.statistics.merge(CorpusStatistics.from_json(json.loads(row["statistics"])))
        counts.annotated += row["annotated"]
        counts.rejected += row["rejected"]
        counts.filtered += row["filtered"]
        on_shard(row["shard"])
    return counts


class CorpusCounter:
    """Ray Data actor that counts shards: a callable for `map_batches`. It loads spaCy only if it has to parse."""

    def __init__(
        self, data: DataConfig, stamp: str, shards: Mapping[str, NamedShard], words: int = MOST_WORDS
    ) -> None:
        self._data, self._stamp, self._shards, self._words = data, stamp, shards, words

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Count the shards in the column `shard`; return one row per shard with its `CorpusCounts` and `failure`."""
        return pa.Table.from_pylist([self._shard(url) for url in batch["shard"].to_pylist()])

    @functools.cached_property
    def _parser(self) -> Parser:
        return Parser(self._data.spacy_model, self._words)

    def _shard(self, url: str) -> dict[str, Any]:
        counts = CorpusCounts(CorpusStatistics())
        failure = ""
        try:
            items = read_shard(url, self._data)
            while chunk := list(islice(items, _SAMPLES_AT_ONCE)):
                samples = [item for item in chunk if isinstance(item, Sample)]
                counts.rejected += len(chunk) - len(samples)
                for sample, known in zip(samples, self._known(samples, counts), strict=True):
                    self._count(self._shards[url].identity(sample.key), known, counts)
        except ShardError as error:
            failure = str(error)
        return {
            "shard": url, "failure": failure, "statistics": json.dumps(counts.statistics.to_json()),
            "annotated": counts.annotated, "rejected": counts.rejected, "filtered": counts.filtered,
        }  # fmt: skip

    def _count(self, identity: str, known: Sequence[_Known], counts: CorpusCounts) -> None:
        for graph, negatives in known:
            sizes = len(graph.objects), len(graph.attributes), len(graph.relations)
            if all(size >= least for size, least in zip(sizes, self._data.least, strict=True)):
                counts.statistics.add(identity, graph, negatives)
            else:
                counts.filtered += 1

    def _known(self, samples: Sequence[Sample], counts: CorpusCounts) -> Iterator[list[_Known]]:
        annotated = [self._annotated(sample) for sample in samples]
        new = [
            caption
            for sample, known in zip(samples, annotated, strict=True)
            if not known
            for caption in sample.captions
        ]
        unchecked = [(graph, natural(graph)) for graph in self._parser.parse(new)] if new else []
        kept = sound(unchecked, self._parser.shapes) if unchecked else []
        parsed = zip((graph for graph, _ in unchecked), kept, strict=True)
        for sample, known in zip(samples, annotated, strict=True):
            counts.annotated += len(known)
            yield known or list(islice(parsed, len(sample.captions)))

    def _annotated(self, sample: Sample) -> list[_Known]:
        if not self._data.annotations:
            return []
        try:
            records = annotation.read_stamped(sample, self._stamp)
            return [read_record(*pair) for pair in zip(records, sample.captions, strict=True)]
        except AnnotationError:
            return []
