"""Write samples into WebDataset tars with an index.

`index.json` is written last, so a folder with an index is complete. The same samples give the same bytes for any number
of workers, so machines can compare the checksums in the index. Unusable samples are skipped and counted.
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
"""Maximum number of skips that are listed with their place; all others are only counted."""
_SUFFIX_OF_FORMAT = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
}  # fmt: skip
_OURS = "[0-9][0-9][0-9][0-9][0-9][0-9].tar"


@dataclass(frozen=True, slots=True)
class RawSample:
    """One image with all of its captions, as read from a source."""

    key: str
    """Name of the sample in the shard, without dots (a dot ends the key in a tar), backslashes or empty parts."""
    image: bytes | Path
    captions: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    """Additional fields for the sample's .json."""
    annotation: bytes = b""
    """Annotation member (`sclip.data.annotation`); empty if the captions are not annotated."""
    place: str = ""
    """First place in the source that names the image ("pairs.csv line 3")."""
    rows: int = 1
    """Number of source rows in the sample. If the sample is skipped, all of them count as skipped."""


@dataclass
class Skips:
    """Counts of skipped rows by reason, with the first place of each reason."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    places: list[tuple[str, str, int]] = field(default_factory=list)
    """Reason, place and number of rows of each skip, up to MOST_PLACES skips."""
    rows: int = 0
    """Number of rows read, including skipped ones; 0 means that the source is not read in rows."""
    unit: str = "rows"
    """Word for the source's rows in messages; "images" if the source is a folder of images."""
    notes: list[str] = field(default_factory=list)
    """Lines that tell the user which parts of the source, other than rows, are not packed."""

    def add(self, reason: str, place: str, count: int = 1) -> None:
        """Count rows that are skipped at `place`."""
        self.counts[reason] += count
        self.first.setdefault(reason, place)
        if len(self.places) < MOST_PLACES:
            self.places.append((reason, place, count))

    def merge(self, other: Skips) -> None:
        """Add the counts and places of another `Skips`."""
        self.counts.update(other.counts)
        self.first = other.first | self.first
        self.places += other.places[: MOST_PLACES - len(self.places)]

    def lines(self) -> list[str]:
        """Return one line per reason, the most frequent first."""
        return [
            f"{n} skipped: {reason} (first: {self.first[reason]})" for reason, n in self.counts.most_common()
        ]

    def noted(self) -> list[str]:
        """Return one line per reason, for values that are left out although their row is packed."""
        return [f"{n} {reason} (first: {self.first[reason]})" for reason, n in self.counts.items()]

    def write(self, out: Path) -> Path:
        """Write the skips as JSON Lines (reason, place, number of rows) into the folder `out`; return the path."""
        lines = [
            json.dumps({"reason": reason, "place": place, "rows": count}) + "\n"
            for reason, place, count in self.places
        ]
        write_file(out / SKIPPED, "".join(lines).encode())
        return out / SKIPPED

    def sum(self, packed: int) -> str:
        """Return a line that accounts for every row: rows read = `packed` + skipped."""
        skipped = self.counts.total()
        assert self.rows == packed + skipped, f"{self.rows} {self.unit}, but {packed} + {skipped}"
        return f"{self.rows} {self.unit} read = {packed} packed + {skipped} skipped"


@dataclass(frozen=True)
class Index:
    """Shards that one call of `write_shards` wrote, and the samples that it skipped."""

    shards: tuple[Shard, ...]
    skips: Skips
    rows: int = 0
    """Number of source rows in the samples of all shards."""

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
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

    A shard is closed at `samples_per_shard` samples or before it exceeds `bytes_per_shard` image bytes. If `workers` is
    above 1, that many processes write shards in parallel. Samples that match `exclusions` are skipped. `on_shard` is
    called for every finished shard, in order. Raises PackError if `out_dir` already holds shards (unless `overwrite`)
    or is not writable, or if every sample is skipped. After an error, finished shards are kept.
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
    """Split the samples into shards. The split depends on the samples only, not on the number of workers."""
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
"""One tar (None if all its samples were skipped), its skips, and the number of rows packed into it."""


def _results(
    jobs: Iterable[tuple[int, list[RawSample]]],
    write: Callable[[int, list[RawSample]], _Written],
    workers: int,
) -> Iterator[_Written]:
    """Write the chunks in this process or in a pool; yield results in order."""
    if workers <= 1:
        yield from (write(number, chunk) for number, chunk in jobs)
        return
    pending: deque[Future[_Written]] = deque()
    # Do not fork this process: it may run threads (Ray's, torch's), and a child would inherit their held locks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imports torch (for webdataset) once, not in every process
    with ProcessPoolExecutor(workers, context) as pool:
        for number, chunk in jobs:
            pending.append(pool.submit(write, number, chunk))
            if len(pending) > 2 * workers:  # limits the images in memory
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
    """Return the reason why a text cannot be a caption or a sample's key; empty if it can be one."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "caption or key is not UTF-8"
    return f"caption of more than {MAX_CAPTION_BYTES} bytes" if size > MAX_CAPTION_BYTES else ""


class _Skipped(Exception):
    """Error of an unusable sample. The message is one of few reasons, so that they can be counted."""


def _members(sample: RawSample, exclusions: Exclusions | None) -> dict[str, Any]:
    """Return the members for TarWriter. Raises `_Skipped` for an unusable or excluded sample."""
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
    try:
        with Image.open(io.BytesIO(image)) as opened:
            format_ = opened.format or "unknown"
            frames = 1 if format_ == "MPO" else getattr(opened, "n_frames", 1)
            opened.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise _Skipped("image file is not an image, or broken") from None
    if format_ not in _SUFFIX_OF_FORMAT:
        raise _Skipped(f"image is {format_}; convert it to JPEG or PNG")
    if frames > 1:
        raise _Skipped(f"image has {frames} frames: it is unknown which one the caption describes")
    return _SUFFIX_OF_FORMAT[format_]


def _origin(sample: RawSample) -> str:
    image = str(sample.image) if isinstance(sample.image, Path) else f"key {sample.key}"
    return f"{sample.place}: {image}" if sample.place and sample.place != image else image
