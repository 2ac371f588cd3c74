"""Resolve pronouns: "one ... the other", "the smaller one", "he", "it", "they".

A pronoun is resolved only if it can mean exactly one of the objects named before; else it stays unresolved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from sclip.scenegraph import lexicon

if TYPE_CHECKING:
    from sclip.scenegraph.chunks import Chunk
    from sclip.scenegraph.tagged_words import Word

_MEMBERS = frozenset("one other others another each both all".split())
"""Words for members of a group that the caption named before."""
_RANKED = frozenset("first second third fourth last".split())
_MALE = frozenset("man boy father son husband king grandfather gentleman brother male groom uncle".split())
_FEMALE = frozenset("woman girl lady mother daughter wife queen bride grandmother sister female aunt".split())
_PERSONS = frozenset(
    """person child kid baby toddler adult teenager infant cyclist artist guard chef cook pedestrian student kid
    athlete model actor protester""".split()
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
    teacher farmer officer waiter pitcher catcher cyclist artist tourist leader toddler actor actress waitress
    swimmer barista sailor baker painter conductor gardener hiker climber doctor nurse jogger juggler drummer
    musician fisher brother mother father sister soldier passenger coach mechanic captain author owner clown wizard king
    prince princess witch knight monk nun priest groomsman bridesmaid tailor cobbler butcher plumber carpenter
    electrician gymnast acrobat magician ballerina professor scientist student pupil patient pilot sailor shepherd
    hostess goalkeeper pianist violinist guitarist cellist drummer fiddler trumpeter shopper vendor seller merchant
    barber hairdresser librarian cashier clerk judge lawyer beggar thief pirate cowboy cowgirl potter weaver
    blacksmith photographer tourist visitor traveler traveller hunter archer boxer wrestler sprinter diver cheerleader
    bather bartender cleaner driver writer poet speaker senator president politician grandson granddaughter nephew niece
    sculptor jockey athlete stranger neighbor neighbour friend trainer instructor keeper singer rower golfer bowler
    protester mechanic builder bricklayer welder miner engineer veterinarian dentist surgeon paramedic firefighter
    celebrity comedian rapper footballer cricketer striker midfielder quarterback defender manager designer""".split()
)
_ONLY_PERSONS = _PERSONS | set(_ROLES) - {"pitcher", "coach", "cleaner", "keeper", "runner"}
"""Nouns that name persons and never things, so "it" cannot refer to them."""
_ANIMALS = frozenset(
    """dog cat horse bear elephant giraffe zebra cow sheep bird puppy kitten monkey wolf fox mouse cub lion tiger lamb
    goat pig duck goose swan squirrel rabbit deer owl penguin calf foal""".split()
)

_SAME_IN_PLURAL = frozenset("sheep deer fish cattle poultry moose bison police crew".split())


def is_living(name: str) -> bool:
    """Return whether a name surely means a person or a common animal."""
    head = name.rpartition(" ")[2]
    return (
        head in _MALE
        or head in _FEMALE
        or head in _PERSONS
        or head in _ANIMALS
        or head.endswith(("man", "people", *_ROLES))
    )


def is_young(name: str) -> bool:
    """Return whether a name means a person who may be called "it"."""
    return name.rpartition(" ")[2] in ("baby", "child", "infant", "toddler")


def is_animal(name: str) -> bool:
    """Return whether a name surely means a common animal."""
    return name.rpartition(" ")[2] in _ANIMALS


@lru_cache(maxsize=1 << 12)
def is_rank(word: str) -> bool:
    """Return whether a word is a comparative or superlative: "the bigger of the boats"."""
    return word.endswith(("est", "er")) and lexicon.is_adjective(word) and not lexicon.is_noun(word)


def mark_members(words: Sequence[Word]) -> None:
    """Change codes in place: "one", "the other" and the like become pronouns if no noun follows.

    Some become nouns ("the oldest of the sisters") or numbers ("a dozen eggs"). The text of "one" in "the other one"
    becomes "other".
    """
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
            word.code = "M"
        if word.text in _NOBODY and word.code == "N":
            word.code = "H"
        if word.text in ("neither", "none") and has_of:
            word.code = "N"
        if word.text not in _MEMBERS or word.code not in "MJDNCH":
            continue
        if has_of and word.text in ("one", "each", "both", "all"):
            word.code = "H" if words[i + 2].code == "H" else "N"
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


