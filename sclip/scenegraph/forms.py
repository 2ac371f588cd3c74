"""The graph's forms of what a caption says in several ways, as FACTUAL's annotators write them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sclip.scenegraph.graph import Span
from sclip.scenegraph.tagged_words import Word

_CLOTHES = frozenset(
    """shirt shirts suit suits pants shorts coat coats hat hats uniform uniforms t-shirt t-shirts jeans cap caps sweater
    sweaters jacket jackets outfit outfits helmet helmets tie ties veil dress dresses clothes clothing vest vests
    hoodie skirt skirts wetsuit wetsuits costume costumes tuxedo swimsuit swimsuits bikini sweatshirt apron
    robe gown boots sunglasses goggles attire trunks blouse""".split()
)
"""Clothes: "a man in a hat" becomes (man, wear, hat)."""

_BODY_PARTS = frozenset("hand hands face faces foot feet nose mouth ear ears".split())
"""Parts of the body: "a clock with hands" becomes (clock, have, hand)."""

_PARTICLES = frozenset("down up on off out back away apart left right forward upward downward".split())


def with_particle(words: Sequence[Word], verb: int) -> tuple[str, Span]:
    """Return the attribute that a verb without an object gives, and its characters: "looking down"."""
    word = words[verb]
    behind = words[verb + 1] if verb + 1 < len(words) else word
    if behind.text in _PARTICLES and (
        behind.code in "RAVJEN" or (behind.code == "P" and behind.text not in ("on", "off"))
    ):
        return f"{word.text} {behind.text}", (word.span[0], behind.span[1])
    return word.text, word.span


@lru_cache(maxsize=1 << 14)
def wearing(predicate: str, object_: str) -> str:
    """Return "wear" and "have" for "a man in a shirt" and "a man with a face"; other predicates as they are."""
    verb, _, preposition = predicate.partition(" ")
    if not preposition:
        verb, preposition = "", verb
    if verb == "see" and preposition != "through":
        return preposition  # "are seen on a table"
    if predicate == "have on":
        return "wear" if object_ in _CLOTHES else "have"
    if preposition == "in" and verb in ("", "sit", "stand", "walk") and object_ in _CLOTHES:
        return "wear"
    if predicate == "with":
        return (
            "wear" if object_ in ("shirt", "sunglasses") else "have" if object_ in _BODY_PARTS else predicate
        )
    return predicate
