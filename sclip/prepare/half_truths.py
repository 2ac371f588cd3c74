"""Write a half-truth benchmark, which is a JSON Lines file and a folder of images, from shards with captions.

    {"image": "0-3.tar-391895-5f1c09ab.jpg", "unit": "a man", "half_truth": "a man riding a horse", "kind": "relation"}

A half-truth is a true part of a caption (`unit`) with one false detail added. Each caption gives at most one. The same
seed and shards give the same lines. `sclip evaluate` reads the benchmark as the kind `half-truth`.
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
    """Counts of what was read and written."""

    kinds: Counter[str] = field(default_factory=Counter)
    images: int = 0
    """Images with at least one half-truth."""
    captions: int = 0
    """Captions of all usable samples."""
    rejected: int = 0

    def line(self) -> str:
        """Return the counts as one line of text."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items()))
        rejected = f"; {self.rejected:,} unusable samples left out" if self.rejected else ""
        return (
            f"{self.kinds.total():,} half-truths ({kinds or 'none'}) of {self.captions:,} captions, "
            f"{self.images:,} images{rejected}"
        )


def write_half_truths(shards: Sequence[str], out: Path, data: DataConfig, seed: int) -> Counts:
    """Write the images into the folder `images` beside `out`, then all lines into `out`; return the counts.

    Raises ShardError, ConfigError or ParserError, and OSError if a file cannot be written.
    """
    counts, parser, lines = Counts(), Parser(data.spacy_model), list[str]()
    folder = out.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for shard in find_shards(shards):
        items = read_shard(shard.url, data)
        while chunk := list(islice(items, _SAMPLES_AT_ONCE)):
            samples = [item for item in chunk if isinstance(item, Sample)]
            counts.rejected += len(chunk) - len(samples)
            identified = [(sample, shard.identity(sample.key)) for sample in samples]
            drawn = _drawn(identified, parser, seed)
            for sample, identity in identified:
                counts.captions += len(sample.captions)
                half_truths = dict.fromkeys(t for t in islice(drawn, len(sample.captions)) if t)
                lines += _written(sample, identity, list(half_truths), folder, counts)
    write_file(out, "".join(lines).encode())
    return counts


def _drawn(named: Sequence[tuple[Sample, str]], parser: Parser, seed: int) -> Iterator[HalfTruth | None]:
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
    sample: Sample, identity: str, half_truths: list[HalfTruth], folder: Path, counts: Counts
) -> Iterator[str]:
    """Write the image of a sample with half-truths, and yield one line per half-truth."""
    if not half_truths:
        return
    suffix = next((name for name, content in sample.members.items() if content is sample.image), "jpg")
    digest = hashlib.sha256(sample.image).hexdigest()[:8]  # other shards may use the same names
    name = f"{identity.replace('/', '-')}-{digest}.{suffix}"
    (folder / name).write_bytes(sample.image)
    counts.images += 1
    for half_truth in half_truths:
        entry = {
            "image": name,
            "unit": half_truth.unit,
            "half_truth": half_truth.half_truth,
            "kind": half_truth.kind,
        }
        yield json.dumps(entry, ensure_ascii=False) + "\n"
        counts.kinds[half_truth.kind] += 1
