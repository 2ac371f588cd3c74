"""Join tokens that form one word: proper names, quotations, times, and numbers with their unit.

The rules see each expression as one word with one part of speech. A name ("New York City") or a text on a
sign ("Stop the War") becomes one name, which no negative splits. "20 kg" and "5 year old" become adjectives.
"on Monday evening" and "in 2015" become words of code I (`tagged_words.CODES`): no picture shows them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from sclip.scenegraph import lexicon
from sclip.scenegraph.tokens import Token


class Expression(NamedTuple):
    """One or more tokens that the rules see as one word."""

    end: int
    """Index after the last token."""
    text: str
    code: str
    """Part of speech, a letter of `tagged_words.CODES`; "" means that the tokens are left out."""
    fixed: bool = False


_QUOTES = {'"': '"', "“": "”", "‘": "’", "``": "''", "'": "'", "„": "“", "''": "''"}
_QUOTED = frozenset(
    """say says saying said read reads reading word words titled called named labeled labelled written spelling spell
    spells state states stating sign letters text phrase message title""".split()
)
_LONGEST_QUOTE = 14

_WEEKDAYS = frozenset("monday tuesday wednesday thursday friday saturday sunday".split())
_MONTHS = frozenset(
    "january february april june july august september october november december jan feb aug sept oct nov dec".split()
)
_TIME_NOUNS = frozenset(
    """week weeks weekend weekends month months year years century centuries decade decades hour hours minute minutes
    era eras moment moments today yesterday tomorrow tonight time times""".split()
)
_TODAY = frozenset("today yesterday tomorrow tonight".split())
_PARTS_OF_TIME = frozenset("day night morning evening afternoon summer winter spring autumn".split())
"""Times that a picture can show: "at night", but not "last night"."""
_TIMES = _WEEKDAYS | _MONTHS | _TIME_NOUNS | _PARTS_OF_TIME | {"days", "may", "march", "way"}
_RELATIVE = ("ago", "later", "earlier", "before", "after")
_MAKES_WAY = {"make": "go", "makes": "goes", "making": "going", "made": "went"}
_DAY_PARTS = frozenset("morning afternoon evening night day noon".split())
_THIS = frozenset(
    "this that these last next every each one past previous following recent same other first".split()
)
_POINTS = frozenset(
    "this that last next every each yesterday tomorrow one other same first second final".split()
)
_TIME_BEFORE = _THIS | frozenset("the a an early late mid all some many few several".split())
_TIME_PREPOSITIONS = frozenset(
    """on upon in at during for since until till before after from over by through throughout around within of
    about""".split()
)
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d$")
_DECADE = re.compile(r"'?(?:1[5-9]|20)?\d0['’]?s$")
_CLOCK = re.compile(r"\d{1,2}[:.]\d\d$")
_DAY_OF_MONTH = re.compile(r"\d{1,2}(?:st|nd|rd|th)?$")
_CLOCK_WORDS = frozenset(("am", "pm", "a.m.", "p.m.", "o'clock", "oclock"))

_UNITS = frozenset(
    """kg kgs kilo kilos kilogram g gram grams lb lbs pound pounds ton tons tonne km mile miles m meter meters metre
    metres cm mm ft foot feet inch inches yard yards acre acres gallon gallon liter litre oz ounce mph hp degree degrees
    percent % year years yr month months week weeks day days hour hours minute minutes story storey stories carat karat
    megapixel watt volt""".split()
)
_UNITS_OR_OBJECTS = frozenset(
    "feet foot pounds yards stories days hours minutes years months weeks degrees acres".split()
)
"""Units in "20 feet" and "two feet tall", but objects in "a bird on two feet". "foot" is always a unit."""
_UNIT_TAILS = frozenset("old tall long wide high deep thick heavy aged".split())
_NUMBERED = frozenset("number no no. route highway gate platform room pier channel".split())

_COVERED = frozenset(
    "covered shaped filled lined topped capped patterned colored coloured flavored themed framed roofed".split()
)
_PLACES = frozenset(
    "shore lake river sea ocean window road roadside water fireplace pool beach bay pond door seaside riverside".split()
)
_SHORTHAND = {"w/": "with", "w/o": "without"}
_PAIRS = frozenset(
    tuple(pair.split())
    for pair in """middle aged,3d printed,award winning,good looking,best selling,hand made,hand painted,hand drawn,
    hand carved,home made,old fashioned,high heeled,well dressed,life sized,free standing""".replace(
        "\n    ", ""
    ).split(",")
)
_TAKE = {"take": "", "takes": "s", "taking": "ing", "took": "ed", "taken": "ed"}
_TAKE |= {"have": "", "has": "s", "having": "ing", "had": "ed"}
_LIGHT = {
    "bite": "of",
    "sip": "of",
    "look": "",
    "rest": "",
    "walk": "",
    "stroll": "",
    "peek": "",
    "break": "",
}
"""Noun -> preposition to leave out. "takes a bite of an apple" is read as "bites an apple"."""
_IDIOMS = {"part": ("join", "in"), "care": ("tend", "of")}
_NAME_LINKS = frozenset("of the de la le del di du van von &".split())
_PROPER = ("NNP", "NNPS")
_EMPTY = (("at", ["least"]), ("at", ["most"]), ("nothing", ["but"]))
"""Words that say nothing about the picture: "at least two ducks", "wears nothing but a hat"."""
_BEGINNINGS = (
    {"by", "size", "half", "at", "nothing", *(pair[0] for pair in _PAIRS)}
    | _QUOTES.keys()
    | _TIMES
    | _NUMBERED
    | _SHORTHAND.keys()
    | _TAKE.keys()
    | lexicon.NUMBERS.keys()
)


@lru_cache(maxsize=1 << 16)
def _may_begin(text: str) -> bool:
    return text[0].isupper() or text[0].isdigit() or text.lower() in _BEGINNINGS


def find_expressions(tokens: Sequence[Token], lower: list[str]) -> dict[int, Expression]:
    """Return the expressions of a caption: index of the first token -> expression."""
    expressions: dict[int, Expression] = {}
    first = 0
    has_participle = not _COVERED.isdisjoint(lower)  # any word may begin "palm tree lined"
    for i, (token, word) in enumerate(zip(tokens, lower, strict=True)):
        if i < first or not (has_participle or _may_begin(token.text)):
            continue
        entry: tuple[int, Expression] | None = None
        if token.text[0].isupper():
            entry = _name(tokens, lower, i)
        if entry:
            pass
        elif word in _QUOTES:
            first = _quotation(tokens, lower, i, expressions)
        elif word in _TIMES or word[0].isdigit() or word in _NUMBERED or word == "size":
            entry = _quantity(tokens, lower, i)
            if entry is None and (word in _TIMES or word[0].isdigit()):
                entry = _time(tokens, lower, i, first)
        elif word in _SHORTHAND:
            entry = i, Expression(i + 1, _SHORTHAND[word], "P")
        elif word == "half" and lower[i + 1 : i + 3] == ["a", "dozen"]:
            entry = i, Expression(i + 3, "6", "M")
        elif (word, lower[i + 1 : i + 2]) in _EMPTY:
            entry = i, Expression(i + 2, "", "")
        elif word == "by" and _names_place(tokens, lower, i):
            entry = i, Expression(i + 1, "beside", "P")
        elif i + 2 < len(lower) and (end := _compound_end(tokens, lower, i)):
            entry = i, Expression(end, " ".join(lower[i:end]), "J")
        elif word in _TAKE and lower[i + 1 : i + 2] == ["a"] and (lower[i + 2 : i + 3] or [""])[0] in _LIGHT:
            noun = lower[i + 2]
            end = i + 4 if lower[i + 3 : i + 4] == [_LIGHT[noun]] else i + 3
            text = "rest" if noun == "break" else noun
            text += _TAKE[word] if noun not in ("bite", "sip") else ""
            entry = i, Expression(end, text, "G" if word.endswith("ing") else "V")
        elif word.startswith("t") and word in _TAKE and _IDIOMS.get((lower[i + 1 : i + 2] or [""])[0]):
            entry = _idiom(tokens, lower, i)
        elif word in lexicon.NUMBERS:
            entry = _quantity(tokens, lower, i)
        if entry:
            expressions[entry[0]] = entry[1]
            first = entry[1].end
    return expressions


def _names_place(tokens: Sequence[Token], lower: list[str], i: int) -> bool:
    """Return whether "by" after a participle names a place ("served by the shore"), not an agent."""
    return bool(i) and tokens[i - 1].tag_ in ("VBN", "VBD") and not _PLACES.isdisjoint(lower[i + 2 : i + 4])


def _compound_end(tokens: Sequence[Token], lower: list[str], i: int) -> int:
    """Return the index after "palm tree lined" in "palm tree lined street", or 0 if no compound begins at i."""
    end = i + 3 if lower[i + 2] in _COVERED and tokens[i + 1].tag_ == "NN" and i + 3 < len(lower) else i + 2
    pair = (tokens[i].tag_ == "NN" and lower[end - 1] in _COVERED) or (
        end == i + 2 and (lower[i], lower[i + 1]) in _PAIRS
    )
    return end if pair and tokens[end].tag_[:2] in ("NN", "JJ") else 0


def _idiom(tokens: Sequence[Token], lower: list[str], i: int) -> tuple[int, Expression] | None:
    """Read "takes care of" and "takes part in" as one verb."""
    verb, preposition = _IDIOMS[lower[i + 1]]
    if i + 2 < len(lower) and lower[i + 2] == preposition:
        code = "G" if lower[i] == "taking" else "V"
        return i, Expression(i + 3, verb + _TAKE[lower[i]], code)
    return (i, Expression(i + 2, "", "I")) if lower[i] == "taking" else None  # no picture shows "taking part"


def _quotation(tokens: Sequence[Token], lower: list[str], i: int, expressions: dict[int, Expression]) -> int:
    """Join the quoted text that opens at token i, and return the index of the next token to read."""
    close = _QUOTES[lower[i]]
    if lower[i] == "'" and (tokens[i].whitespace_ or (i and not tokens[i - 1].whitespace_)):
        return i + 1  # an apostrophe
    end = next((j for j in range(i + 1, min(i + _LONGEST_QUOTE, len(lower))) if lower[j] == close), -1)
    if end < 0 or end == i + 1:  # never closed, or empty
        if lower[i] != "'":
            expressions[i] = Expression(i + 1, "", "")
        return i + 1
    inside = range(i + 1, end)
    is_text = (
        len(inside) > 2
        or any(tokens[j].text[0].isupper() for j in inside)
        or not _QUOTED.isdisjoint(lower[max(0, i - 2) : i])
    )
    if not is_text:  # a "cute" dog
        expressions[i] = Expression(i + 1, "", "")
        expressions[end] = Expression(end + 1, "", "")
        return i + 1
    joined = " ".join(lower[j] for j in inside).rstrip(" .,!?") or lower[i + 1]
    describes = end + 1 < len(lower) and tokens[end + 1].tag_.startswith("NN")
    expressions[i] = Expression(end + 1, joined, "N" if describes else "Q", True)
    return end + 1


def _quantity(tokens: Sequence[Token], lower: list[str], i: int) -> tuple[int, Expression] | None:
    """Read "20 kg", "5 year old", "size 7", "number 23", "1950s"."""
    n = len(lower)
    following = lower[i + 1] if i + 1 < n else ""
    word = lower[i]
    if word in _NUMBERED or word == "size":
        if not following[:1].isdigit() and not (word == "number" and following in lexicon.NUMBERS):
            return None
        if word != "size":
            return i, Expression(i + 2, f"{word} {following}", "N", True)
        return _described(tokens, lower, i, i + 2)
    if _DECADE.match(lower[i]) and _is_described(tokens, i + 1):
        return i, Expression(i + 1, lower[i], "J")
    if following not in _UNITS or lower[i] in _TIMES:
        return None
    end = i + 2
    if end < n and lower[end] in _UNIT_TAILS:
        code = "J" if tokens[end].tag_ != "NN" else "N"
        return i, Expression(end + 1, _text(tokens, lower, i, end + 1), code)
    if following in _UNITS_OR_OBJECTS and not (lower[i][0].isdigit() or following == "foot"):
        return None
    if end < n and (lower[end] == "of" or (following in _TIMES and not _is_described(tokens, end))):
        return None
    return _described(tokens, lower, i, end)


def _described(tokens: Sequence[Token], lower: list[str], start: int, end: int) -> tuple[int, Expression]:
    """Return the expression and its start. Code: J (adjective) if it describes the next word, else I (not visible)."""
    if _is_described(tokens, end):
        return start, Expression(end, _text(tokens, lower, start, end), "J")
    if start and lower[start - 1] in ("in", "of", "at", "for", "to"):
        start -= 1
    return start, Expression(end, " ".join(lower[start:end]), "I")


def _is_described(tokens: Sequence[Token], i: int) -> bool:
    return (
        i < len(tokens)
        and tokens[i].tag_[:2] in ("NN", "JJ", "VB")
        and tokens[i].tag_ not in ("VBZ", "VBP", "VBD")
    )


def _text(tokens: Sequence[Token], lower: list[str], start: int, end: int) -> str:
    spaces = [" " if tokens[j].whitespace_ else "" for j in range(start, end)]
    return "".join(word + space for word, space in zip(lower[start:end], spaces, strict=True)).strip()


def _time(tokens: Sequence[Token], lower: list[str], i: int, first: int) -> tuple[int, Expression] | None:
    """Read a time with its preposition and determiner: "on the next day"."""
    n = len(lower)
    word = lower[i]
    start, end = i, i + 1
    before = lower[i - 1] if i else ""
    following = lower[end] if end < n else ""
    if word == "way":
        on_the = before == "the" and i > 1 and lower[i - 2] in ("on", "along") and following != "of"
        if i < 2 or i - 1 < first or not (tokens[i - 1].tag_ == "PRP$" or on_the):
            return None
        if i - 2 >= first and lower[i - 2] in _MAKES_WAY:  # "makes its way down the road": goes
            return i - 2, Expression(end, _MAKES_WAY[lower[i - 2]], "G" if lower[i - 2] == "making" else "V")
        start = i - 1
        if start > first and lower[start - 1] in ("on", "along", "by", "in"):
            start -= 1
        if following == "to" and start < i - 1:  # "on their way to school"
            return start, Expression(end + 1, "towards", "P")
        return start, Expression(end, "way", "I")
    if word in ("may", "march") and not (
        tokens[i].text[0].isupper() and i and _DAY_OF_MONTH.match(following or "x")
    ):
        return None
    relative = following in _RELATIVE and word in _TIME_NOUNS | {"days"}  # "moments before the wedding"
    if word in _PARTS_OF_TIME and (before not in _POINTS or _is_described(tokens, end)):
        return None
    if word == "days" and before not in _THIS and not before.isdigit() and not relative:
        return None
    if word[0].isdigit():
        if following in _CLOCK_WORDS:
            end += 1
        elif _DAY_OF_MONTH.match(word) and following in _MONTHS | {"of"}:
            if following == "of" and (end + 1 >= n or lower[end + 1] not in _MONTHS):
                return None
            end += 2 if following == "of" else 1
        elif _YEAR.match(word):
            if _is_described(tokens, end):  # "the 2015 calendar": no picture shows that year
                return i, Expression(
                    end, word, "D" if i == 0 or tokens[i - 1].tag_ in ("DT", "PRP$", "IN") else "I"
                )
            if before not in _TIME_PREPOSITIONS:
                return None
        elif _CLOCK.match(word) and i and tokens[i - 1].tag_[:2] == "VB":
            return i, Expression(end, word, "Q", True)  # "a clock showing 10:30"
        elif not _CLOCK.match(word) and not _DECADE.match(word):
            return None
    while end < n:  # "monday evening", "july 4th, 2015"
        after = lower[end]
        comma = after == "," and end + 1 < n and _YEAR.match(lower[end + 1])
        dated = word in _MONTHS and (_DAY_OF_MONTH.match(after) or _YEAR.match(after))
        if not (
            after in _TIMES - {"way"}
            or after in _DAY_PARTS
            or after in ("ago", "later", "earlier")
            or dated
            or comma
        ):
            break
        end += 2 if comma else 1
    if word in ("century", "centuries") and i > first and before[:1].isdigit() and _is_described(tokens, end):
        return i - 1, Expression(end, f"{before} {word}", "J")
    possessive = end < n and lower[end] in ("'s", "’s", "'")
    if possessive:
        end += 1
    elif end < n and tokens[end].tag_ in ("NN", "NNS") and before not in _THIS:
        return None  # "a sunday market", "time lapse"
    floor = max(first, 0)
    while start > floor and (
        lower[start - 1] in _TIME_BEFORE or lower[start - 1][0].isdigit() or _describes_time(tokens, start)
    ):
        start -= 1
    if word == "time" and start == i and start > floor and tokens[start - 1].tag_ == "NN":
        start -= 1  # "christmas time"
    if end < n and lower[end] in _UNIT_TAILS and word in _UNITS:  # "a few weeks old"
        return start, Expression(end + 1, _text(tokens, lower, start, end + 1), "J")
    points = end > i + 1 or not _THIS.isdisjoint(lower[start:i]) or lower[start][0].isdigit()
    if start > floor and lower[start - 1] in _TIME_PREPOSITIONS:
        start -= 1
    elif word in _TIME_NOUNS and not points and not relative and word not in _TODAY:
        return None  # "a clock showing the time"
    return start, Expression(end, " ".join(lower[start:end]), "I")


def _describes_time(tokens: Sequence[Token], start: int) -> bool:
    return tokens[start - 1].tag_ in ("JJ", "JJR", "JJS", "CD")


def _name(tokens: Sequence[Token], lower: list[str], i: int) -> tuple[int, Expression] | None:
    """Read a proper name: capitalized words, judged by their tags and by the dictionary."""
    n = len(lower)
    starts_sentence = i == 0 or lower[i - 1] in (".", "!", "?", ":")
    if lower[i] in lexicon.PLACE_DETERMINERS or lower[i] in _WEEKDAYS or lower[i] in _MONTHS:
        return None
    if tokens[i].tag_ not in _PROPER and (starts_sentence or i + 1 >= n or tokens[i + 1].tag_ not in _PROPER):
        return None
    end = i + 1
    while end < n:
        token = tokens[end]
        if token.text[0].isupper() and (token.tag_ in _PROPER or token.tag_[:2] in ("NN", "JJ")):
            end += 1
        elif (
            lower[end] == "-" and not token.whitespace_ and end + 1 < n and tokens[end + 1].text[0].isupper()
        ):
            end += 2
        elif lower[end].isdigit() and len(lower[end]) < 5 and not _is_described(tokens, end + 1):
            end += 1
        elif lower[end] in _NAME_LINKS and not (starts_sentence and lexicon.is_word(lower[end - 1])):
            after = end + 2 if end + 1 < n and lower[end + 1] == "the" else end + 1
            if after >= n or not (tokens[after].text[0].isupper() and tokens[after].tag_ in _PROPER):
                break
            end = after + 1
        else:
            break
    words = [word for word in lower[i:end] if word[0].isalpha()]
    known = all(lexicon.is_word(word) or len(word) == 1 or word in _NAME_LINKS for word in words)
    if len(words) == 1 and (known or (tokens[i].text.isupper() and end == i + 1)):
        return None  # "a Giraffe", "a TV"
    all_proper = all(tokens[j].tag_ == "NNP" for j in range(i, end) if lower[j][0].isalpha())
    if known and ((starts_sentence and not all_proper) or (i and lower[i - 1] in ("a", "an"))):
        return None  # "Hot Dogs on a plate", "a Stop Sign"
    return i, Expression(end, _text(tokens, lower, i, end), "N", True)
