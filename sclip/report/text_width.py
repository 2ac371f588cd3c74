"""Estimate a text's width without a browser, from the advance widths of Helvetica. Other sans-serif fonts are close."""

from __future__ import annotations

import unicodedata

_NARROW, _SLIM, _WIDE = "ijl'|.,:;!`I", 'ft()[]/\\"-r ', "mwMW%@—…"
_OTHER = 0.56
_FULL = 1.05
"""Advance width of a CJK character or an emoji, as a multiple of the font size."""


def text_width(text: str, size: float) -> float:
    """Return the approximate width of the text at this font size, in the unit of the size."""
    return size * sum(map(_advance, text))


def _advance(character: str) -> float:
    if character in _NARROW:
        return 0.25
    if character in _SLIM:
        return 0.32
    if character in _WIDE:
        return 0.85
    if character.isascii():
        return 0.69 if character.isupper() else _OTHER
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Cf"):
        return 0.0
    return _FULL if unicodedata.east_asian_width(character) in "WF" else 0.62
