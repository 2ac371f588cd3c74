"""Words that mean the same, and predicates that mean the same in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

_SYNONYMS = {
    word: group.split()[0]
    for group in (
        "man gentleman fellow dude male", "woman lady female gal", "child kid youngster", "boy lad",
        "couch sofa settee", "bike bicycle", "motorcycle motorbike", "plane airplane aeroplane airliner aircraft jet",
        "photo picture photograph image", "phone cellphone telephone", "tv television", "street road", "mug cup",
        "automobile car", "gray grey", "large big huge", "small little tiny", "blonde blond", "rock stone",
        "puppy dog", "kitten cat", "racquet racket", "refrigerator fridge", "baby infant", "person human people",
        "cap hat", "jacket coat", "ocean sea", "pavement sidewalk", "trouser pant", "hamburger burger",
        "laptop notebook", "bunny rabbit", "wooden wood", "multi-colored multicolored colorful", "tan beige",
        "doughnut donut", "luggage suitcase baggage",
    )
    for word in group.split()
}  # fmt: skip

PERSONS = frozenset(
    """person man woman child boy girl baby lady kid player skier snowboarder surfer rider people couple crowd
    group skateboarder skater batter catcher pitcher umpire officer policeman fireman firefighter worker chef cook
    waiter waitress driver pedestrian cyclist biker jockey cowboy soldier student teacher adult male female teen
    teenager toddler infant mother father son daughter brother sister friend family bride groom boyfriend husband
    wife gentleman spectator fan audience passenger customer vendor farmer hiker tourist runner athlete team
    businessman doctor nurse clown""".split()
)
ANIMALS = frozenset(
    """dog cat horse cow sheep goat elephant giraffe zebra bear bird duck goose swan
    chicken rooster pigeon seagull parrot owl puppy kitten pony calf lamb bull ox donkey deer lion tiger monkey
    rabbit fish dolphin whale turtle animal herd flock camel llama pig cattle foal""".split()
)
_ANIMATE = PERSONS | ANIMALS

_SYMMETRIC = frozenset(
    """and,next to,near,beside,by,close to,alongside,among,across from,opposite of,side by side with,with each other,
    away from,along with,adjacent to,together with""".replace("\n    ", "").split(",")
)
POSTURES = frozenset(
    """sit stand lay lie park walk rest grow hang lean run play talk speak ride travel sleep wait pose float swim
    fly kneel graze line stop drive perch place locate position set gather stay""".split()
)
_MUTUAL = frozenset(
    "kiss hug match meet resemble face touch marry embrace connect border join mix play cross intersect".split()
)
_THING_VERBS = frozenset("touch connect meet join border match resemble cross intersect".split())
"""Verbs of `_MUTUAL` that also hold between inanimate things."""
_TOGETHER = frozenset("with to against".split())


def synonym(word: str) -> str:
    """Return the word that represents all synonyms of a word."""
    return _SYNONYMS.get(word, word)


def is_animate(name: str) -> bool:
    """Return whether a name denotes a person or an animal."""
    return name.split()[-1] in _ANIMATE if name else False


@lru_cache(maxsize=1 << 16)
def is_symmetric(predicate: str, subject: str, object_: str) -> bool:
    """Return whether "subject predicate object" means the same as "object predicate subject"."""
    if predicate in _SYMMETRIC:
        return True
    verb, _, preposition = predicate.partition(" ")
    if verb in POSTURES and preposition in _SYMMETRIC:
        return True
    equals = is_animate(subject) == is_animate(object_) and (is_animate(subject) or verb in ("mix", "match"))
    last = predicate.rsplit(" ", 1)[-1]
    if last == "with":
        return equals
    return verb in _MUTUAL and (not preposition or last in _TOGETHER) and (equals or verb in _THING_VERBS)


Label = tuple[str, tuple[str, ...]]
"""(name, sorted attributes) of one object, with synonyms mapped to one word."""


def label(name: str, attributes: Sequence[str]) -> Label:
    """Return the label of an object with these attributes."""
    return (_canonical(name), tuple(sorted(map(synonym, attributes))) if attributes else ())


@lru_cache(maxsize=1 << 16)
def _canonical(name: str) -> str:
    return " ".join(map(synonym, name.split()))
