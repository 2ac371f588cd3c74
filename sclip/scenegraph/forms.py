"""Turn different wordings of one meaning into one form, as in FACTUAL, a data set of annotated scene graphs."""

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
_BODY_PARTS = frozenset("hand hands face faces foot feet nose mouth ear ears".split())
_LIMBS = frozenset(
    """arm arms elbow elbows finger fingers fist fists knee knees leg legs shoulder shoulders teeth tooth tongue toe
    toes paw paws claw claws beak trunk snout tail tusk tusks horn horns head lips chin""".split()
)

_PARTICLES = frozenset("down up on off out back away apart left right forward upward downward".split())


def with_particle(words: Sequence[Word], verb: int) -> tuple[str, Span]:
    """Return the attribute that a verb without an object gives ("looking down"), and the attribute's span."""
    word = words[verb]
    following = words[verb + 1] if verb + 1 < len(words) else word
    if following.text in _PARTICLES and (
        following.code in "RAVJEN" or (following.code == "P" and following.text not in ("on", "off"))
    ):
        return f"{word.text} {following.text}", (word.span[0], following.span[1])
    return word.text, word.span


def is_body_part(noun: str) -> bool:
    """Return whether a noun names a body part that can do things: "opens a door with his elbow"."""
    return noun in _BODY_PARTS or noun in _LIMBS


@lru_cache(maxsize=1 << 14)
def wearing(predicate: str, object_: str) -> str:
    """Return the predicate as FACTUAL writes it: "wear" for ("in", "shirt"), "have" for ("with", "face")."""
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
