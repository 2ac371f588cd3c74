"""Read an image path or captions from one cell of a row. A raised `Fault` says why the row is left out."""

from __future__ import annotations

import ast
import io
import json
import mimetypes
import os
import tokenize
import warnings
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from sclip.data.names import IMAGE_SUFFIXES
from sclip.data.parquet import Fault, path_below
from sclip.prepare.pack import caption_fault

_TEXT_FIELDS = ("raw", "caption", "text")
"""Keys of the text in a caption that is a JSON object, as in Karpathy's sentences."""
_MAX_LIST_CHARACTERS = 1024 * 1024


def is_image(name: str) -> bool:
    """Return whether a file name has an image suffix. Formats that cannot be packed count too."""
    suffix = os.path.splitext(name)[1].lower()
    kind = mimetypes.types_map.get(suffix, "")
    return suffix.removeprefix(".") in IMAGE_SUFFIXES or kind.startswith("image/")


def key_of(below: PurePath) -> str:
    """Return the sample key of an image: its path without the image suffix, with dots replaced by underscores."""
    return (below.with_suffix("") if is_image(below.name) else below).as_posix().replace(".", "_")


def image_path(root: str, column: str, name: Any, folder: str = "") -> tuple[str, bool]:
    """Return an image's path ROOT/FOLDER/NAME and False, or ROOT/NAME and True if only this file exists.

    An absolute `name` is returned as it is. Raises Fault if `name` is not a path, or leads out of `root`.
    """
    below = path_below(column, name, folder)
    path = os.path.join(root, below)
    if folder and not os.path.isfile(path):
        flat = os.path.join(root, os.path.normpath(name.strip()))
        if os.path.isfile(flat):
            return flat, True
    return path, False


def captions_of(column: str, value: Any) -> list[str]:
    """Return the captions of a cell, which holds a text, an object with a text, or a list of either.

    Blank captions are returned too. Raises Fault if all captions are blank, or if one is too long or not UTF-8 text.
    """
    captions = []
    for caption in value if isinstance(value, list) else [value]:
        if isinstance(caption, dict):
            caption = next((caption[name] for name in _TEXT_FIELDS if name in caption), caption)
        if caption is not None and not isinstance(caption, str):
            raise Fault(f"{column} holds {type(caption).__name__}, not text")
        if fault := caption_fault(caption or ""):
            raise Fault(fault)
        captions.append(caption or "")
    if not any(caption.strip() for caption in captions):
        raise Fault(f"row without {column}")
    return captions


def spelled_list(cell: Any) -> Any:
    """Return the list that a cell's text spells in JSON or Python syntax. Any other cell is returned unchanged.

    Raises Fault if commas are missing between strings, as in numpy's output.
    """
    text = cell.strip() if isinstance(cell, str) else ""
    if not (text.startswith("[") and text.endswith("]")) or len(text) > _MAX_LIST_CHARACTERS:
        return cell
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings(action="ignore"):  # about unknown escape sequences
                value = ast.literal_eval(text)
            kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
        except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
            return cell
        kinds = [kind for kind in kinds if kind != tokenize.NL]
        if (tokenize.STRING, tokenize.STRING) in pairwise(kinds):
            raise Fault("list of captions without commas between them") from None
    return value if isinstance(value, list) else cell
