"""Small shards, plain and annotated in this process: what the tests of annotations share."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from PIL import Image

from sclip.data.annotate import Annotator, stamp
from sclip.data.annotated import AnnotatedFolder, shard_names
from sclip.data.pack import RawSample, write_shards
from sclip.data.shards import expand
from sclip.scenegraph import Parser

CAPTIONS = (
    "a red square is left of a blue circle",
    "a man riding a brown horse",
    "a dog",
    "the cup is on the wooden table",
    "quickly and quietly",
    "a white cat under a black chair next to a window",
    "a small green star above a large yellow triangle",
    "two people",
)


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = random.Random(seed).randbytes(20 * 16 * 3)
    Image.frombytes("RGB", (20, 16), pixels).save(file, "JPEG")
    return file.getvalue()


def write_plain(folder: Path, samples: int = 12, per_shard: int = 5, captions: int = 3) -> list[str]:
    """Write samples with several captions each, some of them with little in it; return the shards."""
    texts = [[CAPTIONS[(n * (k + 1) + k) % len(CAPTIONS)] for k in range(captions)] for n in range(samples)]
    raw = (RawSample(f"s{n:04d}", jpeg(n), "jpg", tuple(texts[n]), {"id": n}) for n in range(samples))
    write_shards(raw, folder, samples_per_shard=per_shard)
    return expand([f"{folder}/*.tar"])


def annotate_here(sources: Sequence[str], out: Path, parser: Parser, caption_field: str = "") -> list[str]:
    """Do what jobs/annotate.py does, without a cluster; return the annotated shards."""
    folder = AnnotatedFolder(out, stamp(parser), caption_field)
    names = shard_names(sources)
    todo = folder.claim(names, overwrite=False)
    done = Annotator(folder, "")(pa.table({"shard": todo})).to_pylist()
    assert not any(shard["failure"] for shard in done), done
    folder.publish(names)
    return [str(out / name) for name in sorted(names)]
