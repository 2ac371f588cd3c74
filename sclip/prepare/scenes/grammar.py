"""Caption a scene in English with a small grammar. The parser, made for captions of photographs, can read it.

The parser gets the graph of every wording right. This matters because a wrong graph would give wrong negatives.
"""

from __future__ import annotations

from random import Random

from sclip.prepare.scenes.scene import Fact, Scene, Thing

PHRASES = {
    "left": ("to the left of", "on the left of", "left of"),
    "right": ("to the right of", "on the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
_FRAMES = (
    "{a} {relation} {b}",
    "{a} is {relation} {b}.",
    "There is {a} {relation} {b}.",
    "{a} sits {relation} {b}.",
    "{a} is placed {relation} {b}.",
    "{the_a} is {relation} {the_b}.",
    "{the_a} is seen {relation} {the_b}.",
    "{the_a} {relation} {the_b}",
    "{a} hovers {relation} {b}.",
    "{the_a} floats {relation} {the_b}.",
    "{a} can be seen {relation} {b}.",
    "In the image, {a} is {relation} {b}.",
    "A picture of {a} {relation} {b}",
    "{relation} {b} is {a}.",
    "{relation} {the_b} is {the_a}.",
    "{relation} {b} sits {a}.",
    "{relation} {the_b}, there is {a}.",
)
_PAIRS = ("{a} and {b}", "{the_a} and {the_b}", "There is {a} and {b}.")
_PAIR_SHARE = 0.3
_SIZE_SHARE = 0.15
_BACKGROUND_SHARE = 0.1


def relation_phrase(relation: str) -> str:
    """Return the plainest wording of a relation."""
    return PHRASES[relation][0]


def noun_phrase(thing: Thing, article: str, *, size: bool = False) -> str:
    """Return a thing as a phrase: "a red circle", or "a small red circle" if `size` is set."""
    words = f"{thing.size} {thing.colour} {thing.shape}" if size else f"{thing.colour} {thing.shape}"
    if article == "a" and words[0] in "aeiou":
        return f"an {words}"
    return f"{article} {words}"


def captions(scene: Scene, rng: Random, count: int = 3) -> tuple[str, ...]:
    """Return `count` different true captions of the scene; each names at least two objects."""
    wordings: dict[str, None] = {}
    while len(wordings) < count:
        wordings[_caption(scene, rng)] = None
    return tuple(wordings)


def _caption(scene: Scene, rng: Random) -> str:
    size = rng.random() < _SIZE_SHARE
    if rng.random() < _PAIR_SHARE:
        first, second = rng.sample([placed.thing for placed in scene.placed], 2)
        sentence = _filled(rng.choice(_PAIRS), first, "", second, size)
    else:
        facts = [fact.inverse() if rng.random() < 0.5 else fact for fact in scene.facts]
        if rng.random() < 0.5:
            del facts[1:]  # a caption may omit the third object
        sentence = " ".join(_clause(fact, rng, size, full_stop=len(facts) > 1) for fact in facts)
    if rng.random() < _BACKGROUND_SHARE:
        stop = "." if sentence.endswith(".") else ""
        sentence = f"{sentence.removesuffix('.')} on a {scene.background} background{stop}"
    return sentence[0].upper() + sentence[1:] if rng.random() < 0.8 else sentence


def _clause(fact: Fact, rng: Random, size: bool, *, full_stop: bool) -> str:
    frames = [frame for frame in _FRAMES if frame.endswith(".")] if full_stop else _FRAMES
    relation = rng.choice(PHRASES[fact.relation])
    sentence = _filled(rng.choice(frames), fact.subject, relation, fact.object, size)
    return sentence[0].upper() + sentence[1:] if full_stop else sentence


def _filled(frame: str, first: Thing, relation: str, second: Thing, size: bool) -> str:
    return frame.format(
        a=noun_phrase(first, "a", size=size),
        b=noun_phrase(second, "a", size=size),
        the_a=noun_phrase(first, "the", size=size),
        the_b=noun_phrase(second, "the", size=size),
        relation=relation,
    )
