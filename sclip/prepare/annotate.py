"""Copy shards and add the scene graph and the negatives of every caption.

Ray Data runs a pool of actors. Each actor takes one shard at a time, writes its annotated copy and then a sidecar file
(`sclip.prepare.annotated`), so a stopped job resumes after the finished shards. A sample that cannot be annotated is
quarantined. A shard with a storage error is left to the next call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from sclip.config import ConfigError, DataConfig
from sclip.data import annotation
from sclip.data.annotation import AnnotationError, write_record
from sclip.data.names import ANNOTATION_SUFFIX
from sclip.data.schedule import NamedShard
from sclip.data.shards import Rejected, Sample, ShardError, read_shard
from sclip.negatives import VERSION, Negative, natural, sound
from sclip.prepare.actor_pool import ActorPool
from sclip.prepare.annotated import AnnotatedFolder, shard_names
from sclip.prepare.pack import Index
from sclip.prepare.writing import PackError, write_tar
from sclip.report import CorpusStatistics
from sclip.scenegraph import Parser, SceneGraph
from sclip.scenegraph.window import MOST_WORDS
from sclip.storage.filesystem import parts
from sclip.storage.masking import mask

_log = logging.getLogger(__name__)
_DEFAULTS = DataConfig()
_SAMPLES_AT_ONCE = 64


def stamp(parser: Parser) -> str:
    """Return the versions of the parser and of the negatives as text. Equal stamps mean equal annotations."""
    return f"{parser.version}+negatives-{VERSION}"


def usable_stamp(data: DataConfig, shards: Sequence[str], most_words: int = MOST_WORDS) -> str:
    """Return the stamp of the annotations that a run uses; "" if it uses none. `most_words` is the model's word limit.

    Checks the first sample in each folder. Raises ConfigError if its annotation is unreadable or belongs to other
    captions. Warns if its stamp is not this installation's. If the config filters captions (data.min_*), such a stamp
    or a missing annotation raises ConfigError.
    """
    if not data.annotations:
        return ""
    own = usable = ""
    command = "sclip annotate SHARDS OUT"
    if most_words > MOST_WORDS:
        command += f" --context-length {most_words + 2}"
    remedy = "data.annotations=false to parse in the run"
    if any(data.least):
        remedy = "data.min_objects, min_attributes and min_relations to 0"
    for shard in {parts(url)[0].rpartition("/")[0]: url for url in reversed(shards)}.values():
        first = next((item for item in read_shard(shard, data) if isinstance(item, Sample)), None)
        if first is None or not (ANNOTATION_SUFFIX in first.members or any(data.least)):
            continue
        own = own or stamp(Parser(data.spacy_model, most_words))
        try:
            made_under, _ = annotation.read(first)
            if made_under != own and not any(data.least):
                _log.warning(
                    "data.shards: %s was annotated under %s, not %s: the run parses its captions again; "
                    "annotate it again with `%s`", mask(shard), made_under, own, command,
                )  # fmt: skip
            else:
                annotation.passing(first, annotation.read_stamped(first, own), data.least)
                usable = own
        except AnnotationError as error:
            raise ConfigError(
                f"data.shards: {mask(shard)}: {error}; annotate it ({command}), or set {remedy}"
            ) from error
    return usable


@dataclass(frozen=True, slots=True)
class Annotated:
    """Result of annotating one shard."""

    name: str
    samples: int = 0
    bytes: int = 0
    quarantined: int = 0
    failure: str = ""
    """Reason why the shard was not annotated; empty if it was annotated."""


def annotate(
    sources: Sequence[str],
    out: Path,
    connect: Callable[[], float],
    pool: ActorPool,
    *,
    data: DataConfig = _DEFAULTS,
    most_words: int = MOST_WORDS,
    overwrite: bool = False,
    on_shard: Callable[[Annotated], None],
) -> Index:
    """Write annotated copies of the shards into the folder `out`; return the index.

    `connect` connects to the Ray cluster and returns its CPUs; it is called only if a shard is left to annotate.
    `on_shard` gets every shard that finishes or fails. Finished shards of an earlier call are kept. `overwrite` is
    needed to annotate them again after a change of source, stamp or reading options.

    Raises PackError (finished shards are kept), ParserError, ConfigError, and what `connect` raises.
    """
    names = shard_names(sources)
    folder = AnnotatedFolder(out, stamp(Parser(data.spacy_model, most_words)), data, most_words)
    try:
        todo = folder.claim(names, overwrite)
        failures = []
        for row in pool.run(Annotator, (folder,), todo, connect()) if todo else ():
            annotated = Annotated(**row)
            on_shard(annotated)
            failures += [annotated.failure] if annotated.failure else []
        if failures:
            raise PackError(
                f"{failures[0]}; {len(failures)} of {len(names)} shards are not annotated, the others are kept: "
                "run the same command again"
            )
        return folder.publish(names)
    except OSError as error:
        raise PackError(
            f"{error.filename or out}: {error.strerror or error}; finished shards are kept"
        ) from error


class Annotator:
    """Ray Data actor that annotates shards: a callable for `map_batches` that loads spaCy once."""

    def __init__(self, folder: AnnotatedFolder) -> None:
        self._folder = folder
        self._parser = Parser(folder.data.spacy_model, folder.most_words)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Annotate the shards in the column `shard`; return one row per shard with the fields of `Annotated`."""
        return pa.Table.from_pylist([asdict(self._annotate(source)) for source in batch["shard"].to_pylist()])

    def _annotate(self, source: str) -> Annotated:
        folder = self._folder
        (name,) = shard_names([source])
        quarantined: list[dict[str, str]] = []
        statistics = CorpusStatistics()
        try:
            if (own := stamp(self._parser)) != folder.stamp:
                raise PackError(
                    f"{mask(source)}: a node annotates with {own}, the job with {folder.stamp}; install equal versions"
                )
            shard = write_tar(folder.path / name, self._samples(source, name, quarantined, statistics))
            folder.finish(name, source, shard, quarantined, statistics)
        except (PackError, ShardError) as error:
            return Annotated(name, failure=str(error))
        except OSError as error:
            return Annotated(name, failure=f"{folder.path / name}: {error.strerror or error}")
        samples, size = (shard.samples, shard.bytes) if shard else (0, 0)
        return Annotated(name, samples, size, len(quarantined))

    def _known(self, samples: Sequence[Sample]) -> list[tuple[SceneGraph, list[Negative]]]:
        """Return the graph and the negatives of each caption. A graph that the shard supplies is not parsed again."""
        raw = {(n, k): f.graph for n, s in enumerate(samples) for k, f in enumerate(s.foreign) if f.graph}
        indices = [(n, k) for n, sample in enumerate(samples) for k in range(len(sample.captions))]
        captions = (samples[n].captions[k] for n, k in indices if (n, k) not in raw)
        parsed = [(graph, natural(graph)) for graph in self._parser.stream(captions)]
        kept = zip((graph for graph, _ in parsed), sound(parsed, self._parser.shapes), strict=True)
        graphs = {pair: SceneGraph.from_json(graph) for pair, graph in raw.items()}
        return [(graphs[pair], natural(graphs[pair])) if pair in graphs else next(kept) for pair in indices]

    def _samples(
        self, source: str, name: str, quarantined: list[dict[str, str]], statistics: CorpusStatistics
    ) -> Iterator[dict[str, Any]]:
        shard = NamedShard(f"0/{name}", source)  # the shard's name in a run over this folder alone
        items = read_shard(source, self._folder.data)
        while chunk := list(islice(items, _SAMPLES_AT_ONCE)):
            samples = [item for item in chunk if isinstance(item, Sample)]
            known = iter(self._known(samples))
            for item in chunk:
                try:
                    if isinstance(item, Rejected):
                        raise AnnotationError(item.reason)
                    pairs = list(islice(known, len(item.captions)))
                    member = annotation.pack(self._folder.stamp, [write_record(*pair) for pair in pairs])
                except AnnotationError as error:
                    quarantined.append({"shard": mask(source), "key": item.key, "reason": str(error)})
                    continue
                for pair in pairs:
                    statistics.add(shard.identity(item.key), *pair)
                yield {"__key__": item.key, **item.members, ANNOTATION_SUFFIX: member}
