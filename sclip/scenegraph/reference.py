"""Resolve pronouns: "one ... the other", "the smaller one", "he", "it", "they".

A pronoun is resolved only if it can mean exactly one of the objects named before; else it stays unresolved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from sclip.scenegraph import lexicon

if TYPE_CHECKING:
    from sclip.scenegraph.chunks import Chunk
    from sclip.scenegraph.tagged_words import Word

_MEMBERS = frozenset("one other others another each both all".split())  # members of a group named before
_RANKED = frozenset("first second third fourth last".split())
_MALE = frozenset("man boy father son husband king grandfather gentleman brother male groom uncle".split())
_FEMALE = frozenset("woman girl lady mother daughter wife queen bride grandmother sister female aunt".split())
_PERSONS = frozenset(
    """person child kid baby toddler adult teenager infant guard chef cook pedestrian model actor rapper trainer
    witch""".split()
)
_NOBODY = frozenset(
    """someone somebody anyone anybody everyone everybody nobody noone nothing anything everything""".split()
)
_PRONOUNS = _MEMBERS | _NOBODY | {"dozen"}
POSSESSIVES = {"his": "he", "her": "she", "its": "it", "their": "they"}
_HE = frozenset("he him himself".split())
_SHE = frozenset("she her herself".split())
_THEY = frozenset("they them themselves".split())

_ROLES = tuple(
    """boarder player rider skier surfer worker batter driver dancer singer keeper skater runner grapher fighter
    teacher farmer officer waiter pitcher catcher cyclist artist tourist leader actress waitress swimmer barista
    sailor baker painter conductor gardener hiker climber doctor nurse jogger juggler drummer musician fisher
    brother mother father sister soldier passenger coach mechanic captain author owner clown wizard prince princess
    knight monk nun priest groomsman bridesmaid tailor cobbler butcher plumber carpenter electrician gymnast
    acrobat magician ballerina professor scientist student pupil patient pilot shepherd hostess pianist violinist
    guitarist cellist fiddler trumpeter shopper vendor seller merchant barber hairdresser librarian cashier clerk
    judge lawyer beggar thief pirate cowboy cowgirl potter weaver blacksmith visitor traveler traveller hunter
    archer boxer wrestler sprinter diver bather bartender cleaner writer poet speaker senator president politician
    grandson granddaughter nephew niece sculptor jockey athlete stranger neighbor neighbour friend instructor rower
    golfer bowler protester builder bricklayer welder miner engineer veterinarian dentist surgeon paramedic
    celebrity comedian footballer cricketer striker midfielder quarterback defender manager designer
    seamstress stewardess duchess priestess empress goddess grocer butler peasant mayor bishop cellist harpist organist
    florist mason widow maid""".split()
)
"""Last parts of nouns that name persons: "snowboarder"."""
_THINGS = (
    frozenset(
        """screwdriver typewriter loudspeaker stagecoach dumbwaiter autopilot semiconductor talisman ottoman
    smother weeknight""".split()
    )
    | {f"{kind} player" for kind in ("record", "cd", "dvd", "music", "mp3", "cassette")}
    | {"vacuum cleaner"}
)
"""Things with names that end like those of persons: "screwdriver"."""
_PERSONS_OR_THINGS = frozenset("pitcher coach cleaner keeper runner".split())
_ANIMALS = frozenset(
    """dog cat horse bear elephant giraffe zebra cow sheep bird puppy kitten monkey wolf fox mouse cub lion tiger lamb
    goat pig duck goose swan squirrel rabbit deer owl penguin calf foal""".split()
)

_SAME_IN_PLURAL = frozenset("sheep deer fish cattle poultry moose bison police crew".split())


@lru_cache(maxsize=1 << 14)
def is_living(name: str) -> bool:
    """Return whether a name surely means a person or a common animal."""
    head = name.rpartition(" ")[2]
    if head in _THINGS or name in _THINGS:
        return False
    return head in _MALE | _FEMALE | _ANIMALS or head.endswith(("man", "people")) or _is_person(name)


@lru_cache(maxsize=1 << 12)
def _is_person(name: str) -> bool:
    """Return whether a name means a person, such as "surfer"; words like "boy" are in `_MALE` and `_FEMALE`."""
    head = name.rpartition(" ")[2]
    return head in _PERSONS or (head.endswith(_ROLES) and head not in _THINGS and name not in _THINGS)


def is_plural_noun(noun: str, before: str) -> bool:
    """Return whether a lower-case noun is plural: "mice", "two deer". `before` is the word before it."""
    if noun in _SAME_IN_PLURAL:
        return before in lexicon.NUMBERS.keys() - {"one"} or before in ("the", "several", "many", "some", "")
    return lexicon.noun_lemma(noun) != noun


def is_young(name: str) -> bool:
    """Return whether a name means a person who may be called "it", such as a baby."""
    return name.rpartition(" ")[2] in ("baby", "child", "infant", "toddler")


def is_animal(name: str) -> bool:
    """Return whether a name surely means a common animal."""
    return name.rpartition(" ")[2] in _ANIMALS


@lru_cache(maxsize=1 << 12)
def is_rank(word: str) -> bool:
    """Return whether a word is a comparative or superlative: "the bigger of the boats"."""
    return word.endswith(("est", "er")) and lexicon.is_adjective(word) and not lexicon.is_noun(word)


def mark_members(words: Sequence[Word]) -> None:
    """Correct the codes of "one", "the other" and the like in place: they are pronouns if no noun follows."""
    for i, word in enumerate(words):
        ranked = word.text in _RANKED and 0 < i < len(words) - 1
        if ranked and words[i + 1].code in "BV" and words[i - 1].text in ("the", "a"):
            word.code = "H"  # "the third is asleep"
        has_of = i + 2 < len(words) and words[i + 1].text == "of"
        if has_of and word.code == "J" and is_rank(word.text) and i and words[i - 1].code == "D":
            word.code = "N"  # "the oldest of the sisters", "the bigger of the boats"
        if word.text not in _PRONOUNS and word.text not in ("neither", "none"):
            continue
        if word.text == "dozen" and word.code == "N" and i + 1 < len(words) and words[i + 1].code in "JN":
            word.code = "M"  # "a dozen eggs"
        if word.text in _NOBODY and word.code == "N":
            word.code = "H"
        if word.text in ("neither", "none") and has_of:
            word.code = "N"
        if word.text not in _MEMBERS or word.code not in "MJDNCH":
            continue
        if has_of and word.text in ("one", "each", "both", "all"):
            word.code = "H" if words[i + 2].code == "H" else "N"  # "one of the dogs"
            continue
        end = i + 1
        while end < len(words) and words[end].code in "AJM":
            end += 1
        following = words[end].code if end < len(words) else ""
        is_alone = following not in ("N", "G") or (following == "G" and end == i + 1)
        gapped = following == "D" and word.text in ("other", "another") and word.code == "J"
        if is_alone and not (
            end == i + 1
            and not gapped
            and (following == "D" or words[end].text == "of" if following else False)
        ):
            if word.text == "one" and i and words[i - 1].text == "other":
                word.text = "other"  # "the other one holds it"
            described = i and words[i - 1].code == "J" and word.text == "one"
            word.code = "N" if described else "H"


@dataclass
class Pronouns:
    """The pronouns of a caption; `resolve` fills `referents` and `owners`."""

    words: Sequence[Word]
    chunks: Sequence[Chunk]
    sentence_of: Sequence[int]
    """Sentence number of each chunk."""
    subjects: Sequence[int]
    """Subject chunk of each sentence, or -1."""
    links_of: Callable[[int], Sequence[int]]
    """Function that returns the chunks that are related to a chunk."""
    acted_on: Collection[int]
    """Chunks that are objects of verbs."""
    referents: dict[int, int] = field(default_factory=dict)
    """Pronoun chunk -> the chunk that the pronoun means."""
    owners: dict[int, int] = field(default_factory=dict)
    """Chunk -> its owner ("his hat")."""
    _last: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Pronoun -> the last sentence with this pronoun, and its referent there."""
    _group: int = -1
    """Chunk of the group that "one" and "the other" belong to."""

    def resolve(self) -> None:
        """Find the referents and owners, in order. "The smaller one" gets the name of an earlier object, in place."""
        for k, chunk in enumerate(self.chunks):
            text = self.words[chunk.head].text
            if chunk.name:
                if self.words[chunk.start].text in POSSESSIVES and (owner := self._owner(k)) >= 0:
                    self.owners[k] = owner
                if text in ("one", "ones") and chunk.name == text:
                    number = self.sentence_of[k]
                    _rename(chunk, [self.chunks[j] for j in range(k) if self.sentence_of[j] == number])
            elif (referent := self._referent(k, text)) >= 0:
                self.referents[k] = referent

    def _owner(self, k: int) -> int:
        """Return the chunk that owns chunk k ("his hat"), or -1."""
        words, chunks, number = self.words, self.chunks, self.sentence_of[k]
        start = chunks[k].start
        linked = self.links_of(k)
        held = start and words[start - 1].text in ("in", "on")  # "a frog in its beak"
        holders = [h for j in linked for h in self.links_of(j)] if held else []
        begins = k and not linked and self.sentence_of[k - 1] != number
        # "A tiger lies in the shade. Its tail ..."
        before = [self.subjects[number - 1]] if begins else []
        before = [self.referents.get(j, self.owners.get(j, j)) for j in before]
        subject = self.subjects[number]
        their = words[start].text == "their"
        if their and subject >= 0 and is_living(chunks[subject].name):
            linked = [j for j in linked if j < 0 or is_living(chunks[j].name)]
        rows = (holders, linked, before, [subject] if their else [], range(k), [subject])
        return _first_owner(words, chunks, k, rows)

    def _referent(self, k: int, text: str) -> int:
        """Return the chunk that the pronoun `text` at chunk k means, or -1."""
        named = [j for j in range(k) if self.chunks[j].name]
        earlier = [j for j in named if not self.chunks[j].frame and not self.chunks[j].negated]
        if text in _MEMBERS or text in _RANKED:
            if text == "one" or self._group < 0:
                self._group = self._find_group(k, text, earlier)
            return self._group
        end = self.chunks[k].end
        if text == "it" and re.match("BA?J[WTK]", "".join(word.code for word in self.words[end : end + 4])):
            return -1  # "it is obvious that"
        referent = self._personal(k, text, earlier)
        if referent >= 0:
            self._last[text] = self.sentence_of[k], referent
        return referent

    def _find_group(self, k: int, text: str, earlier: list[int]) -> int:
        plural = [j for j in earlier if _is_plural(self.words, self.chunks[j])]
        nearby = [j for j in plural if self.sentence_of[j] == self.sentence_of[k]]
        picked = [j for j in earlier if self.words[self.chunks[j].start].text == "one"]
        picked = [j for j in picked if self.chunks[j].name != "one"]
        if not (nearby or picked or plural) and len(earlier) == 1 and text == "others":
            nearby = earlier  # "the smallest duckling swims behind the others"
        if text == "others" and self.subjects[self.sentence_of[k]] in nearby:
            return self.subjects[self.sentence_of[k]]  # "some men read papers while others sleep"
        if nearby:
            return nearby[-1]
        return (picked or plural)[0] if len(picked or plural) == 1 else -1

    def _personal(self, k: int, text: str, earlier: list[int]) -> int:
        """Return the only chunk that "it", "he", "itself" or the like can mean, or -1."""
        words, chunks, number = self.words, self.chunks, self.sentence_of[k]
        first = k == 0 or self.sentence_of[k - 1] != number
        is_subject = self.subjects[number] == k
        if first and not is_subject and self._last.get(text, (-2, -1))[0] == number - 1:
            return self._last[text][1]  # "On it lies a saw; under it lies a hammer."
        if number and text in ("it", "they") and (is_subject or first):
            before = self.subjects[number - 1]
            # "Its head is tilted. It is on a rock."
            before = self.owners.get(before, self.referents.get(before, before))
            if before >= 0 and chunks[before].name and _fits(words, chunks[before], text):
                return before
        linked = self.links_of(k)
        if text in lexicon.REFLEXIVES and linked:
            return linked[0]
        partners = {self.referents.get(j, j) for j in linked}  # "it is beside it": not the subject again
        possible = [j for j in earlier if j not in partners and _fits(words, chunks[j], text)]
        start = chunks[k].start
        if start > 1 and words[start - 1].code in "VG" and text in ("it", "them"):
            parallel = [j for j in possible if j in self.acted_on and self.sentence_of[j] == number]
            possible = parallel[-1:] or possible  # "one stirs a sauce while the other tastes it"
        if len(possible) > 1 and number and self.subjects[number - 1] in possible:
            opening = chunks[next(j for j, n in enumerate(self.sentence_of) if n == number)].start
            if words[opening - 2].code == "X":
                return self.subjects[number - 1]  # "A vase stands on a table. There are roses in it."
        return possible[0] if len(possible) == 1 else -1


