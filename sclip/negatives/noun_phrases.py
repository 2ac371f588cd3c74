"""Decide which words may leave or enter a noun phrase so that the false caption stays grammatical.

A phrase is classified by the words before its noun: an indefinite article ("a", "one"), a definite determiner ("the",
"his", "the dog's"), a number or a quantity, or nothing. "Water" takes no "a". A singular count noun with
no determiner is an idiom ("at night", "for sale") or telegram style ("Man on horse").
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import Literal

from sclip.scenegraph.graph import SceneGraph, Span
from sclip.scenegraph.lexicon import COLOURS, CONNECTIVES, parts_of_speech

Determiner = Literal["one", "the", "many", "of", ""]
"""Kind of determiner, in order: indefinite ("a"), definite ("the"), several ("two"), measure ("a group of"), none."""

MASS = frozenset(
    """water sand snow grass dirt mud food bread rice pasta cheese butter meat beef pork bacon ham broccoli lettuce
    spinach cabbage milk juice coffee tea wine beer ice fire smoke steam fog mist rain air sunlight light daylight
    traffic furniture luggage baggage clothing equipment gear graffiti scenery wood metal plastic concrete cement
    gravel hay straw foliage vegetation greenery shrubbery fur hair wool cotton leather jewelry makeup trash garbage
    debris rubble soil clay dust cardboard money cash mail art software information weather silverware cutlery
    dishware glassware cookware tableware lightning thunder icing frosting cream sugar salt ketchup mustard
    mayonnaise syrup honey jam jelly cereal oatmeal yogurt tofu seafood sushi corn garlic ginger parsley cilantro
    celery asparagus cauliflower toast popcorn lumber pavement asphalt turf moss ivy seaweed algae confetti denim
    fabric velvet silk lace marble granite steel iron aluminum aluminium copper rubber foam gas gasoline fuel
    electricity energy power ash coal charcoal chalk ink paint tape wire sunshine moonlight shade darkness nature
    wildlife livestock footwear underwear lingerie soup chocolate liquid paper glass brick tile stuff music text
    architecture artwork bamboo surf ground help depth texture fun love peace time fashion style design hardware
    lighting decor fruit produce poultry flooring carpeting siding fencing landscaping writing lettering stitching
    seating bedding signage upholstery plywood driftwood stone attention beauty elegance charm warmth contrast
    whimsy realism symmetry serenity tranquility sophistication interest movement""".split()
)
"""Nouns that take no "a" in their usual meaning."""

_INDEFINITE = frozenset(
    """someone somebody something anyone anybody anything everyone everybody everything nothing nobody none others
    other one ones each this that these those another fours rest""".split()
)
"""Words that take no adjective before them."""
_DIRECTIONS = frozenset("distance background foreground left right front back top bottom middle rear".split())
_AMOUNTS = frozenset("lot bit bunch thumbs way ways kind sort close half".split())

_PARTITIVE_BEFORE = re.compile(
    r"\bhow\s+$|\b(?:each|one|both|some|many|most|all|none|several|few|half|rest|two|three|four|five|\d+) of\s+$",
    re.IGNORECASE,
)
_ONE = re.compile(r"(?:an?|one|each|every|another)\b(?!\s+(?:few|lot|couple|pair|bunch)\b)", re.IGNORECASE)
_THE = re.compile(r"(?:the|this|that|these|those|his|her|its|their|my|your|our|no|any)\b", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:an?|the)\s+", re.IGNORECASE)
_OF = re.compile(r"\bof\s", re.IGNORECASE)
_MANY = re.compile(
    r"(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\d+|several|many|some|few|both|all|most|numerous"
    r"|multiple|various|dozens?|hundreds|thousands|a few|a couple|a lot|a bunch|a pair)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve|[2-9]|\d\d+)\b", re.IGNORECASE
)
_POSSESSED = re.compile(r"(?:'s?|’s?)\s+$")
_OWNER = re.compile(r"\s?(?:'s|'|’s|’)(?=\s)")
_QUOTED_BEHIND = re.compile(r"""\s*(?:["“”«(]|``|:\s*["“])|\s+['‘]\w""")
_HYPHENS = tuple("-–/&#")
_HYPHEN_BEFORE = re.compile(r"[-–/&#]\s*$")
_HYPHEN_BEHIND = re.compile(r"\s*(?:[-–]\s*\w|[/#])")
_AND_BEFORE = re.compile(r"\b(?:and|or|&)\s+$", re.IGNORECASE)
_WORD_BEFORE = re.compile(r"([^\W\d_][\w'’-]*)\s+$")
_PARTICIPLE = re.compile(r"\s*([^\W\d_]+(?:ing|ed|wn|en))\s*")


def _is_adjective_alone(word: str) -> bool:
    tags = parts_of_speech(word)
    return "ADJ" in tags and tags.keys().isdisjoint(("VERB", "NOUN", "AUX"))


@lru_cache(maxsize=1 << 16)
def _determiner(before: str) -> Determiner:
    if _THE.match(before):
        return "the"
    if _OF.search(before):
        return "of"
    if _MANY.match(before):
        return "many"
    if _ONE.match(before):
        return "one"
    return "many" if _NUMBER.search(before) else ""


@lru_cache(maxsize=1 << 16)
def _number_end(phrase: str) -> int:
    number = _NUMBER.search(phrase)
    return number.end() if number else 0


class NounPhrases:
    """The noun phrases of a graph's objects; each index is the index of an object."""

    def __init__(self, graph: SceneGraph, heads: list[Span], plural: list[bool]) -> None:
        """Keep the graph. `heads`: span of the last word of each name; `plural`: whether this word is plural."""
        self._graph, self._plural = graph, plural
        self._head = [graph.caption[slice(*head)].lower() for head in heads]

    @cached_property
    def possessed(self) -> list[bool]:
        """Whether an owner stands before each phrase: "surface" of "the desk's surface"."""
        caption = self._graph.caption
        if "'" not in caption and "’" not in caption:
            return [False] * len(self._graph.objects)
        return [
            _POSSESSED.search(caption, max(0, o.phrase[0] - 4), o.phrase[0]) is not None
            for o in self._graph.objects
        ]

    @cached_property
    def determiner(self) -> list[Determiner]:
        """The kind of determiner of each phrase."""
        caption = self._graph.caption
        return [
            "the" if owned else _determiner(caption[o.phrase[0] : o.span[0]])
            for o, owned in zip(self._graph.objects, self.possessed, strict=True)
        ]

    @cached_property
    def _mass(self) -> list[bool]:
        return [
            head in MASS and self.determiner[k] not in ("one", "many") and not self._plural[k]
            for k, head in enumerate(self._head)
        ]

    @cached_property
    def _bare(self) -> list[bool]:
        return [
            not (self.determiner[k] or self._plural[k] or self._mass[k] or o.fixed)
            for k, o in enumerate(self._graph.objects)
        ]

    @cached_property
    def _joined(self) -> list[bool]:
        """Whether each bare noun shares the article of an earlier noun: "a cat and dog"."""
        caption = self._graph.caption
        return [
            bare and _AND_BEFORE.search(caption, max(0, o.phrase[0] - 5), o.phrase[0]) is not None
            for o, bare in zip(self._graph.objects, self._bare, strict=True)
        ]

    @cached_property
    def _ends(self) -> set[int]:
        return {o.phrase[1] for o in self._graph.objects}

    @cached_property
    def _torn(self) -> list[bool]:
        return [self._is_torn(k) for k in range(len(self._graph.objects))]

    @cached_property
    def _solid(self) -> list[bool]:
        return [self._is_solid(k) for k in range(len(self._graph.objects))]

    def exchange(self, first: int, second: int) -> bool:
        """Return whether two whole phrases may change places."""
        if self._torn[first] or self._torn[second] or self._bare[first] != self._bare[second]:
            return False
        if self.possessed[first] or self.possessed[second] or self._joined[first] or self._joined[second]:
            return False
        first, second = sorted((first, second), key=lambda k: self._graph.objects[k].phrase)
        for k, other in ((first, second), (second, first)):
            if self._is_owner(k) and (self._plural[other] or self._head[other] in _INDEFINITE):
                return False  # "the girls's dog"
            if self._is_measured(k) and bool(self.determiner[k]) != bool(self.determiner[other]):
                return False  # "a bowl of a spoon"
        if self._bare[first]:
            if self._graph.objects[first].phrase[0] and any(self.determiner):
                return False  # "with breast cancer awareness in mind": an idiom
            start, end = self._graph.objects[first].phrase[1], self._graph.objects[second].phrase[0]
            if _PARTICIPLE.fullmatch(self._graph.caption, start, end):
                return False  # "guitar playing woman", "hand drawn sketch"
        return True

    def exchange_heads(self, first: int, second: int) -> bool:
        """Return whether two nouns may change places while all words before them stay."""
        if self._torn[first] or self._torn[second] or self._solid[first] or self._solid[second]:
            return False
        if self._bare[first] != self._bare[second]:
            return False
        if self._joined[first] or self._joined[second]:
            return False
        pointed = self._points(first) and self._points(second)
        return self._mass[first] == self._mass[second] or pointed

    def is_open(self, index: int) -> bool:
        """Return whether the adjectives of the phrase may be replaced."""
        return not (self._torn[index] or self._solid[index])

    def takes(self, index: int) -> bool:
        """Return whether an adjective may enter the phrase."""
        return self.is_open(index) and not self._is_idiom(index)

    def body(self, index: int) -> Span:
        """Return the span of the phrase without its article."""
        start, end = self._graph.objects[index].phrase
        match = _ARTICLE.match(self._graph.caption, start, end)
        return (match.end() if match else start, end)

    def exchange_bodies(self, first: int, second: int) -> bool:
        """Return whether two phrases may swap without their articles: "Man riding a cow" becomes "Cow riding a man"."""
        opening, other = (first, second) if self._bare[first] else (second, first)
        return (
            self._bare[opening]
            and not self._is_idiom(opening)
            and self.determiner[other] in ("one", "the")
            and not (self._plural[other] or self._mass[other] or self.possessed[other])
            and not (self._torn[first] or self._torn[second] or self._solid[first] or self._solid[second])
            and not (self._joined[first] or self._joined[second])
            and self._head[other] not in MASS
            and not (self._is_owner(first) or self._is_owner(second))
        )

    def gives(self, index: int) -> bool:
        """Return whether an adjective may leave the phrase without replacement: not "clear" of "a clear water"."""
        return not (self._torn[index] or (self.determiner[index] == "one" and self._head[index] in MASS))

    def _points(self, index: int) -> bool:
        return self.determiner[index] == "the"

    def _is_owner(self, index: int) -> bool:
        return _OWNER.match(self._graph.caption, self._graph.objects[index].phrase[1]) is not None

    def _is_measured(self, index: int) -> bool:
        start = self._graph.objects[index].phrase[0]
        return self._graph.caption[max(0, start - 4) : start].lower().rstrip().endswith(" of")

    def _is_idiom(self, index: int) -> bool:
        """Return whether the phrase is a bare noun that does not begin the caption: "at night", "playing ball"."""
        return self._bare[index] and self._graph.objects[index].phrase[0] > 0

    def _is_solid(self, index: int) -> bool:
        """Return whether no adjective may enter or be replaced: in "someone", "a three door fridge", "in pink"."""
        obj, head = self._graph.objects[index], self._head[index]
        if head in _INDEFINITE or head in COLOURS or head in _DIRECTIONS:
            return True
        if self._plural[index]:
            return False
        number = _number_end(self._graph.caption[slice(*obj.phrase)])
        return 0 < number <= obj.span[1] - len(head) - obj.phrase[0]

    def _is_torn(self, index: int) -> bool:
        """Return whether the phrase is a fragment, such as part of a hyphenated word or the word before a quotation."""
        caption = self._graph.caption
        start, end = self._graph.objects[index].phrase
        head, next_characters = self._head[index], caption[end : end + 2]
        if not (next_characters[:1] == " " and next_characters[1:].isalnum()) and (
            _QUOTED_BEHIND.match(caption, end) or _HYPHEN_BEHIND.match(caption, end)
        ):
            return True
        before = caption[max(0, start - 12) : start].rstrip().lower()
        if before.endswith(_HYPHENS) and _HYPHEN_BEFORE.search(caption, max(0, start - 4), start):
            return True
        if head in _DIRECTIONS or head in _AMOUNTS or _is_adjective_alone(head):
            return True
        if before.endswith((" of", "how")) and _PARTITIVE_BEFORE.search(caption, max(0, start - 12), start):
            return True
        if "-" in head and caption[end : end + 1] == ",":
            return True  # "a high-angle, close-up shot"
        if self.determiner[index]:
            return False
        word_before = _WORD_BEFORE.search(caption, max(0, start - 24), start)
        if word_before is None:
            return False
        word = word_before.group(1).lower()
        if word_before.end(1) in self._ends or caption[start + 1 : start + 2] == " ":
            return True
        return (
            _ONE.fullmatch(word) is not None
            or _THE.fullmatch(word) is not None
            or (word not in CONNECTIVES and _is_adjective_alone(word))
        )
