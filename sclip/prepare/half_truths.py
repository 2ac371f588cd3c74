"""Shards of captioned images in; the half-truth benchmark made of them out: JSON Lines and a folder of its images.

    {"image": "0-3.tar-391895-5f1c09ab.jpg", "unit": "a man", "half_truth": "a man riding a horse", "kind": "relation"}

A line for each caption that gives one, drawn by seed and the sample's identity: the same shards give the same lines.
The benchmark's kind is `half-truth` (`sclip.evaluate.readers.half_truth`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from sclip import negatives
from sclip.config import DataConfig
from sclip.data.patterns import find_shards
from sclip.data.shards import Sample, read_shard
from sclip.negatives import HalfTruth
from sclip.prepare.writing import write_file
from sclip.scenegraph import Parser

__all__ = ["Counts", "write_half_truths"]

_SAMPLES_AT_ONCE = 64


@dataclass
class Counts:
    """What became of the captions."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Lines of each kind."""
    images: int = 0
    """Images that a line names."""
    captions: int = 0
    """Captions of all samples."""
    rejected: int = 0
    """Samples that cannot be used."""

    def line(self) -> str:
        """Return them in one line."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items()))
        left_out = f"; {self.rejected:,} samples left out that cannot be used" if self.rejected else ""
        return (
            f"{self.kinds.total():,} half-truths ({kinds or 'none'}) of {self.captions:,} captions, "
            f"{self.images:,} images{left_out}"
        )


def write_half_truths(shards: Sequence[str], out: Path, data: DataConfig, seed: int) -> Counts:
    """Write the lines to `out`, once all are there, and their images to the folder `images` beside it.

    Raises ShardError, ConfigError or ParserError, OSError where it cannot be written.
    """
    counts, parser, lines = Counts(), Parser(data.spacy_model), list[str]()
    folder = out.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for shard in find_shards(shards):
        items = read_shard(shard.url, data)
        while chunk := list(islice(items, _SAMPLES_AT_ONCE)):
            samples = [item for item in chunk if isinstance(item, Sample)]
            counts.rejected += len(chunk) - len(samples)
            named = [(sample, shard.identity(sample.key)) for sample in samples]
            found = _drawn(named, parser, seed)
            for sample, identity in named:
                counts.captions += len(sample.captions)
                of_sample = dict.fromkeys(t for t in islice(found, len(sample.captions)) if t)
                lines += _written(sample, identity, list(of_sample), folder, counts)
    write_file(out, "".join(lines).encode())
    return counts


def _drawn(named: Sequence[tuple[Sample, str]], parser: Parser, seed: int) -> Iterator[HalfTruth | None]:
    """Yield the half-truth of each caption of the samples, or None."""
    texts = [(caption, f"{identity}\x1f{n}") for s, identity in named for n, caption in enumerate(s.captions)]
    graphs = list(parser.parse([caption for caption, _ in texts]))
    orders = [
        negatives.units_first(
            graph,
            negatives.draw_of(graph, seed=seed, epoch=0, identity=identity),
            negatives.half_truth_of,
        )
        for graph, (_, identity) in zip(graphs, texts, strict=True)
    ]
    sound = negatives.sound(list(zip(graphs, orders, strict=True)), parser.shapes, 1)
    for graph, kept in zip(graphs, sound, strict=True):
        yield negatives.half_truth_of(graph, kept[0]) if kept else None


def _written(
    sample: Sample, identity: str, found: list[HalfTruth], folder: Path, counts: Counts
) -> Iterator[str]:
    """Write the image of a sample that has half-truths; yield their lines."""
    if not found:
        return
    suffix = next((name for name, content in sample.members.items() if content is sample.image), "jpg")
    digest = hashlib.sha256(sample.image).hexdigest()[:8]  # other shards may have the names of these
    name = f"{identity.replace('/', '-')}-{digest}.{suffix}"
    (folder / name).write_bytes(sample.image)
    counts.images += 1
    for half_truth in found:
        entry = {
            "image": name,
            "unit": half_truth.unit,
            "half_truth": half_truth.half_truth,
            "kind": half_truth.kind,
        }
        yield json.dumps(entry, ensure_ascii=False) + "\n"
        counts.kinds[half_truth.kind] += 1
