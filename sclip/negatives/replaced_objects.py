"""Select the objects of a caption whose replacement makes the caption false."""

from __future__ import annotations

from collections.abc import Iterator

from sclip.negatives import contrasts
from sclip.negatives.agreement import in_number
from sclip.negatives.contrasts import Options
from sclip.negatives.meaning import is_animate
from sclip.negatives.planned_replacement import Slot
from sclip.negatives.reading import Reading
from sclip.negatives.senses import is_having, is_loose, may_be_one
from sclip.scenegraph.graph import Span

_HYPHENS = frozenset("-–/'’&")
SPORTS = frozenset("tennis baseball soccer basketball football golf hockey volleyball cricket rugby".split())


def objects(reading: Reading) -> Iterator[Slot]:
    """Yield a slot for each name that may be replaced; of "tennis player", only the sport is replaced."""
    graph, caption = reading.graph, reading.caption
    names = [obj.name for obj in graph.objects]
    for index, obj in enumerate(graph.objects[: reading.count]):
        first, _, rest = obj.name.partition(" ")
        start = obj.span[0]
        if rest and first in SPORTS and not reading.is_shut(index):
            if caption[start : start + len(first) + 1].lower() == f"{first} ":
                span = (start, start + len(first))
                yield Slot("replaced object", span, sports_of(first, rest), (index,), rest=f" {rest}")
            continue
        options = contrasts.ANYWHERE.get(obj.name, ())
        if not options:
            options = contrasts.ANCHORED.get(obj.name, ())
            if not options or not (index == 0 or _is_anchor(reading, index)):
                continue
            bare = not (reading.phrases.determiner[index] or reading.head_plural[index])
            if bare and index and obj.name not in contrasts.MASS | contrasts.MASS_OR_NOT:
                continue  # "in bed", "by train"
        if reading.is_shut(index) or not reading.phrases.is_open(index) or names.count(obj.name) > 1:
            continue
        if (reading.has_pronoun and is_animate(obj.name)) or not _is_whole(caption, obj.span):
            continue
        if caption[slice(*obj.phrase)].lower().startswith(("any ", "every ", "no ")):
            continue
        if obj.name in ("phone", "dress") and reading.attributes_of[index]:
            continue  # "a cellular phone"
        if any(k != index and may_be_one(name, obj.name) for k, name in enumerate(names)):
            continue
        text = caption[slice(*obj.span)].lower()
        if text != obj.name and obj.name in contrasts.MASS:
            continue
        if text != obj.name and text != in_number(obj.name, True):
            continue
        if caption.lower().count(text) > 1:
            continue
        options = tuple(option for option in options if _is_counted_alike(reading, index, text, option[0]))
        yield Slot("replaced object", obj.span, options, (index,))


def _is_counted_alike(reading: Reading, index: int, text: str, word: str) -> bool:
    """Return whether the new noun `word` fits the determiner of the old noun: never "some sandwich" for "some cake"."""
    if reading.head_plural[index]:
        return word not in contrasts.MASS
    determiner = reading.phrases.determiner[index]
    if determiner == "one":
        return True
    if text in contrasts.INVARIANT:
        return False
    return determiner == "the" or text not in contrasts.MASS_OR_NOT or word not in contrasts.COUNTED


def _is_anchor(reading: Reading, index: int) -> bool:
    """Return whether something is in or on the object, or someone uses it."""
    links = [reading.graph.relations[k] for k in reading.relations_of[index]]
    return any(r.object == index and not is_loose(r.predicate) and not is_having(r.predicate) for r in links)


def _is_whole(caption: str, span: Span) -> bool:
    """Return whether a word is not part of a longer one such as "dog-like" or "man-made"."""
    return caption[span[0] - 1 : span[0]] not in _HYPHENS and (
        caption[span[1] : span[1] + 1] not in _HYPHENS or caption[span[1] : span[1] + 2] in ("'s", "’s")
    )


def sports_of(sport: str, name: str) -> Options:
    """Return the sports that may replace `sport` before a name: never "volleyball ball"."""
    return tuple(o for o in contrasts.ANYWHERE[sport] if name != "ball" or not o[0].endswith("ball"))
