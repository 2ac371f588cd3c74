"""Make evaluation cases of held-out pairings in ARO's format: an image, a true caption and a false caption.

Cases come in pairs. The second picture of a pair has the two objects exchanged (relation), or their colors (attribute).
Its true caption is the first picture's false caption and vice versa. A model that uses the words alone, or sees the
image as a bag of words, is right in exactly half of the cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random
from typing import Any

from sclip.prepare.scenes.grammar import noun_phrase, relation_phrase
from sclip.prepare.scenes.scene import RELATIONS, Family, Scene, Thing, compose
from sclip.seeding import generator

ARO_LEAST_CASES = 25
"""Minimum number of cases per attribute pair; VG-Attribution leaves out pairs with fewer."""


@dataclass(frozen=True, slots=True)
class SceneCase:
    """One case: the scene to draw, and the entry in ARO's format without the fields about the image."""

    name: str
    scene: Scene
    fields: dict[str, Any]


def relation_cases(family: Family, seed: int, least: int) -> Iterator[SceneCase]:
    """Yield at least `least` cases of "the red cross is above the blue square", each relation equally often."""
    for number in range(-(-least // (2 * len(RELATIONS))) * len(RELATIONS)):
        relation = RELATIONS[number % len(RELATIONS)]
        first, second = _things(_rng("relation", seed, number), family)
        for half, (subject, other) in enumerate(((first, second), (second, first))):
            words = relation_phrase(relation)
            phrases = noun_phrase(subject, "the"), noun_phrase(other, "the")
            fields = {
                "relation_name": words,
                "true_caption": f"{phrases[0]} is {words} {phrases[1]}",
                "false_caption": f"{phrases[1]} is {words} {phrases[0]}",
            }
            scene = compose(_rng("relation-place", seed, number), family, (subject, other), relation)
            yield SceneCase(f"relation-{2 * number + half:06d}", scene, fields)


def attribute_cases(family: Family, seed: int, least: int) -> Iterator[SceneCase]:
    """Yield at least `least` cases of "the red circle and the blue square".

    The cases use as many color pairs as possible, with at least `ARO_LEAST_CASES` cases of each ordered pair.
    """
    colour_pairs = list(combinations(family.colours, 2))
    _rng("attribute-colours", seed, 0).shuffle(colour_pairs)
    used = colour_pairs[: max(1, least // (2 * ARO_LEAST_CASES))]
    pairs_each = max(ARO_LEAST_CASES, -(-least // (2 * len(used))))
    for number in range(len(used) * pairs_each):
        first, second = _things(_rng("attribute", seed, number), family, used[number % len(used)])
        exchanged = replace(first, colour=second.colour), replace(second, colour=first.colour)
        captions = [_pair_phrase(first, second), _pair_phrase(*exchanged)]
        relation = RELATIONS[number // len(used) % len(RELATIONS)]
        for half, things in enumerate(((first, second), exchanged)):
            fields = {
                "attributes": [things[0].colour, things[1].colour],
                "obj1_name": things[0].shape,
                "obj2_name": things[1].shape,
                "true_caption": captions[half],
                "false_caption": captions[1 - half],
            }
            scene = compose(_rng("attribute-place", seed, number), family, things, relation)
            yield SceneCase(f"attribute-{2 * number + half:06d}", scene, fields)


def _rng(purpose: str, seed: int, number: int) -> Random:
    return generator(f"scenes {purpose}", seed, 0, str(number))


def _things(rng: Random, family: Family, colours: tuple[str, str] | None = None) -> tuple[Thing, Thing]:
    """Draw two objects of a held-out pairing, in the two `colours` if given. The color of each object is random."""
    wanted = [pairing for pairing in family.held_out if colours is None or pairing[0] == set(colours)]
    wanted.sort(key=lambda pairing: [sorted(words) for words in pairing])  # sets have no order of their own
    colour_set, shape_set = rng.choice(wanted)
    tints, shapes = (rng.sample(sorted(words), 2) for words in (colour_set, shape_set))
    sizes = rng.choices(("small", "large"), k=2)
    return Thing(tints[0], shapes[0], sizes[0]), Thing(tints[1], shapes[1], sizes[1])


def _pair_phrase(first: Thing, second: Thing) -> str:
    return f"{noun_phrase(first, 'the')} and {noun_phrase(second, 'the')}"
