"""Small shards, plain and annotated in this process: what the tests of annotations share."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sclip.config import Config, DataConfig, KEEConfig, LossConfig, ModelConfig, TrainConfig
from sclip.data import columns as col
from sclip.data.patterns import expand, path_below
from sclip.data.position import Position
from sclip.data.reader import ReadSettings, read_visit
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.stream import StreamPlan
from sclip.data.tar import ANNOTATION_SUFFIX
from sclip.prepare.annotate import Annotator, stamp
from sclip.prepare.annotated import AnnotatedFolder, shard_names
from sclip.prepare.pack import RawSample, write_shards
from sclip.scenegraph import Parser
from support.pictures import encoded, noise

RICH = (
    "a red square is left of a blue circle",
    "a man riding a brown horse",
    "the cup is on the wooden table",
    "a white cat under a black chair next to a window",
    "a small green star above a large yellow triangle",
)
POOR = ("a dog", "quickly and quietly", "two people")
EPOCHS, SIDE = 3, 16
LEAST: dict[str, int] = {"min_objects": 2, "min_attributes": 1, "min_relations": 1}
"""A filter that every one of RICH passes, and none of POOR."""


def jpeg(seed: int) -> bytes:
    return encoded(noise(20, 16, seed), "JPEG")


def write_plain(folder: Path, samples: int = 12, per_shard: int = 5, captions: int = 3) -> list[str]:
    """Write samples with several captions each; return the shards. Of two samples in five no caption says much."""

    def texts(n: int) -> tuple[str, ...]:
        found = (*RICH, *POOR) if n % 5 < 3 else POOR
        return tuple(found[(n * (k + 1) + k) % len(found)] for k in range(captions))

    raw = (RawSample(f"s{n:04d}", jpeg(n), "jpg", texts(n), {"id": n}) for n in range(samples))
    write_shards(raw, folder, samples_per_shard=per_shard)
    return expand([f"{folder}/*.tar"])


def annotate_here(sources: Sequence[str], out: Path, parser: Parser, **data: Any) -> list[str]:
    """Do what `sclip annotate` does, without a cluster; return the annotated shards."""
    folder = AnnotatedFolder(out, stamp(parser), DataConfig(**data))
    names = shard_names(sources)
    todo = folder.claim(names, overwrite=False)
    done = Annotator(folder)(pa.table({"shard": todo})).to_pylist()
    assert not any(shard["failure"] for shard in done), done
    folder.publish(names)
    return [str(out / name) for name in sorted(names)]


def rewritten(shard: str, path: Path, member: bytes) -> str:
    """Copy a shard with another annotation in every sample."""
    with tarfile.open(shard) as source, tarfile.open(path, "w") as out:
        for info in source:
            body = source.extractfile(info)
            assert body is not None
            content = member if info.name.endswith(ANNOTATION_SUFFIX) else body.read()
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return str(path)


def named(url: str) -> NamedShard:
    """Return a shard as a run names it whose only pattern is `FOLDER/*.tar`."""
    return NamedShard(f"0/{path_below(url, url)}", url)


def plan(shards: Sequence[str], stamp: str = "", loss: LossConfig | None = None, **data: Any) -> StreamPlan:
    config = Config(
        model=ModelConfig(name="scenes-conv", kee=KEEConfig(triples=3, phrase_tokens=2)),
        data=DataConfig(**{"crop_scale": (0.3, 0.9), "block_samples": 4} | data),
        loss=loss or LossConfig(),
        train=TrainConfig(epochs=EPOCHS),
    )
    schedule = Schedule(config.run.seed, EPOCHS, (len(shards),))
    return StreamPlan(ReadSettings(config, stamp), schedule, (tuple(map(named, shards)),), SIDE, (1, 1))


def tables(of: StreamPlan, position: Position | None = None) -> Iterator[pa.Table]:
    """Yield what the readers give for everything that the position has not done."""
    position = position or Position()
    for entries in position.remaining(len(of.schedule)):
        for entry in entries:
            visit = of.schedule.visit(entry)
            yield from read_visit(of.reading, of.shard(entry), entry, visit, position.done(entry))


def rows(of: StreamPlan, position: Position | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of `tables`."""
    for table in tables(of, position):
        yield from table.to_pylist()


def seen(of: StreamPlan) -> set[tuple[int, str, str]]:
    """Return (pass, key, caption) of all that is trained on; what is seen twice fails the test."""
    found = [
        (row[col.PASS], row[col.SAMPLE_KEY], row[col.CAPTION])
        for row in rows(of)
        if row[col.STATUS] == col.SAMPLE
    ]
    assert len({(pass_, key) for pass_, key, _ in found}) == len(found)
    return set(found)
