"""Read the captions of a file with their line numbers, each cleaned as in training.

A text file holds one caption per line. COCO's annotations (.json) and tables (.csv, column `caption`) hold one caption
per entry.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from sclip.data.caption_text import clean_caption, encoding_of
from sclip.data.patterns import find_shards
from sclip.data.shards import Sample, read_shard


class CaptionsError(ValueError):
    """Error of a file without captions; the message says what is missing."""


def read(path: Path | str) -> list[str]:
    """Return the non-blank captions of a file; "-" is standard input. Raises OSError, or CaptionsError if none."""
    return [caption for _, caption in numbered(path)]


def numbered(path: Path | str) -> list[tuple[int, str]]:
    """Return the captions as `read` does, each with the number of its line or entry, counted from 1."""
    content = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    text = content.decode(encoding_of(content), errors="replace")
    lines = enumerate(map(clean_caption, _raw(path, text)), start=1)
    if captions := [(number, caption) for number, caption in lines if caption]:
        return captions
    raise CaptionsError(
        f"{path}: no captions; it needs one per line, COCO's .json, or .csv with a column caption"
    )


def read_source(name: str) -> list[str]:
    """Return the captions of a file as `read` does, or of the shards that a path or URI with wildcards matches.

    Raises OSError or CaptionsError; for shards, also ShardError or ConfigError.
    """
    if name == "-" or Path(name).suffix in (".txt", ".json", ".csv"):
        return read(name)
    shards = [read_shard(shard.url) for shard in find_shards([name])]
    if texts := [caption for item in chain(*shards) if isinstance(item, Sample) for caption in item.captions]:
        return texts
    raise CaptionsError(f"{name}: no captions in these shards")


def _raw(path: Path | str, text: str) -> Iterable[str]:
    suffix = Path(path).suffix
    if suffix not in (".json", ".csv"):
        return text.split("\n")
    try:
        rows = json.loads(text)["annotations"] if suffix == ".json" else csv.DictReader(io.StringIO(text))
        return [str(row["caption"]) for row in rows]
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        missing = "annotations with captions, as COCO has them" if suffix == ".json" else "column caption"
        raise CaptionsError(f"{path}: no {missing}: {error}") from error
