"""Decide whether an exchange surely makes a caption false: the new text must contradict the caption.

A caption does not mention most of its picture: if "a large cat on a mat" is true, "a cat on a large mat" may be true
too. So an exchange is certain only if it breaks a stated fact: a lamp is now under the table that it stood on, or a
woman rides the man's horse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sclip.negatives.meaning import is_animate, is_symmetric, synonym
from sclip.negatives.reading import Reading
from sclip.negatives.senses import (
    contradict,
    excludes,
    is_depth,
    is_frame,
    is_ground,
    is_having,
    is_kind_of,
    is_loose,
    is_physical,
    is_scene,
    is_shared,
    is_use,
    is_vague,
    is_weather,
    is_worn,
    may_be_one,
    place_of,
    reverses,
    tells_apart,
)
from sclip.scenegraph.graph import Relation

_NEW = re.compile(r"(?:an?|another|other|some|several|two|three|four)\b", re.IGNORECASE)
_COPULAS = ("is", "are", "was", "were", "be", "become", "becomes", "became", "as")
_NAMED = re.compile(
    rf"\b(?<!there )(?<!this )(?<!here )(?<!it )(?<!these )(?:{'|'.join(_COPULAS)})\s+$", re.IGNORECASE
)
_MADE = re.compile(
    r"(?:made?|make|construct|craft|build|compose|carve|consist|form|cut)(?: up)? (?:of|from|in)\b"
)
_PRONOUN = re.compile(r"\s*(?:it|them|him|her|each|which|whom)\b", re.IGNORECASE)
_ON_PART = re.compile(r"on (?:\w+ )?(?:side|front|back|top|edge|end|face|surface) of")


def objects_surely_change(reading: Reading, first: int, second: int) -> bool:
    """Return whether the caption is surely false when two objects take each other's place in all relations."""
    graph = reading.graph
    names = [graph.objects[k].name for k in (first, second)]
    if (
        any(map(is_vague, names))
        or all(map(is_ground, names))
        or not _words(names[0]).isdisjoint(_words(names[1]))
    ):
        return False
    if any(reading.is_possessive(k) and not is_animate(graph.objects[k].name) for k in (first, second)):
        return False  # "its hood": a part of another thing of the caption
    if any(map(is_weather, names)) and not any(map(is_animate, names)):
        return False
    things = not any(map(is_animate, names))
    if things and is_kind_of(*names):
        return False
    joined = things and second in _near(reading, first, having=True)
    if _may_be_one(reading, first, second) or reads_as_compound(reading, first, second):
        return False
    swap = {first: second, second: first}
    for k in {k for index in swap for k in reading.relations_of[index]}:
        relation = graph.relations[k]
        ends = (swap.get(relation.subject, relation.subject), swap.get(relation.object, relation.object))
        if _PRONOUN.match(reading.caption, relation.span[1]):
            continue  # "a boat near a pier with people on it": "it" may be either
        if joined and not _is_act(reading, k):
            continue  # "a clock with a frame": both are in the same places
        if not _follows(reading, k, first, second) and surely_fails(reading, *ends, k):
            return True
    if joined:
        return False
    return _acts_otherwise(reading, first, second) or _acts_otherwise(reading, second, first)


def _is_act(reading: Reading, k: int) -> bool:
    """Return whether relation k is an act on its object alone: "ride", not "hold" (a bag is held with its contents)."""
    relation = reading.graph.relations[k]
    return (
        is_animate(reading.graph.objects[relation.subject].name)
        and not place_of(relation.predicate)
        and not is_having(relation.predicate)
        and not is_use(relation.predicate)
    )


def _may_be_one(reading: Reading, first: int, second: int) -> bool:
    """Return whether two objects may be the same thing: "a bus ... the vehicle", not "a bus ... a vehicle"."""
    objects = reading.graph.objects
    later = objects[second].phrase
    start = max(0, later[0] - 20)
    before = reading.caption[start : later[0]].rstrip().lower()
    named = before.endswith(_COPULAS) and _NAMED.search(reading.caption, start, later[0])
    if named and not _is_fronted(reading, first, second):
        return True  # "a man is a player"
    return (
        may_be_one(objects[first].name, objects[second].name)
        and reading.head_plural[first] == reading.head_plural[second]
        and not _related(reading, first, second)
        and not _NEW.match(reading.caption, *later)
    )


def _is_fronted(reading: Reading, first: int, second: int) -> bool:
    """Return whether the first object is the place of the second, named before the verb: "under a tree is a dog"."""
    start = reading.graph.objects[first].phrase[0]
    relations = (reading.graph.relations[k] for k in reading.relations_of[first])
    return any(
        (relation.subject, relation.object) == (second, first) and relation.span[1] <= start
        for relation in relations
    )


