"""Cut the names of a tar's members into keys and suffixes, and spell suffixes for messages.

webdataset's rule is the first dot of a name. `data.key_ends_at=last_dot` reads tars whose keys have dots.
"""

from __future__ import annotations

import re

from sclip.config import DataConfig

IMAGE_SUFFIXES = DataConfig.image_suffixes
"""Suffixes of pictures, in folders as well as in tars."""
ANNOTATION_SUFFIX = "graph.json.gz"
"""Member suffix of a sample's graphs and negatives (`sclip.data.annotation`)."""

_IMAGE_LIKE = frozenset({*IMAGE_SUFFIXES, "jpe", "avif", "heic", "heif", "jp2", "jxl"})
_TEXT_LIKE = frozenset({*DataConfig.text_suffixes, "text", "caption", "cap"})
_MOST_CHARS = 40
_ROOT = re.compile(r"^(\.?/)+")
_META = re.compile(r"__[^/]*__($|/)|__MACOSX/")


def key_and_suffix(name: str, data: DataConfig) -> tuple[str, str] | None:
    """Cut the name of a member into its sample's key and its suffix in lower case.

    Returns None where it belongs to no sample: without a dot, hidden (macOS puts `._x.jpg` beside `x.jpg`), or
    webdataset's own (`__meta__/..`).
    """
    folder, slash, last = name.rpartition("/")
    if last.startswith(".") or _META.match(name):
        return None
    if data.key_ends_at == "first_dot":
        stem, dot, suffix = last.partition(".")
    elif last.lower().endswith(f".{ANNOTATION_SUFFIX}"):  # it has dots itself
        stem, dot, suffix = last[: -len(ANNOTATION_SUFFIX) - 1], ".", ANNOTATION_SUFFIX
    else:
        stem, dot, suffix = last.rpartition(".")
    return (folder + slash + stem, suffix.lower()) if dot else None


def name_inside(name: str) -> str:
    """Return the name of a member below the root of its tar: of `./x`, `/x` (`tar -P`) and a Windows path too."""
    return _ROOT.sub("", name.replace("\\", "/"))


def is_image_like(suffix: str) -> bool:
    """Tell whether the end of a suffix is one that images have."""
    return suffix.rpartition(".")[2] in _IMAGE_LIKE


def is_text_like(suffix: str) -> bool:
    """Tell whether the end of a suffix is one that texts have."""
    return suffix.rpartition(".")[2] in _TEXT_LIKE


def without_numbers(suffix: str) -> str:
    """Return a suffix as it is counted, `.N.jpg` for 00017.jpg: frames of a video have one each.

    It is short and printable, whatever bytes the tar has for it.
    """
    front, dot, end = suffix.rpartition(".")
    counted = f".{re.sub(r'[0-9]+', 'N', front)}{dot}{end}".encode(errors="backslashreplace").decode()
    if len(counted) > _MOST_CHARS:
        is_short = len(dot + end) < _MOST_CHARS
        counted = f".*{counted[-_MOST_CHARS:]}" if is_short else f"{counted[:_MOST_CHARS]}*"
    return "".join(character if character.isprintable() else "?" for character in counted)
