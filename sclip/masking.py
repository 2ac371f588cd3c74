"""Text with URIs in, the same without the secrets in them out: for every line that is printed, logged or recorded."""

from __future__ import annotations

import re


def mask(text: str) -> str:
    """Return the text without the passwords, tokens and signatures of the URIs in it."""
    text = re.sub(r"(://)(?:[^/@:\s'\"]*:[^\s'\"]*|[^/@\s'\"]+)@", r"\1***@", text)
    return re.sub(r"([?&][^=&\s'\"]+=)[^&\s'\"]+", r"\1***", text)
