"""Decide which modifiers may stand before another noun: qualities and materials, not name parts, ordinals or verbs."""

from __future__ import annotations

import re
from functools import lru_cache

from sclip.scenegraph.graph import Span
from sclip.scenegraph.lexicon import ATTRIBUTE_NOUNS, COLOURS, parts_of_speech

_MATERIALS = frozenset(
    """metal brick glass stone wood dirt cement concrete plastic leather paper iron steel gold silver rock ice straw
    clay gravel rubber porcelain ceramic wicker tile marble aluminum aluminium brass copper chrome tin cotton denim
    velvet wool silk cardboard granite bamboo cobblestone asphalt sand foam wire linoleum hardwood plaster""".split()
)
_ADJECTIVES = frozenset(
    "round square oval vintage antique leafy wispy grassy male female asian folding plaid adult".split()
)
"""Adjectives that `modifier_kind` would otherwise take for nouns."""
_PLACED = frozenset(
    """upper lower top bottom left right front back rear mid middle outer inner far near opposite following previous
    next last first second third fourth fifth final same own much best worst due such certain various different
    several another other main leftmost rightmost topmost left-most right-most left-hand right-hand half full whole
    entire double triple single super non pre ex multi semi""".split()
)
"""Modifiers that select a thing among others, or a part of it: "second", "upper"."""
_BOUND = frozenset(
    """stainless barbed vegetable open-air cherry rocking roasting parking dining living washing running sewing swimming
    frying cutting baking shopping boxing bowling fishing sleeping""".split()
)
"""Modifiers that form one name with the noun after them: "barbed wire", "a rocking horse"."""
_SHADES = frozenset("light dark bright pale deep navy sky baby neon dull".split())

_HOLDING = _SHADES | frozenset("more most less least even well half mid all stainless semi".split())
"""Words that belong to the modifier after them: "light blue"."""
_WORD_BEFORE = re.compile(r"([^\W\d_][\w'’-]*)\s+$")
_WORD_BEHIND = re.compile(r"\s*([^\W\d_]+)")


def may_be_adjective(word: str) -> bool:
    """Return whether the dictionary lists a lower-case word as an adjective, or does not list it at all."""
    tags = parts_of_speech(word)
    return not tags or "ADJ" in tags


def is_name_part(word: str) -> bool:
    """Return whether a lower-case modifier forms one name with its noun: "a vegetable garden", "a walking trail"."""
    tags = parts_of_speech(word)
    return bool(tags) and "ADJ" not in tags and ("NOUN" in tags or word.endswith("ing"))


@lru_cache(maxsize=1 << 16)
def modifier_kind(text: str) -> str:
    """Return the kind of a modifier's last word: "adjective", "material" (brick), or "noun" (other nouns and verbs)."""
    word = text.lower().rsplit(" ", 1)[-1]
    if word in _MATERIALS:
        return "material"
    if word in COLOURS or word in _ADJECTIVES:
        return "adjective"
    return "noun" if word in ATTRIBUTE_NOUNS or is_name_part(word) else "adjective"


def moves_freely(caption: str, span: Span) -> bool:
    """Return whether a modifier may stand before any other noun: it states a quality, not a place, order or kind."""
    words = caption[slice(*span)].lower().split()
    if (
        not words
        or words[0][0].isdigit()
        or words[0] in _PLACED
        or words[-1] in _PLACED
        or words[-1] in _BOUND
    ):
        return False
    if words[-1].endswith("est") and words[-1] not in ("modest", "honest"):  # "the longest" keeps its article
        return False
    previous_word = _WORD_BEFORE.search(caption, max(0, span[0] - 16), span[0])
    if previous_word is not None and previous_word.group(1).lower() in _HOLDING:
        return False
    next_word = _WORD_BEHIND.match(caption, span[1])
    if words[-1] not in _SHADES or next_word is None:
        return True
    return next_word.group(1).lower() not in COLOURS and not may_be_adjective(next_word.group(1).lower())


def is_verb_like(caption: str, span: Span, phrase: Span) -> bool:
    """Return whether an -ing form at the start of a phrase may be a verb: "busy serving meals"."""
    return span[0] == phrase[0] and span[0] > 0 and caption[slice(*span)].lower().endswith("ing")


def makes_name(word: str) -> bool:
    """Return whether a modifier and the noun after it form one name."""
    return modifier_kind(word) == "noun" or word.lower() in _BOUND
