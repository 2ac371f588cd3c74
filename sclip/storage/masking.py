"""Mask the credentials of URIs in every text that is shown or recorded.

URIs of shards, weights and stores may contain a password, a token or a signature. Every error, log, report and record
passes through `mask`. A run compares the masked URIs of its shards, so a new password does not make a new shard.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

_USER = re.compile(r"(://)(?!anonymous@)(?:[^/@:\s'\"]*:[^\s'\"]*|[^/@\s'\"]+)@")
_OPTION = r"(?:anonymous|endpoint_override|region|scheme|retry_limit_seconds)=(?:[^&?=,%@\s'\"]|%3A|%2F)+(?![^&\s'\"])"
_VALUE = re.compile(rf"([?&](?!{_OPTION})[^=&/\s'\"]+=)[^&\s'\"]+", re.IGNORECASE)
"""Query values to mask: all but options such as `region`, which are no secrets and are needed later."""
_MASKED = re.compile(r"://\*\*\*@|[?&][^=&\s]+=\*\*\*")
_PASSWORD = re.compile(r"://[^/@:\s]*:(\S+)@")


def mask(text: str, uri: str = "") -> str:
    """Return the text with `***` for the credentials of all URIs in it, and for `uri`'s password wherever it occurs."""
    text = _VALUE.sub(r"\1***", _USER.sub(r"\1***@", text))
    # A library's error may contain the password without the URI.
    if match := _PASSWORD.search(uri):
        for password in (match[1], unquote(match[1])):
            text = text.replace(password, "***")
    return text


def mask_tree(tree: Any) -> Any:
    """Return a tree of JSON values, such as a config, with every string masked."""
    if isinstance(tree, dict):
        return {name: mask_tree(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [mask_tree(value) for value in tree]
    return mask(tree) if isinstance(tree, str) else tree


def is_masked(uri: str) -> bool:
    """Return whether this URI was masked and therefore can no longer be opened."""
    return bool(_MASKED.search(uri))
