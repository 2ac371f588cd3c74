"""Small shards, plain and annotated in this process, for the tests of annotations."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sclip.config import Config, DataConfig, KEEConfig, LossConfig, ModelConfig, TrainConfig
from sclip.data import columns as col
from sclip.data.counts import count_samples
from sclip.data.names import ANNOTATION_SUFFIX
from sclip.data.order import Order
from sclip.data.patterns import expand, path_below
from sclip.data.reader import ReadSettings, read_round
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.stream import StreamPlan
from sclip.prepare.annotate import Annotator, stamp
from sclip.prepare.annotated import AnnotatedFolder, shard_names
from sclip.prepare.pack import RawSample, write_shards
from sclip.scenegraph import Parser
from sclip.scenegraph.window import MOST_WORDS
from support.pictures import encoded, noise

RICH = (
    "a red square is left of a blue circle", "a man riding a brown horse", "the cup is on the wooden table",
    "a white cat under a black chair next to a window", "a small green star above a large yellow triangle",
)  # fmt: skip
POOR = ("a dog", "quickly and quietly", "two people")
EPOCHS, SIDE = 3, 16
LEAST: dict[str, Any] = {"min_objects": 2, "min_attributes": 1, "min_relations": 1}
"""A filter that every caption of RICH passes and no caption of POOR."""


def jpeg(seed: int) -> bytes:
    return encoded(noise(20, 16, seed), "JPEG")


def write_plain(folder: Path, samples: int = 12, per_shard: int = 5, captions: int = 3) -> list[str]:
    """Write samples with several captions each; return the shards. Two samples in five have POOR captions only."""

    def texts(n: int) -> tuple[str, ...]:
        pool = (*RICH, *POOR) if n % 5 < 3 else POOR
        return tuple(pool[(n * (k + 1) + k) % len(pool)] for k in range(captions))

    raw = (RawSample(f"s{n:04d}", jpeg(n), texts(n), {"id": n}) for n in range(samples))
    write_shards(raw, folder, samples_per_shard=per_shard)
    return expand([f"{folder}/*.tar"])


def annotate_here(
    sources: Sequence[str], out: Path, parser: Parser, most_words: int = MOST_WORDS, **data: Any
) -> list[str]:
    """Do what `sclip annotate` does, without a cluster; return the annotated shards."""
    folder = AnnotatedFolder(out, stamp(parser), DataConfig(**data), most_words)
    names = shard_names(sources)
    todo = folder.claim(names, overwrite=False)
    done = Annotator(folder)(pa.table({"shard": todo})).to_pylist()
    assert not any(shard["failure"] for shard in done), done
    folder.publish(names)
    return [str(out / name) for name in sorted(names)]


def rewritten(shard: str, path: Path, member: bytes) -> str:
    with tarfile.open(shard) as source, tarfile.open(path, "w") as out:
        for info in source:
            body = source.extractfile(info)
            assert body is not None
            content = member if info.name.endswith(ANNOTATION_SUFFIX) else body.read()
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return str(path)


def named(url: str) -> NamedShard:
    """Return a shard with the name that it has in a run whose only pattern is `FOLDER/*.tar`."""
    return NamedShard(f"0/{path_below(url, url)}", url)


def plan(shards: Sequence[str], stamp: str = "", loss: LossConfig | None = None, **data: Any) -> StreamPlan:
    """Return the plan of a run whose only pattern is `FOLDER/*.tar`; two shards are open at once."""
    defaults: dict[str, Any] = {"crop_scale": (0.3, 0.9), "block_samples": 4, "open_shards": 2}
    config = Config(
        model=ModelConfig(name="scenes-conv", kee=KEEConfig(triples=3, phrase_tokens=2)),
        data=DataConfig(**defaults | data),
        loss=loss or LossConfig(),
        train=TrainConfig(epochs=EPOCHS, batch_size=4),
    )
    samples = count_samples(shards, config.data).samples
    counts = tuple(samples[url] for url in shards)
    schedule = Schedule(config.run.seed, EPOCHS, (len(shards),))
    order = Order(schedule, (counts,), config.data.open_shards, config.train.batch_size)
    return StreamPlan(ReadSettings(config, stamp), order, (tuple(map(named, shards)),), SIDE, (1, 1))


def tables(stream: StreamPlan, step: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[pa.Table]:
    """Yield the tables that the readers of one worker produce, from `step` on."""
    for _, round_ in stream.order.rounds(step):
        shares = round_.share(rank, world_size)
        visits = {part.entry: stream.visit(part.entry) for track in round_.tracks for part in track}
        yield from read_round(stream.reading, round_, shares, visits, step * stream.order.batch_size)


def rows(stream: StreamPlan, step: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[dict[str, Any]]:
    for table in tables(stream, step, rank, world_size):
        yield from table.to_pylist()


def seen(stream: StreamPlan) -> set[tuple[int, str, str]]:
    """Return (pass, key, caption) of every sample trained on; a key seen twice in one pass fails the test."""
    samples = [
        (row[col.PASS], row[col.SAMPLE_KEY], row[col.CAPTION])
        for row in rows(stream)
        if row[col.STATUS] == col.SAMPLE
    ]
    assert len({(pass_, key) for pass_, key, _ in samples}) == len(samples)
    return set(samples)
