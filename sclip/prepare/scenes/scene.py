"""Define scenes: colored shapes, their places, and the pairings that training never shows.

Two objects stand clearly apart along one axis. An optional third object stands beside the second along the other axis.
Coordinates and radii are fractions of the picture's side; y grows downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from random import Random

PATTERNS = ("plain", "gradient", "dots", "grid")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = tuple(OPPOSITE)

_RADIUS = {"small": 0.12, "large": 0.19}
_AXIS = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
_THIRD_OBJECT_SHARE = 0.1

Pairing = tuple[frozenset[str], frozenset[str]]
"""The colors and the shapes of two objects, whichever object has which: "red circle, blue square" and "blue circle, red
square" have the same pairing."""


@dataclass(frozen=True, slots=True)
class Family:
    """Words of a family of scenes, and the pairings that training never shows."""

    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    backgrounds: tuple[str, ...]
    held_out: frozenset[Pairing]


def _family(colours: str, shapes: str, backgrounds: str) -> Family:
    """Return a family that holds out every fifth pairing. Training still shows every shape in every color."""
    colour_names, shape_names = colours.split(), shapes.split()
    colour_pairs, shape_pairs = (list(combinations(words, 2)) for words in (colour_names, shape_names))
    numbered = product(enumerate(colour_pairs), enumerate(shape_pairs))
    held_out = frozenset((frozenset(c), frozenset(s)) for (i, c), (j, s) in numbered if (i + j) % 5 == 0)
    return Family(tuple(colour_names), tuple(shape_names), tuple(backgrounds.split()), held_out)


def _narrowed(family: Family, colours: str) -> Family:
    kept = colours.split()
    held_out = frozenset(pair for pair in family.held_out if pair[0] <= set(kept))
    return Family(tuple(kept), family.shapes, family.backgrounds, held_out)


_ALL = _family(
    "red green blue yellow orange purple white black", "circle square triangle cross", "grey brown pink beige"
)
FAMILIES = {"a": _ALL, "b": _narrowed(_ALL, "red green blue yellow orange")}
"""Families by name. "b" has five of the eight colors of "a", as tuning data is narrower than pretraining data."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One colored shape."""

    colour: str
    shape: str
    size: str
    """"small" or "large"."""


@dataclass(frozen=True, slots=True)
class PlacedThing:
    """A thing in the picture."""

    thing: Thing
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Fact:
    """A relation that holds: `subject` is `relation` (a key of OPPOSITE) of `object`."""

    subject: Thing
    relation: str
    object: Thing

    def inverse(self) -> Fact:
        """Return the same fact seen from the other object."""
        return Fact(self.object, OPPOSITE[self.relation], self.subject)


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture's content."""

    placed: tuple[PlacedThing, ...]
    facts: tuple[Fact, ...]
    background: str
    pattern: str


def pairing(first: Thing, second: Thing) -> Pairing:
    """Return the pairing of two objects, to look it up in `Family.held_out`."""
    return frozenset((first.colour, second.colour)), frozenset((first.shape, second.shape))


def compose(
    rng: Random, family: Family, things: tuple[Thing, ...], relation: str, second_relation: str = ""
) -> Scene:
    """Return a scene. Thing 1 is `relation` ("left", ..) of thing 2; thing 3, if any, is `second_relation` of thing 2.

    With the same state of `rng`, relations and number of things, scenes have the same places and background, whatever
    the things are. So two scenes can differ only by an exchange of their objects or colors.
    """
    x, y = _AXIS[relation]
    along = rng.uniform(0.225, 0.255)  # half the distance between the centers
    shift = rng.uniform(-0.1, 0.1)
    tilts = rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06)
    jitter = rng.uniform(-0.02, 0.02)
    background, pattern = rng.choice(family.backgrounds), rng.choice(PATTERNS)
    growth = rng.uniform(0.95, 1.05)
    facts = [Fact(things[0], relation, things[1])]
    if len(things) == 3:  # the pair moves aside to make room for the third
        dx, dy = _AXIS[second_relation]
        shift = -along * (dx + dy)
        tilts = tilts[0] / 3, tilts[1] / 3
        facts.append(Fact(things[2], second_relation, things[1]))
    places = []
    for sign, tilt in zip((1, -1), tilts, strict=True):
        forth, aside = sign * along + jitter, shift + tilt
        places.append((0.5 + x * forth + abs(y) * aside, 0.5 + y * forth + abs(x) * aside))
    if len(things) == 3:
        places.append((places[1][0] + 2 * along * dx, places[1][1] + 2 * along * dy))
    placed = (
        PlacedThing(thing, px, py, growth * _RADIUS[thing.size])
        for thing, (px, py) in zip(things, places, strict=True)
    )
    return Scene(tuple(placed), tuple(facts), background, pattern)


def draw_scene(rng: Random, family: Family, *, held_out: bool) -> Scene:
    """Return a scene of 2 or 3 objects with different colors and shapes, no two of them in a held-out pairing.

    With `held_out`, return a scene of 2 objects in a held-out pairing instead.
    """
    count = 3 if not held_out and rng.random() < _THIRD_OBJECT_SHARE else 2
    while True:
        colours, shapes = rng.sample(family.colours, count), rng.sample(family.shapes, count)
        things = tuple(
            Thing(colour, shape, rng.choice(tuple(_RADIUS)))
            for colour, shape in zip(colours, shapes, strict=True)
        )
        sides = {pairing(*pair) in family.held_out for pair in combinations(things, 2)}
        if sides == {held_out}:
            break
    relation = rng.choice(RELATIONS)
    across = [other for other in RELATIONS if other not in (relation, OPPOSITE[relation])]
    return compose(rng, family, things, relation, rng.choice(across))
