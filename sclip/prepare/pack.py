"""The writing side of a shard: samples in, WebDataset tars and their index out.

`index.json` comes last: what a reader can see is complete. The same samples give the same bytes, whatever the
number of workers, so that the checksums in the index can be compared between machines. What cannot be packed is
skipped and counted.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from sclip.data.caption_text import MAX_CAPTION_BYTES
from sclip.data.names import ANNOTATION_SUFFIX
from sclip.evaluate.exclusion import Exclusions
from sclip.prepare.writing import PackError, Shard, write_file, write_tar

INDEX = "index.json"
SKIPPED = "skipped.jsonl"
MOST_PLACES = 100_000
"""Maximum number of omissions that are listed with their place; all others are only counted."""
_SUFFIX_OF_FORMAT = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
}  # fmt: skip
_OURS = "[0-9][0-9][0-9][0-9][0-9][0-9].tar"


@dataclass(frozen=True, slots=True)
class RawSample:
    """One image with all of its captions, as a source has it."""

    key: str
    """Name in the shard; neither dots, which end a key there, nor a way out of the shard."""
    image: bytes | Path
    extension: str
    """Suffix that the source gives the image; where the image itself says another, that one is written."""
    captions: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the sample's .json."""
    annotation: bytes = b""
    """Member of `sclip.data.annotation`, where the captions have one."""
    place: str = ""
    """Where the source names the image first ("pairs.csv line 3")."""
    rows: int = 1
    """Rows of the source that the sample is made of; as many are skipped with it."""


@dataclass
class Skips:
    """Counts of what was left out by reason, each with the first place."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    places: list[tuple[str, str, int]] = field(default_factory=list)
    """Reason, place and count of each, up to MOST_PLACES."""
    rows: int = 0
    """Rows that were read, those left out among them; 0 where the source is not read in rows."""
    unit: str = "rows"
    """What a row of the source is called."""
    notes: list[str] = field(default_factory=list)
    """What else the user must know of the source: things that are no rows, and are not packed."""

    def add(self, reason: str, place: str, count: int = 1) -> None:
        """Count something left out at `place`."""
        self.counts[reason] += count
        self.first.setdefault(reason, place)
        if len(self.places) < MOST_PLACES:
            self.places.append((reason, place, count))

    def merge(self, other: Skips) -> None:
        """Add what another part of the work has left out."""
        self.counts.update(other.counts)
        self.first = other.first | self.first
        self.places += other.places[: MOST_PLACES - len(self.places)]

    def lines(self) -> list[str]:
        """Return a line for each reason, the commonest first."""
        return [
            f"{n} skipped: {reason} (first: {self.first[reason]})" for reason, n in self.counts.most_common()
        ]

    def noted(self) -> list[str]:
        """Return a line for each reason of what is no row."""
        return [f"{n} {what} (first: {self.first[what]})" for what, n in self.counts.items()]

    def write(self, out: Path) -> Path:
        """Write what was left out into `out`, an object a line: reason, place, and the rows that it concerns."""
        lines = [
            json.dumps({"reason": reason, "place": place, "rows": count}) + "\n"
            for reason, place, count in self.places
        ]
        write_file(out / SKIPPED, "".join(lines).encode())
        return out / SKIPPED

    def sum(self, packed: int) -> str:
        """Return the line that accounts for every row, with the number of rows that were packed."""
        skipped = self.counts.total()
        assert self.rows == packed + skipped, f"{self.rows} {self.unit}, but {packed} + {skipped}"
        return f"{self.rows} {self.unit} read = {packed} packed + {skipped} skipped"


@dataclass(frozen=True)
class Index:
    """What one call of `write_shards` wrote, and what it left out."""

    shards: tuple[Shard, ...]
    skips: Skips
    rows: int = 0
    """Rows of the source that the samples of all shards are made of."""

    @property
    def samples(self) -> int:
        """Samples of all shards."""
        return sum(shard.samples for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """Return the content of index.json."""
        return {"format": 1, "shards": [asdict(shard) for shard in self.shards], "samples": self.samples}


def write_shards(
    samples: Iterable[RawSample],
    out_dir: Path | str,
    *,
    samples_per_shard: int = 1000,
    bytes_per_shard: int | None = None,
    workers: int = 1,
    overwrite: bool = False,
    exclusions: Exclusions | None = None,
    on_shard: Callable[[Shard], None] | None = None,
) -> Index:
    """Write the samples into `out_dir` as 000000.tar, 000001.tar, ... and index.json; return the index.

    A shard is closed at `samples_per_shard` samples or before `bytes_per_shard` image bytes are exceeded.
    With `workers` above 1 as many processes write, one shard each at a time. Samples that `exclusions` matches are
    skipped. `on_shard` is called for every finished shard, in order. Raises PackError when `out_dir` holds shards
    already (unless `overwrite`) or cannot be written to, or when no sample is left; finished shards stay.
    """
    out = Path(out_dir)
    skips = Skips()
    shards: list[Shard] = []
    rows = 0
    try:
        _prepare(out, overwrite)
        jobs = enumerate(_chunks(samples, samples_per_shard, bytes_per_shard, skips))
        for shard, skipped, packed in _results(
            jobs, partial(_write, out=out, exclusions=exclusions), workers
        ):
            skips.merge(skipped)
            rows += packed
            if shard is not None:
                shards.append(shard)
                if on_shard is not None:
                    on_shard(shard)
        if not shards:
            raise PackError("; ".join(["no sample to pack", *skips.lines()]))
        index = Index(tuple(shards), skips, rows)
        write_file(out / INDEX, json.dumps(index.to_json(), indent=1).encode())
    except OSError as error:
        raise PackError(
            f"{out}: {error.strerror or error}; {len(shards)} finished shards are kept"
        ) from error
    except BrokenProcessPool as error:
        raise PackError(f"{out}: a packing process was killed (memory?); use fewer workers") from error
    return index


def _prepare(out: Path, overwrite: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    old = [path for path in (out / INDEX, *sorted(out.glob(_OURS)), out / SKIPPED) if path.exists()]
    if old and not overwrite:
        raise PackError(f"{out}: holds {old[0].name} already; choose another folder or pass --overwrite")
    for path in (*old, *out.glob(f".{_OURS}.*.tmp")):  # the index goes first: it must not outlive its shards
        path.unlink()


def _chunks(
    samples: Iterable[RawSample], most_samples: int, most_bytes: int | None, skips: Skips
) -> Iterator[list[RawSample]]:
    """Cut the stream of samples into shards; the cut depends on the samples alone, not on the workers."""
    keys: set[str] = set()
    chunk: list[RawSample] = []
    chunk_bytes = 0
    for sample in samples:
        if sample.key in keys:
            skips.add("key is taken by an earlier sample", _origin(sample), sample.rows)
            continue
        keys.add(sample.key)
        size = _image_bytes(sample) if most_bytes else 0
        if chunk and (len(chunk) >= most_samples or (most_bytes and chunk_bytes + size > most_bytes)):
            yield chunk
            chunk, chunk_bytes = [], 0
        chunk.append(sample)
        chunk_bytes += size
    if chunk:
        yield chunk


def _image_bytes(sample: RawSample) -> int:
    if isinstance(sample.image, bytes):
        return len(sample.image)
    return os.path.getsize(sample.image) if os.path.isfile(sample.image) else 0


_Written = tuple[Shard | None, Skips, int]
"""One tar (None where every sample of it had to be skipped), what it lacks, and the rows that it holds."""


def _results(
    jobs: Iterable[tuple[int, list[RawSample]]],
    write: Callable[[int, list[RawSample]], _Written],
    workers: int,
) -> Iterator[_Written]:
    """Write the chunks here or in processes; the results come in order, with few chunks waiting in memory."""
    if workers <= 1:
        yield from (write(number, chunk) for number, chunk in jobs)
        return
    pending: deque[Future[_Written]] = deque()
    # Not forked from here: the caller may run threads (Ray's, torch's), whose held locks a child inherits.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # webdataset imports torch: once, not in every process
    with ProcessPoolExecutor(workers, context) as pool:
        for number, chunk in jobs:
            pending.append(pool.submit(write, number, chunk))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _write(number: int, chunk: list[RawSample], *, out: Path, exclusions: Exclusions | None) -> _Written:
    skips = Skips()
    rows = 0

    def members() -> Iterator[dict[str, Any]]:
        nonlocal rows
        for sample in chunk:
            try:
                yield _members(sample, exclusions)
            except _Skipped as error:
                skips.add(str(error), _origin(sample), sample.rows)
            else:
                rows += sample.rows

    shard = write_tar(out / f"{number:06d}.tar", members())
    return shard, skips, rows


def caption_fault(text: str) -> str:
    """Return why a text cannot be the caption, or the key, of a sample; empty where it can."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "caption or key is not UTF-8"
    return f"caption of more than {MAX_CAPTION_BYTES} bytes" if size > MAX_CAPTION_BYTES else ""