def reads_as_compound(reading: Reading, first: int, second: int, *, heads: bool = False) -> bool:
    """Return whether an exchange may make a compound noun: "kids wearing masks" becomes "masks wearing kids".

    With `heads`, only the nouns change places: "a kid wearing masks" becomes "a masks wearing kid".
    """
    objects = reading.graph.objects
    one, other = objects[first], objects[second]
    bare = other.phrase[0] == other.span[0] and (heads or one.phrase[0] == one.span[0])
    if not bare or is_animate(other.name):  # "masks wearing a kid" is no compound
        return False
    between = reading.caption[one.phrase[1] : other.phrase[0]].strip().lower()
    return between.endswith(("ing", "ed")) and between.isalpha()


def _follows(reading: Reading, k: int, first: int, second: int) -> bool:
    """Return whether an exchange may leave relation k true: for "holding" in "a man by a fence holding a bat"."""
    relation = reading.graph.relations[k]
    one, other = reading.graph.objects[first].phrase, reading.graph.objects[second].phrase
    earlier, end = (first, other[1]) if one <= other else (second, one[1])
    start = relation.span[0]
    return (  # the subject moves directly before the words of relation k: "a fence by a man holding a bat"
        relation.subject == earlier
        and start >= end
        and not reading.caption[end:start].strip()
        and not reading.text(relation.span).lower().startswith(("is ", "are "))
    )


def _names(reading: Reading, relation: Relation) -> tuple[str, str]:
    objects = reading.graph.objects
    return objects[relation.subject].name, objects[relation.object].name


def _words(name: str) -> set[str]:
    return set(name.split())


def _related(reading: Reading, first: int, second: int) -> bool:
    relations = reading.graph.relations
    return any(second in (relations[k].subject, relations[k].object) for k in reading.relations_of[first])


def surely_fails(reading: Reading, subject: int, object_: int, k: int) -> bool:
    """Return whether relation k would surely be false if it joined objects `subject` and `object_` instead."""
    graph = reading.graph
    predicate = graph.relations[k].predicate
    names = (graph.objects[subject].name, graph.objects[object_].name)
    old_ends = (graph.relations[k].subject, graph.relations[k].object)
    if is_having(predicate):
        if old_ends == (object_, subject) and (predicate == "have" or is_worn(names[0])):
            return is_animate(names[1])  # "a girl has a hat", not "a tower has a clock"
        return _has_other(reading, subject, object_)
    if is_depth(names[1]) and place_of(predicate) == "in":  # "in the background", not "on a white background"
        return True
    if is_loose(predicate) or is_symmetric(predicate, *names):
        return False
    if old_ends == (object_, subject) and _is_mutual_place(predicate, *names):
        return False
    near = contradicted = False
    for m in reading.relations_of[subject]:
        known = graph.relations[m]
        if object_ not in (known.subject, known.object):
            continue
        if known.object == object_:
            if not contradict(known.predicate, predicate, names[1]):
                return False
            contradicted = True
        elif reverses(known.predicate, predicate):
            return False
        elif is_loose(known.predicate):
            near = True
        elif old_ends == (object_, subject) and _may_hang_higher(reading, k):
            return False
        else:
            contradicted = True
    place = place_of(predicate)
    if not place and not (is_animate(graph.objects[old_ends[0]].name) or is_physical(predicate)):
        return False  # not an act between things: "reflect", "frame", "render in"
    if contradicted:
        return True
    if place:
        return _is_elsewhere(reading, subject, object_, place, near)
    doer, done = old_ends
    if subject != doer and not is_animate(names[0]) and predicate.endswith((" at", " in", " on", " by")):
        return False  # "held at", "shown on": the predicate states a place
    if subject != doer:  # "a woman with a child eats a cake"
        return not (is_shared(predicate) and _are_companions(reading, subject, doer))
    return not (
        is_use(predicate)
        and (_are_companions(reading, object_, done) or _is_described(reading, object_, done))
    )


def _is_mutual_place(predicate: str, *names: str) -> bool:
    """Return whether "behind" or "in front of" may hold both ways: for a chair and a window, but not "park behind"."""
    return (
        place_of(predicate) in ("in_front_of", "behind")
        and any(map(is_ground, names))
        and not any(map(is_animate, names))
        and not predicate.startswith("park")
    )


def _is_described(reading: Reading, one: int, other: int) -> bool:
    """Return whether the verb between two things says how they look, not what one does: "a gown featuring a bow"."""
    graph = reading.graph
    return any(
        {relation.subject, relation.object} == {one, other}
        and not place_of(relation.predicate)
        and not is_physical(relation.predicate)
        and not is_animate(graph.objects[relation.subject].name)
        for relation in (graph.relations[k] for k in reading.relations_of[one])
    )


def _may_hang_higher(reading: Reading, k: int) -> bool:
    """Return whether relation k may describe an earlier noun: "in a hall" in "people at a fair in a hall"."""
    relation = reading.graph.relations[k]
    name = reading.graph.objects[relation.subject].name
    return bool(place_of(relation.predicate)) and any(
        inner.object == relation.subject
        and (place_of(inner.predicate) or is_loose(inner.predicate))
        # not for "a cat in a box on a table"
        and (inner.predicate.endswith(" at") or not contradict(inner.predicate, relation.predicate, name))
        for inner in (reading.graph.relations[m] for m in reading.relations_of[relation.subject])
    )


