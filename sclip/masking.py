"""Text that is shown or recorded in; the same text without the credentials of the URIs in it out.

Shards, weights and stores are named by URIs that may hold a password, a token or a signature. Whoever puts one into
an error, a log, a report or a record calls `mask`, and gives it the URI where the text is from elsewhere: what a
library raises repeats what it was given.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["mask"]

_USER = re.compile(r"(://)(?:[^/@:\s'\"]*:[^\s'\"]*|[^/@\s'\"]+)@")
_VALUE = re.compile(r"([?&][^=&\s'\"]+=)[^&\s'\"]+")
_PASSWORD = re.compile(r"://[^/@:\s]*:(\S+)@")


def mask(text: str, uri: str = "") -> str:
    """Return the text without the passwords, tokens and signatures of the URIs in it, nor `uri`'s password alone."""
    text = _VALUE.sub(r"\1***", _USER.sub(r"\1***@", text))
    if found := _PASSWORD.search(uri):
        for password in (found[1], unquote(found[1])):
            text = text.replace(password, "***")
    return text