def _first_owner(
    words: Sequence[Word], chunks: Sequence[Chunk], k: int, rows: Sequence[Sequence[int]]
) -> int:
    """Return the owner of chunk k, or -1. The first list in `rows` that contains a possible owner decides."""
    pronoun = POSSESSIVES[words[chunks[k].start].text]
    for loosely in (False, True) if pronoun in ("he", "she", "it") else (False,):
        for candidates in rows:
            named = [j for j in candidates if j >= 0 and j != k and chunks[j].name and not chunks[j].frame]
            fitting = [j for j in named if _fits(words, chunks[j], pronoun)]
            if loosely:  # "a cow and her calf", "a baby and its toy"
                is_owner = is_young if pronoun == "it" else is_animal
                fitting = [j for j in named if is_owner(chunks[j].name) and not _is_plural(words, chunks[j])]
            living = [j for j in fitting if is_living(chunks[j].name)]
            if len({chunks[j].name for j in living}) == 1:
                return living[0]
            if fitting:
                return fitting[0] if len(set(fitting)) == 1 else -1
    return -1


def fits(words: Sequence[Word], chunks: Sequence[Chunk], k: int, pronoun: str) -> bool:
    """Return whether a pronoun can refer to chunk k."""
    chunk = chunks[k]
    return k >= 0 and bool(chunk.name) and not chunk.frame and _fits(words, chunk, pronoun)


