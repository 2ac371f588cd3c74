"""Read connectors, the words between two noun phrases: verbs, a preposition, "and", a possessive, negations.

A caption alternates between noun phrases and connectors. The dependency parse is not used here. A verb is open if the
next noun phrase belongs to it ("sits on a bench"), and closed if no noun phrase does ("a dog runs and ...").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sclip.scenegraph import lexicon
from sclip.scenegraph.tagged_words import Word


class VerbUse(NamedTuple):
    """A closed verb and its preposition."""

    verb: int
    preposition: int
    """Word index of "on" in "the bench that he sits on"; -1 means that there is no preposition."""
    passive_by: bool


class Connector:
    """The grammar of the words between two noun phrases. Integers are word indices; -1 means "none"."""

    conjunction: bool = False
    """Whether a coordinator ("and", "but", "or", "nor") or a comma occurs."""
    exclusive: bool = False
    """Whether "or" or "nor" occurs. Both carry a denial on to the next phrase: "no dog or cat"."""
    comma: bool = False
    coordinator: bool = False
    """Whether a coordinator other than "nor" occurs."""
    clause: bool = False
    """Whether a subordinator such as "while" occurs."""
    possessive: bool = False
    copula: int = -1
    existential: bool = False  # "there is"
    relative: bool = False
    verb: int = -1
    """The open verb: "sits" in "sits on a bench"."""
    preposition: int = -1
    place: int = -1
    passive_by: bool = False
    denied: bool = False
    """Whether the words just before the next noun phrase are negated: "is not on", "without", "but not"."""

    compared: Sequence[int] = ()
    """Adjectives that belong to the "than" of a later adjective: "smaller" in "is smaller but faster than"."""

    def __init__(self) -> None:
        self.verbs: list[int] = []
        self.closed: list[VerbUse] = []
        self.adjectives: list[int] = []
        self.denied_words: set[int] = set()
        """Verbs and adjectives after a negation such as "not" or "never"."""

    def compares(self, words: Sequence[Word], adjective: int) -> bool:
        """Return whether an adjective belongs in `compared`."""
        text = words[adjective].text
        shares = self.preposition > adjective and words[self.preposition].text.endswith("er than")
        return shares and text.endswith("er") and lexicon.is_adjective(text)

    def close(self) -> None:
        """Move the open verb to `closed`, because no noun phrase follows it."""
        if self.verb >= 0:
            self.closed.append(VerbUse(self.verb, self.preposition, self.passive_by))
            self.verb = self.preposition = -1


def read_connector(words: Sequence[Word], start: int, end: int) -> Connector:
    """Read the words from `start` to `end`, which contain no noun phrase."""
    c = Connector()
    for i in range(start, end):
        word = words[i]
        code, text = word.code, word.text
        if text in lexicon.NEGATIONS and not (i + 1 < end and words[i + 1].text in ("only", "just")):
            c.denied = True
            c.exclusive = c.exclusive or text == "nor"
            c.conjunction = c.conjunction or code == "C"
            if text == "without":
                c.preposition = i
            if code not in "VG":
                continue
        if code in "C,":
            if text in ("either", "both", "neither"):
                continue  # "rests either on a bench or on a wall"
            if c.verb >= 0 and c.preposition < 0:
                c.close()
            c.denied = c.denied and text == "or"
            if c.adjectives:
                continue
            c.conjunction = True
            c.comma = c.comma or code == ","
            c.coordinator = c.coordinator or code == "C"
            c.exclusive = c.exclusive or text == "or"
        elif code in ".K":
            c.close()
            if code == "K":
                c.clause, c.denied = True, False
        elif code == "S":
            c.possessive = True
        elif code == "W":
            c.relative = True
        elif code == "X":
            c.existential = True
        elif code == "B":
            if text not in ("be", "been", "being"):
                c.close()
            c.copula = i
        elif code in "VGE":
            if text in lexicon.AUXILIARIES and any(w.code in "EV" for w in words[i + 1 : min(i + 4, end)]):
                continue
            if c.verb >= 0 and code == "V" and words[i - 1].code != "T":
                c.close()
                c.denied = False  # "that has never been ridden stands in a stable"
            c.verb, c.preposition = i, -1
            c.verbs.append(i)
            if c.denied:
                c.denied_words.add(i)
        elif code == "P":
            if text == "by" and c.verb >= 0 and words[c.verb].code == "E":
                c.passive_by = True
            if text == "have":
                c.verb = i
                c.verbs.append(i)
            elif not (c.preposition >= 0 and text == "of"):
                c.preposition = i
        elif code == "T":
            if i + 1 >= end or words[i + 1].code not in "VB":
                c.preposition = i
        elif (
            code == "R"
            and c.verb >= 0
            and c.preposition < 0
            and (
                text in lexicon.DIRECTIONS
                or (i + 1 == end and text in ("off", "up", "out", "on"))
                or (text == "up" and lexicon.verb_lemma(words[c.verb].text) in lexicon.MOTION)
            )
        ):
            c.preposition = i
        elif code == "L":
            c.place = i
        elif code in "JM" and (c.copula >= 0 or i == start):
            c.adjectives.append(i)
            if c.denied:
                c.denied_words.add(i)
    return c
