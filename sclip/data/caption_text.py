"""Clean a raw caption, so that the parser and the tokenizer read the same text.

A caption is cleaned once, where it enters the system (a shard, a user's call, a line of a file). Otherwise the parser
would read "&amp;" as three words, while open_clip's tokenizer resolves the entity. After this cleaning, open_clip's own
cleaning only changes letters to lower case.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Callable
from html.entities import html5

import ftfy
from ftfy import fixes

MAX_CAPTION_BYTES = 64 * 1024
_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32-LE", codecs.BOM_UTF32_BE: "UTF-32-BE",  # first: their marks start like UTF-16's
    codecs.BOM_UTF16_LE: "UTF-16-LE", codecs.BOM_UTF16_BE: "UTF-16-BE",
}  # fmt: skip

_ROUNDS = 8
"""Repetitions of all steps, for nested markup ("&amp;amp;...", "<<b>b>"), before the remaining <>& become spaces."""
_MARKUP = str.maketrans("<>&", "   ")

_BOM = "\ufeff"
_ENTITY = re.compile(
    r"&(?:(#[xX][0-9a-fA-F]{1,6}|#[0-9]{1,7}|[a-zA-Z][a-zA-Z0-9]{1,31});"
    r"|(#[0-9]{1,7}|(?:#[xX][0-9a-fA-F]{1,6}|amp|AMP|lt|LT|gt|GT|quot|QUOT|nbsp|copy|reg)(?![a-zA-Z0-9=])))"
)
"""HTML entities. Numbers (`&#39`) and a few names (`&amp`) also match without a semicolon."""
_AMPERSAND = re.compile(r"&#?\w+", re.ASCII)
_INLINE = """a abbr acronym b big cite code del dfn em font i ins kbd mark nobr q s samp small span strike strong sub
sup tt u var wbr""".split()
_BLOCKS = """address article aside blockquote body br button caption center dd details div dl dt embed figcaption
figure footer form h1 h2 h3 h4 h5 h6 head header hr html iframe img input label legend li link main meta nav noscript
ol p param picture pre script section select source style summary svg table tbody td textarea tfoot th thead title tr
ul video""".split()
_UNSAID = (
    r"<!--[^<>]*>|<!doctype\b[^<>]*>|<\?xml\b[^<>]*>|<!\[CDATA\[|\]\]>"
    r"|<(?:script|style)\b[^<>]*>[^<>]*</(?:script|style)\s*>"
)
_TAG = re.compile(rf"{_UNSAID}|</?({'|'.join(_INLINE + _BLOCKS)})(?=[\s/>])([^<>]*)(>|\Z)", re.IGNORECASE)
_TAG_ATTRIBUTE = re.compile(r"\s+[\w:-]+\s*=")
_NO_TAG = re.compile(
    r"<(?:start_of_text|end_of_text|\|startoftext\||\|endoftext\|)>|<(person)>", re.IGNORECASE
)
"""CLIP's special tokens, which would end a caption early, and Conceptual Captions' placeholder for a name."""
_CONTROLS = re.compile(
    r"\x1b\[[0-9;]*[a-zA-Z]|[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufff9-\ufffc\ufffe\uffff]"
)
"""Terminal escapes and control characters, except white space (U+0009 to U+000D, U+001C to U+001F, U+0085)."""
_INVISIBLE = re.compile(
    r"[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
    r"|(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])"
)
"""Zero-width spaces, direction marks, soft hyphens, and joiners (U+200C, U+200D). A joiner between two non-ASCII
characters does not match: emojis, Persian and Hindi need it."""
_MISSING = frozenset({"nan", "NaN", "NULL", "null", "None", "<NA>"})
"""Texts that table libraries write for a missing value. A caption that is only such a text counts as empty."""
_BLANK = re.compile(r"[\s\u115f\u1160\u2800\u3164\ufe0e\ufe0f\uffa0\ufffd]*")
"""White space, fillers, variation selectors, the Braille blank, and the replacement character for undecodable bytes."""
_FTFY = ftfy.TextFixerConfig(unescape_html=False, explain=False)


def caption_lines(content: bytes) -> list[str]:
    r"""Return the captions of a .txt: one for each line that is not blank. Lines end with \n, \r\n or \r.

    The encoding is UTF-8, unless a byte order mark names UTF-16 or UTF-32. Raises ValueError for undecodable text.
    """
    encoding = encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding}: {error.reason} at byte {error.start}") from error
    return [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


def encoding_of(content: bytes) -> str:
    """Return the encoding that a text file's byte order mark names; UTF-8 if there is no such mark."""
    return next((encoding for bom, encoding in _BOMS.items() if content.startswith(bom)), "UTF-8")


