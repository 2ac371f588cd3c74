"""Split member names of a tar into keys and suffixes, and format suffixes for messages.

webdataset splits at the first dot of a name. Use `data.key_ends_at=last_dot` for tars whose keys contain dots.
"""

from __future__ import annotations

import re

from sclip.config import DataConfig

IMAGE_SUFFIXES = DataConfig.image_suffixes
ANNOTATION_SUFFIX = "graph.json.gz"
"""Suffix of the member with a sample's graphs and negatives (`sclip.data.annotation`)."""

_IMAGE_LIKE = frozenset({*IMAGE_SUFFIXES, "jpe", "avif", "heic", "heif", "jp2", "jxl"})
_TEXT_LIKE = frozenset({*DataConfig.text_suffixes, "text", "caption", "cap"})
_MOST_CHARS = 40
_ROOT = re.compile(r"^(\.?/)+")
_META = re.compile(r"__[^/]*__($|/)|__MACOSX/")


def key_and_suffix(name: str, data: DataConfig) -> tuple[str, str] | None:
    """Split a member name into its sample's key and its suffix in lower case.

    Returns None for members that belong to no sample: names without a dot, hidden files (macOS puts `._x.jpg` beside
    `x.jpg`), and webdataset's own members (`__meta__/..`).
    """
    folder, slash, last = name.rpartition("/")
    if last.startswith(".") or _META.match(name):
        return None
    if data.key_ends_at == "first_dot":
        stem, dot, suffix = last.partition(".")
    elif last.lower().endswith(f".{ANNOTATION_SUFFIX}"):  # this suffix contains dots
        stem, dot, suffix = last[: -len(ANNOTATION_SUFFIX) - 1], ".", ANNOTATION_SUFFIX
    else:
        stem, dot, suffix = last.rpartition(".")
    return (folder + slash + stem, suffix.lower()) if dot else None


def name_inside(name: str) -> str:
    """Return a member name relative to the root of its tar, also for `./x`, `/x` (`tar -P`) and Windows paths."""
    return _ROOT.sub("", name.replace("\\", "/"))


def is_image_like(suffix: str) -> bool:
    """Return whether the last part of a suffix is common for images."""
    return suffix.rpartition(".")[2] in _IMAGE_LIKE


def is_text_like(suffix: str) -> bool:
    """Return whether the last part of a suffix is common for texts."""
    return suffix.rpartition(".")[2] in _TEXT_LIKE


def without_numbers(suffix: str) -> str:
    """Return a suffix with N for numbers (`.N.jpg` for 00017.jpg), so that all video frames count as one suffix."""
    front, dot, end = suffix.rpartition(".")
    counted = f".{re.sub(r'[0-9]+', 'N', front)}{dot}{end}".encode(errors="backslashreplace").decode()
    if len(counted) > _MOST_CHARS:
        is_short = len(dot + end) < _MOST_CHARS
        counted = f".*{counted[-_MOST_CHARS:]}" if is_short else f"{counted[:_MOST_CHARS]}*"
    return "".join(character if character.isprintable() else "?" for character in counted)
