"""Make an exclusion list from the pictures of a benchmark: a folder, shards or a Karpathy JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from sclip.config import DataConfig
from sclip.data.images import ImageError
from sclip.data.names import IMAGE_SUFFIXES
from sclip.data.patterns import expand
from sclip.data.shards import Rejected, read_shard
from sclip.evaluate.exclusion import Exclusion, ExclusionError, name_of, phash
from sclip.prepare.pack import Skips
from sclip.prepare.writing import write_file
from sclip.storage.globs import files_below
from sclip.storage.masking import mask

_DEFAULTS = DataConfig()


def excluded(
    source: str,
    name: str,
    skips: Skips,
    *,
    split: str = "test",
    images: Path | None = None,
    data: DataConfig = _DEFAULTS,
) -> Iterator[Exclusion]:
    """Yield one entry per picture of a source.

    Args:
        source: a folder of images, a Karpathy file (.json, of COCO or Flickr30k), or shards (.tar, a pattern).
        name: name of the source in the list.
        skips: counts unreadable samples, and pictures without a perceptual hash, which are listed by name only.
        split: split of a Karpathy file to list: "test", "val", "train" or "restval".
        images: folder with the pictures of a Karpathy file; if None, they are listed by name only.
        data: options for reading shards.

    Raises ExclusionError for any other kind of source, ShardError for shards that cannot be reached, and ConfigError
    for patterns joined by `::`.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        below = sorted(map(Path, files_below(str(path))))
        files = [file for file in below if file.suffix.removeprefix(".").lower() in IMAGE_SUFFIXES]
        for file in files:
            yield _exclusion(file, name, skips)
        if not files:
            raise ExclusionError(f"{source}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    elif path.suffix == ".json":
        yield from _karpathy(path, name, skips, split, images)
    elif ".tar" in source:
        for url in expand([source]):
            for sample in read_shard(url, data):
                place = f"{mask(url)} {sample.key}"
                if isinstance(sample, Rejected):
                    skips.add(f"sample that cannot be read: {sample.reason}", place)
                else:
                    yield Exclusion(name, name_of(sample.key), _hash(sample.image, place, skips))
    else:
        raise ExclusionError(f"{source}: not a folder of images, a Karpathy .json or a .tar")


def write_list(entries: Iterable[Exclusion], path: Path) -> int:
    """Atomically write a list that `Exclusions.read` reads; return its number of pictures."""
    lines = [json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries]
    write_file(path, "".join(lines).encode())
    return len(lines)


def _karpathy(path: Path, name: str, skips: Skips, split: str, images: Path | None) -> Iterator[Exclusion]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["images"]
        chosen = [entry for entry in entries if entry["split"] == split]
        files = [(str(entry.get("filepath", "")), str(entry["filename"])) for entry in chosen]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ExclusionError(f"{path}: not a Karpathy file: {type(error).__name__} {error}") from error
    if not files:
        raise ExclusionError(f"{path}: no picture of the split {split!r}")
    for folder, file in files:
        candidates = [images / folder / file, images / file] if images else []
        picture = next((candidate for candidate in candidates if candidate.is_file()), None)
        if images and not picture:
            skips.add("hash of a missing picture, only its name is listed", str(candidates[0]))
        yield _exclusion(picture, name, skips) if picture else Exclusion(name, name_of(file))


def _exclusion(file: Path, name: str, skips: Skips) -> Exclusion:
    return Exclusion(name, name_of(file.name), _hash(file.read_bytes(), str(file), skips))


def _hash(image: bytes, place: str, skips: Skips) -> str:
    try:
        digest = phash(image)
    except ImageError as error:
        skips.add(f"hash of an unreadable picture, only its name is listed: {error}", place)
        return ""
    if not digest:
        skips.add("hash of a plain surface, only its name is listed", place)
    return digest