def clean_caption(text: str) -> str:
    """Return the caption as parser and tokenizer read it. A clean caption comes back unchanged."""
    return cleaned(text)[0]


def cleaned(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the clean caption and the kinds of changes made. Collapsed white space does not count as a change.

    Entities, even if escaped several times, become characters. Tags are removed ("a < b" and "I <3 you" have no tag).
    ftfy repairs mojibake, curly quotes, ligatures and full-width letters, and normalizes to NFC. Control and invisible
    characters are removed. The caption is empty if nothing readable is left.
    """
    if text.isascii():
        spaced = " ".join(text.split())
        if "&" not in spaced and "<" not in spaced and spaced.isprintable():
            return _unless_missing(spaced), ()
    kinds: dict[str, None] = {}
    for rounds in range(2 * _ROUNDS):
        before = text
        for kind, clean in _STEPS:
            after = clean(text)
            if kind and after != text:
                kinds[kind] = None
            text = after
        if text == before:
            break
        if rounds >= _ROUNDS:
            text = text.translate(_MARKUP)
    return _unless_missing(_part_ampersands(text)), tuple(kinds)


def _unless_missing(text: str) -> str:
    return "" if text in _MISSING or _BLANK.fullmatch(text) else text


def _without_mark(text: str) -> str:
    return text.lstrip(_BOM)


def _unescape(text: str) -> str:
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(entity: re.Match[str]) -> str:
    name = entity[1] or entity[2]
    return html.unescape(f"&{name};") if name[0] == "#" else html5.get(f"{name};", entity[0])


def _strip_tags(text: str) -> str:
    return _NO_TAG.sub(lambda match: (match[1] or "").lower(), _TAG.sub(_tag, text)) if "<" in text else text


def _tag(tag: re.Match[str]) -> str:
    if tag[1] is None:  # a comment or another part that a browser does not show
        return ""
    attributes, end = tag[2], tag[3]
    if not _TAG_ATTRIBUTE.match(attributes) and not (end and attributes.strip() in ("", "/")):
        return tag[0]  # no tag: "<a and b>", "x <a"
    return "" if tag[1].lower() in _INLINE else " "


def _fix_encoding(text: str) -> str:
    return text if text.isascii() else fixes.fix_c1_controls(ftfy.fix_encoding(text))


def _strip_controls(text: str) -> str:
    return text if text.isprintable() else _CONTROLS.sub("", text)


def _strip_invisible(text: str) -> str:
    return text if text.isascii() else _INVISIBLE.sub("", text)


def _space(text: str) -> str:
    return " ".join(text.split())


def _fix_typography(text: str) -> str:
    return text if text.isascii() else ftfy.fix_text(text, _FTFY)


def _part_ampersands(text: str) -> str:
    """Put a space after "&" where HTML would see an entity: "black&notebook" means "black¬ebook" in HTML."""
    if "&" not in text or html.unescape(text) == text:
        return text
    return _AMPERSAND.sub(lambda m: m[0] if html.unescape(m[0]) == m[0] else f"& {m[0][1:]}", text)


_STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("entities", _unescape),
    ("tags", _strip_tags),
    ("mojibake", _fix_encoding),  # before the next steps, which remove characters that mojibake contains
    ("byte order mark", _without_mark),
    ("control characters", _strip_controls),
    ("invisible characters", _strip_invisible),
    ("", _space),
    ("typographic characters", _fix_typography),
)