class _Skipped(Exception):
    """Why a sample is left out; few different texts, so that they can be counted."""


def _members(sample: RawSample, exclusions: Exclusions | None) -> dict[str, Any]:
    """Return what TarWriter takes; raises `_Skipped` where no reader could, or may, use the sample."""
    parts = sample.key.split("/")
    if "." in sample.key or "" in parts or "\\" in sample.key or sample.key.startswith("__"):
        raise _Skipped("key has a dot, a backslash, an empty part or leading '__'")
    captions = [caption.strip() for caption in sample.captions if caption.strip()]
    if not captions:
        raise _Skipped("no caption, or an empty one")
    if fault := next(filter(None, map(caption_fault, (*captions, sample.key))), ""):
        raise _Skipped(fault)
    image = _image(sample)
    if exclusions and (reason := exclusions.match(sample.key, image)):
        raise _Skipped(reason)
    record = json.dumps({**sample.extra, "captions": captions}, sort_keys=True, ensure_ascii=False)
    members = {"__key__": sample.key, _suffix(image): image, "json": record.encode()}
    return members | ({ANNOTATION_SUFFIX: sample.annotation} if sample.annotation else {})


def _image(sample: RawSample) -> bytes:
    if isinstance(sample.image, bytes):
        return sample.image
    try:
        return sample.image.read_bytes()
    except FileNotFoundError:
        raise _Skipped("image file is missing") from None
    except OSError as error:
        raise _Skipped(f"image file cannot be read ({error.strerror})") from None


def _suffix(image: bytes) -> str:
    """Return the suffix of an image by its header; the pixels stay undecoded."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            format_ = opened.format or "unknown"
            frames = 1 if format_ == "MPO" else getattr(opened, "n_frames", 1)
            opened.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise _Skipped("image file is no image, or a broken one") from None
    if format_ not in _SUFFIX_OF_FORMAT:
        raise _Skipped(f"image is {format_}; convert it to JPEG or PNG")
    if frames > 1:
        raise _Skipped(f"image has {frames} frames: which one the caption means is not known")
    return _SUFFIX_OF_FORMAT[format_]


def _origin(sample: RawSample) -> str:
    image = str(sample.image) if isinstance(sample.image, Path) else f"key {sample.key}"
    return f"{sample.place}: {image}" if sample.place and sample.place != image else image
