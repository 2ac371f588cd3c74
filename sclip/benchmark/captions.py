"""Provide captions for measurements: from a file, or from a small grammar that imitates descriptions of photographs.

The grammar's sentences have about as many words (11) and objects (3) as COCO's captions. Few sentences repeat, because
a cache would make a parser look faster than it is on new text.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from sclip.prepare.bare_captions import CaptionsError, read

__all__ = ["CaptionsError", "generated", "read"]

_ADJECTIVES = """small large red blue green yellow white black brown old young tall wooden metal empty colorful
plastic long little orange striped dirty bright gray""".split()
_PEOPLE = """man woman boy girl person child skateboarder surfer chef lady baseball-player police-officer
little-girl tennis-player group-of-people couple-of-men cyclist""".replace("\n", " ").split()
_ANIMALS = "dog cat horse cow sheep elephant giraffe zebra bear bird brown-dog herd-of-sheep".split()
_THINGS = """umbrella surfboard skateboard tennis-racket frisbee kite suitcase backpack cell-phone laptop pizza
sandwich cake plate-of-food bowl-of-fruit cup-of-coffee vase teddy-bear hot-dog baseball-bat pair-of-scissors book hat
shirt tie banana sign fire-hydrant traffic-light clock remote""".replace("\n", " ").split()
_PLACES = """table couch bench beach street field kitchen bathroom park bed snowy-slope wave train-station bridge
parking-lot tree river mountain building city-street grassy-hill window sidewalk road""".replace(
    "\n", " "
).split()
_ACTS = """holding carrying eating riding wearing looking-at reaching-for playing-with pulling watching cutting
walking-with holding-up leaning-on""".replace("\n", " ").split()
_POSES = "sitting standing lying walking posing resting parked sleeping waiting".split()
_PREPOSITIONS = (
    "on in next-to in-front-of near behind under on-top-of by beside across-from to-the-left-of along".split()
)
_FRAMES = (
    "{A} {person} {act} {a} {thing} {where} {a} {place}.",
    "{A} {person} and {a} {person} are {pose} {where} {a} {place} with {a} {thing}",
    "{A} {animal} is {pose} {where} {a} {place} {where} {a} {thing}.",
    "{A} {thing} and {a} {thing} {where} {a} {place}",
    "Two {person}s {pose} {where} {a} {place} while {act} {thing}s.",
    "There is {a} {thing} {where} {a} {place} and {a} {animal} {where} it.",
    "{A} {place} with {a} {thing}, {a} {thing} and {a} {thing} {where} it",
    "{A} {person} in {a} {thing} {act} {a} {animal} {where} {a} {place}.",
    "{A} {place} that has {a} {thing} {where} {a} {place}.",
    "{A} close up of {a} {thing} {where} {a} {place} {where} {a} {place}.",
)
_WORDS = {
    "person": _PEOPLE, "animal": _ANIMALS, "thing": _THINGS, "place": _PLACES, "act": _ACTS, "pose": _POSES,
    "where": _PREPOSITIONS,
}  # fmt: skip
_ADJECTIVE_SHARE = 0.25
_BEGINNING = 150


def generated(count: int, seed: int = 0) -> list[str]:
    """Return `count` captions of the grammar; the same seed gives the same captions."""
    random = Random(seed)
    return [_sentence(random) for _ in range(count)]


def joined(captions: Sequence[str], words: int) -> list[str]:
    """Return texts of `words` words, made by joining captions. No two texts share a caption.

    Only the first `_BEGINNING` (150) or so words of a text are new; a longer text repeats them.
    """
    texts, text, count = [], [], 0
    for caption in captions:
        text.append(f"{caption.rstrip('. ')}.")
        count += len(caption.split())
        if count >= min(words, _BEGINNING):
            repeated = " ".join(text * (words // count + 1)).split()
            texts.append(" ".join(repeated[:words]))
            text, count = [], 0
    return texts


def _sentence(random: Random) -> str:
    words = []
    for part in random.choice(_FRAMES).split(" "):
        name = part.strip(".,s{}") if part.strip(".,s{}") in _WORDS else ""
        if name:
            part = part.replace(f"{{{name}}}", random.choice(_WORDS[name]).replace("-", " "))
        words.append(part)
    for i in reversed(range(len(words))):
        if words[i] in ("{a}", "{A}"):
            adjective = [random.choice(_ADJECTIVES)] if random.random() < _ADJECTIVE_SHARE else []
            following = (adjective or words[i + 1 : i + 2])[0]
            article = "an" if following[0] in "aeiou" else "a"
            words[i : i + 1] = [article.capitalize() if words[i] == "{A}" else article, *adjective]
    return " ".join(words)