def resolve(
    words: Sequence[Word],
    chunks: Sequence[Chunk],
    sentence_of: Sequence[int],
    subjects: Sequence[int],
    links_of: Callable[[int], Sequence[int]],
    acted_on: Collection[int],
) -> tuple[dict[int, int], dict[int, int]]:
    """Return two maps: pronoun chunk -> the chunk that the pronoun means, and chunk -> its owner ("his hat").

    This function names chunks like "the smaller one". `sentence_of` holds the sentence number of each chunk, and
    `subjects` the subject chunk of each sentence, or -1. `links_of(k)` returns the chunks related to chunk k, and
    `acted_on` holds the chunks that are objects of verbs.
    """
    referents: dict[int, int] = {}
    owners: dict[int, int] = {}
    last: dict[str, tuple[int, int]] = {}  # pronoun -> its last sentence and referent
    group = -1
    for k, chunk in enumerate(chunks):
        text = words[chunk.head].text
        if chunk.name:
            if chunk.name and words[chunk.start].text in POSSESSIVES:
                linked = links_of(k)
                held = words[chunk.start - 1].text in ("in", "on") and chunk.start  # "a frog in its beak"
                holders = [h for j in linked for h in links_of(j)] if held else []
                begins = k and not linked and sentence_of[k - 1] != sentence_of[k]
                # "A tiger lies in the shade. Its tail ..."
                last_subject = [subjects[sentence_of[k] - 1]] if begins else []
                last_subject = [referents.get(j, owners.get(j, j)) for j in last_subject]
                subject = subjects[sentence_of[k]]
                if words[chunk.start].text == "their" and subject >= 0 and is_living(chunks[subject].name):
                    linked = [j for j in linked if j < 0 or is_living(chunks[j].name)]
                rows = (
                    holders,
                    linked,
                    last_subject,
                    [subject] if words[chunk.start].text == "their" else [],
                    range(k),
                    [subject],
                )
                owner = _owner(words, chunks, k, rows)
                if owner >= 0:
                    owners[k] = owner
            if text in ("one", "ones") and chunk.name == text:
                _rename(
                    chunk, [c for c, s in zip(chunks[:k], sentence_of, strict=False) if s == sentence_of[k]]
                )
            continue
        earlier = [j for j in range(k) if chunks[j].name and not chunks[j].frame and not chunks[j].negated]
        if text in _MEMBERS or text in _RANKED:
            plural = [j for j in earlier if _is_plural(words, chunks[j])]
            nearby = [j for j in plural if sentence_of[j] == sentence_of[k]]
            if text == "one" or group < 0:
                picked = [
                    j for j in earlier if words[chunks[j].start].text == "one" and chunks[j].name != "one"
                ]
                if not (nearby or picked or plural) and len(earlier) == 1 and text == "others":
                    nearby = earlier  # "the smallest duckling swims behind the others"
                if text == "others" and subjects[sentence_of[k]] in nearby:
                    nearby = [subjects[sentence_of[k]]]  # "some men read papers while others sleep"
                group = nearby[-1] if nearby else (picked or plural)[0] if len(picked or plural) == 1 else -1
            if group >= 0:
                referents[k] = group
            continue
        codes = "".join(word.code for word in words[chunk.end : chunk.end + 4])
        if text == "it" and re.match("BA?J[WTK]", codes):
            continue  # "it is obvious that"
        number = sentence_of[k]
        first = k == 0 or sentence_of[k - 1] != number
        if first and subjects[number] != k and last.get(text, (-2, -1))[0] == number - 1:
            referents[k] = last[text][1]  # "On it lies a saw; under it lies a hammer."
            continue
        if number and text in ("it", "they") and (subjects[number] == k or first):
            before = subjects[number - 1]
            # "Its head is tilted. It is on a rock."
            before = owners.get(before, referents.get(before, before))
            if before >= 0 and chunks[before].name and _fits(words, chunks[before], text):
                referents[k] = before
                continue
        if text in lexicon.REFLEXIVES and links_of(k):
            referents[k] = links_of(k)[0]
            continue
        partners = {referents.get(j, j) for j in links_of(k)}  # "it is beside it": not the subject again
        possible = [j for j in earlier if j not in partners and _fits(words, chunks[j], text)]
        if chunk.start > 1 and words[chunk.start - 1].code in "VG" and text in ("it", "them"):
            parallel = [j for j in possible if j in acted_on and sentence_of[j] == number]
            possible = parallel[-1:] or possible  # "one stirs a sauce while the other tastes it"
        if len(possible) > 1 and number and subjects[number - 1] in possible:
            start = next(j for j, s in enumerate(sentence_of) if s == number)
            if words[chunks[start].start - 2].code == "X":
                possible = [subjects[number - 1]]  # "A vase stands on a table. There are roses in it."
        if len(possible) == 1:
            referents[k] = possible[0]
        if k in referents:
            last[text] = number, referents[k]
    return referents, owners


def _owner(words: Sequence[Word], chunks: Sequence[Chunk], k: int, rows: Sequence[Sequence[int]]) -> int:
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
    male = head in _MALE or (head.endswith("man") and head not in _FEMALE)
    female = head in _FEMALE or head.endswith("woman")
    person = head in _PERSONS or head.endswith(_ROLES)
    if pronoun in _HE:
        return not plural and (person or (male and not female))
    if pronoun in _SHE:
        return not plural and (person or female)
    if pronoun in _THEY:
        return plural or (head in _SAME_IN_PLURAL and words[chunk.start].text not in ("a", "an", "one"))
    return pronoun in ("it", "itself") and not plural and not (male or female or head in _ONLY_PERSONS)
