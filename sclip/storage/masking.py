"""Text that is shown or recorded in; the same text without the credentials of the URIs in it out.

Shards, weights and stores are named by URIs that may hold a password, a token or a signature. Whoever puts one into
an error, a log, a report or a record calls `mask`, and gives it the URI where the text is from elsewhere: what a
library raises repeats what it was given. A record of a run names its shards in this form too, and what was recorded
is compared with what is given in it: a password that was changed, or a signature made anew, is the same place.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

_USER = re.compile(r"(://)(?!anonymous@)(?:[^/@:\s'\"]*:[^\s'\"]*|[^/@\s'\"]+)@")
_OPTION = r"(?:anonymous|endpoint_override|region|scheme|retry_limit_seconds)=(?:[^&?=,%@\s'\"]|%3A|%2F)+(?![^&\s'\"])"
_VALUE = re.compile(rf"([?&](?!{_OPTION})[^=&/\s'\"]+=)[^&\s'\"]+", re.IGNORECASE)
"""A query's value, but for those that say how a store is reached: no secret, and without them it is not found again."""
_MASKED = re.compile(r"://\*\*\*@|[?&][^=&\s]+=\*\*\*")
_PASSWORD = re.compile(r"://[^/@:\s]*:(\S+)@")


def mask(text: str, uri: str = "") -> str:
    """Return the text without the passwords, tokens and signatures of the URIs in it, nor `uri`'s password alone."""
    text = _VALUE.sub(r"\1***", _USER.sub(r"\1***@", text))
    if found := _PASSWORD.search(uri):
        for password in (found[1], unquote(found[1])):
            text = text.replace(password, "***")
    return text


def mask_tree(tree: Any) -> Any:
    """Return a tree of JSON values, such as a config's, with `mask` on every text in it."""
    if isinstance(tree, dict):
        return {name: mask_tree(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [mask_tree(value) for value in tree]
    return mask(tree) if isinstance(tree, str) else tree


def is_masked(uri: str) -> bool:
    """Return whether something of this URI was masked, so that it opens nothing any more."""
    return bool(_MASKED.search(uri))