def _rename(chunk: Chunk, before: Sequence[Chunk]) -> None:
    named = [other for other in before if other.name and not other.frame]
    described = [other for other in named if other.attributes]
    if named:
        chunk.name = (described or named)[-1].name


def _is_plural(words: Sequence[Word], chunk: Chunk) -> bool:
    text = words[chunk.head].text
    return lexicon.noun_lemma(text) != text or any(a.isdigit() and a != "1" for a, _ in chunk.attributes)


def _fits(words: Sequence[Word], chunk: Chunk, pronoun: str) -> bool:
    head = chunk.name.rpartition(" ")[2]
    plural = _is_plural(words, chunk)
    male = head in _MALE or (head.endswith("man") and head not in _FEMALE | _THINGS)
    female = head in _FEMALE or head.endswith("woman")
    person = _is_person(chunk.name)
    if pronoun in _HE:
        return not plural and (person or (male and not female))
    if pronoun in _SHE:
        return not plural and (person or female)
    if pronoun in _THEY:
        return plural or (head in _SAME_IN_PLURAL and words[chunk.start].text not in ("a", "an", "one"))
    human = male or female or (person and head not in _PERSONS_OR_THINGS)
    shaped = head == "snowman" or head in _THINGS
    return pronoun in ("it", "itself") and not plural and (shaped or not human)
