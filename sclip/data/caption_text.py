"""Clean a caption as people wrote it into the one text that parser and tokenizer read.

A caption is cleaned once, where it comes in (a shard, a user's call, a line of a file). The parser reads "&amp;" as
three words and a zero-width space as a letter, the tokenizer of open_clip resolves the first and keeps the second, so
an uncleaned caption would be two texts. On a cleaned one open_clip's own cleaning (ftfy, then HTML's entities) finds
nothing left to do but to put it in lower case.
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
    codecs.BOM_UTF32_LE: "UTF-32-LE", codecs.BOM_UTF32_BE: "UTF-32-BE",  # before UTF-16's, which begin alike
    codecs.BOM_UTF16_LE: "UTF-16-LE", codecs.BOM_UTF16_BE: "UTF-16-BE",
}  # fmt: skip

_ROUNDS = 8
"""Rounds of cleaning; markup that still makes new markup ("&amp;amp;amp;...", "<<b>b>") is then read as text."""
_MARKUP = str.maketrans("<>&", "   ")

_BOM = "\ufeff"
_ENTITY = re.compile(
    r"&(?:(#[xX][0-9a-fA-F]{1,6}|#[0-9]{1,7}|[a-zA-Z][a-zA-Z0-9]{1,31});"
    r"|(#[0-9]{1,7}|(?:#[xX][0-9a-fA-F]{1,6}|amp|AMP|lt|LT|gt|GT|quot|QUOT|nbsp|copy|reg)(?![a-zA-Z0-9=])))"
)
"""With its semicolon; without it a few that no text holds by chance, where the word ends, as in an HTML attribute."""
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
"""CLIP's special tokens, which would end a caption in its middle; Conceptual Captions' stand-in for a name."""
_CONTROLS = re.compile(
    r"\x1b\[[0-9;]*[a-zA-Z]|[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufff9-\ufffc\ufffe\uffff]"
)
"""Terminal escapes, and what no text holds; U+0009 to U+000D, U+001C to U+001F and U+0085 are white space."""
_INVISIBLE = re.compile(
    r"[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
    r"|(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])"
)
"""Zero-width spaces, marks of direction, soft hyphens. A joiner between two characters that are not ASCII stays: it
makes one emoji of several, and letters of Persian and Hindi."""
_MISSING = frozenset({"nan", "NaN", "NULL", "null", "None", "<NA>"})
"""What a table's missing value becomes where its column is written as text; alone it is no caption."""
_BLANK = re.compile(r"[\s\u115f\u1160\u2800\u3164\ufe0e\ufe0f\uffa0\ufffd]*")
"""Fillers, variation selectors, the blank of Braille, and what stands for a byte that was not understood."""
_FTFY = ftfy.TextFixerConfig(unescape_html=False, explain=False)


def caption_lines(content: bytes) -> list[str]:
    r"""Return the captions of a .txt: its lines that are not blank, ended by \n, \r\n or \r.

    UTF-8, or UTF-16 and UTF-32 where a byte order mark says so; the mark is left to be cleaned away. Raises ValueError
    where it is neither.
    """
    encoding = encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding}: {error.reason} at byte {error.start}") from error
    return [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


def encoding_of(content: bytes) -> str:
    """Return the encoding of a text file by its first bytes: what its byte order mark says, without one UTF-8."""
    return next((encoding for bom, encoding in _BOMS.items() if content.startswith(bom)), "UTF-8")


def clean_caption(text: str) -> str:
    """Return the one text that parser and tokenizer read of a caption; a clean caption comes back as it is."""
    return cleaned(text)[0]


def cleaned(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the clean caption and the kinds of what was cleaned; white space made single and trimmed is none.

    Entities, however often escaped, become characters; tags go ("a < b" and "I <3 you" are none); mojibake, curly
    quotes, ligatures and full-width letters become what ftfy makes of them, normalised to NFC; control and invisible
    characters go. Empty where nothing readable is left.
    """
    if text.isascii():
        spaced = " ".join(text.split())
        if "&" not in spaced and "<" not in spaced and spaced.isprintable():
            return _said(spaced), ()
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
    return _said(_part_ampersands(text)), tuple(kinds)


def _said(text: str) -> str:
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
    if tag[1] is None:  # a comment, or what else no reader of a page sees
        return ""
    attributes, end = tag[2], tag[3]
    if not _TAG_ATTRIBUTE.match(attributes) and not (end and attributes.strip() in ("", "/")):
        return tag[0]  # "<a and b>", "x <a"
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
    """Part "&" from a word in whose beginning HTML would find an entity: "black&notebook" is "black¬ebook"."""
    if "&" not in text or html.unescape(text) == text:
        return text
    return _AMPERSAND.sub(lambda m: m[0] if html.unescape(m[0]) == m[0] else f"& {m[0][1:]}", text)


_STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("entities", _unescape),
    ("tags", _strip_tags),
    ("mojibake", _fix_encoding),  # before the characters go that it is made of
    ("byte order mark", _without_mark),
    ("control characters", _strip_controls),
    ("invisible characters", _strip_invisible),
    ("", _space),
    ("typographic characters", _fix_typography),
)
