"""How wide a text is, without a browser: the advances of Helvetica, which sans-serif fonts keep close to.

A label is drawn with `textLength`, so that in another font it is squeezed or stretched a little, and fits.
"""

from __future__ import annotations

import unicodedata

_NARROW, _SLIM, _WIDE = "ijl'|.,:;!`I", 'ft()[]/\\"-r ', "mwMW%@—…"
_OTHER = 0.56
_FULL = 1.05
"""A CJK character or an emoji."""


def text_width(text: str, size: float) -> float:
    """Return about how wide the text is at this font size, in the same unit."""
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