def _are_companions(reading: Reading, one: int, other: int) -> bool:
    """Return whether two living beings are with each other; for two things, whether `one` is with any object."""
    objects = reading.graph.objects
    if is_animate(objects[one].name) != is_animate(objects[other].name):
        return False
    with_one, with_other = _near(reading, one, having=True), _near(reading, other, having=True)
    return one in with_other or (not is_animate(objects[one].name) and bool(with_one))


def _near(reading: Reading, index: int, *, having: bool = False) -> set[int]:
    """Return the objects near or with an object; `having` leaves out those that are only near."""
    relations = (reading.graph.relations[k] for k in reading.relations_of[index])
    return {
        r.object if r.subject == index else r.subject
        for r in relations
        if is_having(r.predicate)
        or (not having and is_loose(r.predicate))
        or ((not having or r.predicate.endswith(" with")) and is_symmetric(r.predicate, *_names(reading, r)))
    }


def _places(reading: Reading, index: int) -> dict[int, str]:
    """Return the places that the caption states for an object: {other object: kind of place}."""
    relations = (reading.graph.relations[k] for k in reading.relations_of[index])
    return {r.object: place for r in relations if r.subject == index and (place := place_of(r.predicate))}


def _is_elsewhere(reading: Reading, subject: int, object_: int, place: str, near: bool) -> bool:
    """Return whether the subject is surely not `place` ("on", "under") the object."""
    own = _places(reading, subject)
    if any(object_ in _places(reading, k) or k in _places(reading, object_) for k in own):
        return False  # "in a chair on a porch"
    if place not in ("in", "on") and place in own.values():
        return False  # it may be right of both
    name = reading.graph.objects[object_].name
    near = near or any(object_ in _places(reading, k) for k in _near(reading, subject))
    if near and not (place == "in" and is_worn(name)):
        return place in own.values()  # what is near the object may be on it too
    # a thing for which the caption states no place may be anywhere
    return bool(own) or is_animate(reading.graph.objects[subject].name)


def _has_other(reading: Reading, subject: int, object_: int) -> bool:
    """Return whether the object belongs to another living being than the living subject: "a boy, a girl with a bag"."""
    graph = reading.graph
    owners = [
        graph.relations[k].subject
        for k in reading.relations_of[object_]
        if graph.relations[k].object == object_ and is_having(graph.relations[k].predicate)
    ]
    if not owners or _related(reading, subject, object_):
        return False
    return all(is_animate(graph.objects[k].name) for k in (subject, *owners))


def _acts_otherwise(reading: Reading, first: int, second: int) -> bool:
    """Return whether the second object would get a state that only the first has: "a man sits, a woman stands"."""
    name = reading.graph.objects[second].name
    known = {synonym(word) for word in reading.outside(second)}
    return any(synonym(word) not in known and tells_apart(word, name) for word in reading.outside(first))


def attributes_surely_change(reading: Reading, owners: Mapping[int, int]) -> bool:
    """Return whether some attribute is surely false of its new object; `owners` maps attribute to new object."""
    return any(_is_surely_false(reading, k, owner, owners) for k, owner in owners.items())


def are_apart(reading: Reading, one: int, other: int) -> bool:
    """Return whether two objects are different things and neither is a part of the other."""
    return not (
        is_vague(reading.graph.objects[other].name)
        or all(is_scene(reading.graph.objects[k].name) for k in (one, other))
        or is_frame(reading.graph.objects[one].name)
        or _may_be_one(reading, min(one, other), max(one, other))
        or _is_part(reading, one, other)
    )


def _is_surely_false(reading: Reading, k: int, owner: int, owners: Mapping[int, int]) -> bool:
    graph = reading.graph
    attribute, old = graph.attributes[k].attribute, graph.attributes[k].object
    lost = [graph.attributes[m].attribute for m in owners if graph.attributes[m].object == owner]
    if any(excludes(attribute, other) for other in lost):
        return True
    if any(set(attribute.split()) & set(other.split()) for other in lost):
        return False  # "a blue sky ... a light blue sea"
    return tells_apart(attribute, graph.objects[owner].name) and are_apart(reading, old, owner)


def _is_part(reading: Reading, one: int, other: int) -> bool:
    """Return whether a relation makes one thing part of the other: a plane with wings, a bathroom with tiles."""
    objects, relations = reading.graph.objects, reading.graph.relations
    return any(
        {relations[k].subject, relations[k].object} == {one, other}
        and (
            is_having(relations[k].predicate)
            or relations[k].predicate.endswith(("in", " of"))
            or relations[k].predicate.endswith("into")
            or reading.text(relations[k].span).lower() == "of"
            or _MADE.match(relations[k].predicate)
            or _ON_PART.match(relations[k].predicate)
        )
        and (not is_animate(objects[relations[k].subject].name) or relations[k].predicate.endswith("into"))
        for k in reading.relations_of[one]
    )
