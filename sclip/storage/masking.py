"""Mask the credentials of URIs in any text that is shown or recorded.

URIs of shards, weights and stores may hold a password, a token or a signature. Every error, log, report and record
passes them through `mask`; for a library's message, which may repeat its URI in parts, `mask` gets that URI as well.
Runs record their shards masked and compare them masked, so that a new password or signature is still the same shard.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

_USER = re.compile(r"(://)(?!anonymous@)(?:[^/@:\s'\"]*:[^\s'\"]*|[^/@\s'\"]+)@")
_OPTION = r"(?:anonymous|endpoint_override|region|scheme|retry_limit_seconds)=(?:[^&?=,%@\s'\"]|%3A|%2F)+(?![^&\s'\"])"
_VALUE = re.compile(rf"([?&](?!{_OPTION})[^=&/\s'\"]+=)[^&\s'\"]+", re.IGNORECASE)
"""A query's value, except the options that say how to reach a store: they are needed again and no secret."""
_MASKED = re.compile(r"://\*\*\*@|[?&][^=&\s]+=\*\*\*")
_PASSWORD = re.compile(r"://[^/@:\s]*:(\S+)@")


def mask(text: str, uri: str = "") -> str:
    """Return the text without the credentials of the URIs in it, and without the bare password of `uri`."""
    text = _VALUE.sub(r"\1***", _USER.sub(r"\1***@", text))
    if match := _PASSWORD.search(uri):
        for password in (match[1], unquote(match[1])):
            text = text.replace(password, "***")
    return text


def mask_tree(tree: Any) -> Any:
    """Return a tree of JSON values, such as a config, with every text masked."""
    if isinstance(tree, dict):
        return {name: mask_tree(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [mask_tree(value) for value in tree]
    return mask(tree) if isinstance(tree, str) else tree


def is_masked(uri: str) -> bool:
    """Return whether this URI was masked, and so can no longer be opened."""
    return bool(_MASKED.search(uri))
