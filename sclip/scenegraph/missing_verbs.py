"""Find verbs that the tagger took for nouns: "a woman with a ribbon kneads dough".

If a verb is far from its subject, the tagger may take the -s of the verb for a plural. Three signs show the mistake:
the dictionary has no such noun, the clause lacks a finite verb, or verbs precede ("opens a box and counts").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sclip.scenegraph import lexicon
from sclip.scenegraph.reference import is_living
from sclip.scenegraph.retagging import ACTIONS, NOUNS_FIRST, sentence_start

if TYPE_CHECKING:
    from sclip.scenegraph.tagged_words import Word

_VERBAL = ACTIONS | frozenset(
    """wind drift curve twist tower loom lurk wander roam dangle sway swirl tumble trickle bounce hop limp creep sneak
    squat doze giggle whisper wrestle juggle bow howl roar nestle drip spin lead stretch leap cross drop race steam
    rise wag crow pour circle lap cling""".split()
)
"""Words that captions use far more often as verbs than as nouns."""
_AIMS = frozenset("at into onto towards".split())
_SINGULAR = frozenset("a an the one his her its their this that every each another".split())


def find_verbs(words: Sequence[Word]) -> None:
    """Set the code V for verbs that the tagger took for nouns, in place."""
    start = 0
    for i, word in enumerate(words):
        if word.code == ".":
            _find(words, start, i)
            start = i + 1
    _find(words, start, len(words))


def _find(words: Sequence[Word], start: int, end: int) -> None:
    finite = [
        i
        for i in range(start, end)
        if words[i].code in "VB" and not (i > start and words[i - 1].code in "BT" and words[i].code == "V")
    ]
    opened = [i for i in range(start, end) if words[i].code in "WK" or words[i].text == "whose"]
    for i in range(start + 1, end):
        word = words[i]
        if word.code != "N" or word.fixed or not _is_form(word.text):
            continue
        after = words[i + 1].code if i + 1 < end else ""
        clauses = sum(j < i for j in opened)
        lacks = len(finite) <= len(opened) and sum(j < i for j in finite) <= clauses
        if _is_in_row(words, i, after) or _is_second(words, i, after) or _is_sure(words, i, after) or (
            lacks and _is_needed(words, start, i, after, clauses)
        ):  # fmt: skip
            word.code = "V"
            finite.append(i)


def _is_form(text: str) -> bool:
    return lexicon.is_verb(text) and not text.endswith(("ing", "ed"))


def _is_sure(words: Sequence[Word], i: int, after: str) -> bool:
    """Return whether a word after a noun or comma must be a verb: the dictionary has no such noun or adjective."""
    text = words[i].text
    if lexicon.is_noun(text) or lexicon.is_noun(lexicon.verb_lemma(text)) or lexicon.is_adjective(text):
        return False
    return words[i - 1].code in "N," and (not after or after in "DPNJMRAHCBV,")


def _is_in_row(words: Sequence[Word], i: int, after: str) -> bool:
    """Return whether a supposed plural continues a series of verbs: "opens a box and counts the coins"."""
    text = words[i].text
    if words[i - 1].code not in ",C" or not _is_third_person(text) or i < 2:
        return False
    verb = words[i - 3 if words[i - 2].code == "R" else i - 2]  # "stands up, bows"
    if verb.code == "V" and verb.text.endswith("s"):
        return after in ("C", ",", "D", "P", "H", "")
    before = words[sentence_start(words, i) : i - 1]
    acts = any(word.code == "V" and word.text.endswith("s") for word in before)
    then = words[i + 2] if after == "C" and i + 2 < len(words) else words[i]
    if acts and words[i - 1].code == "," and then.code == "V" and then.text.endswith("s"):
        return True  # "lifts a beam, turns and lowers it"
    if words[i - 1].code != "C" or not acts or text in lexicon.SILENT_MODIFIERS:
        return False
    base, noun = lexicon.noun_lemma(text), words[i - 2].text
    if after in ("P", "", "R") and lexicon.noun_lemma(noun) == noun and base not in NOUNS_FIRST:
        aims = after == "P" and words[i + 1].text in _AIMS  # "lands on a roof and pecks at"
        return base in _VERBAL or aims
    return after in ("D", "H")


def _is_second(words: Sequence[Word], i: int, after: str) -> bool:
    """Return whether a noun is the verb of a second clause: "peels" in "and a cook peels potatoes"."""
    text, noun = words[i].text, words[i - 1].text
    if words[i - 1].code != "N" or i < 3 or words[i - 2].code != "D":
        return False
    if words[i - 3].code in "CK" and after in ("N", "D", "J", "M", "H"):
        acts = any(word.code == "V" for word in words[sentence_start(words, i) : i - 3])
        return acts and is_living(noun) and _is_third_person(text) and words[i - 2].text in _SINGULAR
    is_plural = lexicon.noun_lemma(noun) != noun or noun == "sheep"  # "where the sheep graze is dry"
    relative = words[i - 3].code in "WK" or words[i - 3].text == "where"
    return relative and is_plural and after in ("B", "V") and lexicon.noun_lemma(text) == text


def _is_third_person(text: str) -> bool:
    base = lexicon.noun_lemma(text)
    return text.endswith("s") and not text.endswith("ss") and base != text and lexicon.is_verb(base)


def _is_needed(words: Sequence[Word], start: int, i: int, after: str, clauses: int) -> bool:
    """Return whether a word may be the main verb that its sentence lacks."""
    before, base = words[i - 1].code, lexicon.noun_lemma(words[i].text)
    if words[start].code == "P" and not clauses and before in "NH" and after in ("D", "M"):
        return base in _VERBAL  # "down the hill roll three pumpkins"
    head = next((j for j in range(start, i) if words[j].code == "N"), -1)
    while 0 <= head < i - 1 and words[head + 1].code == "N":
        head += 1
    if head < 0 or any(words[j].code not in "DJMA" for j in range(start, head) if words[j].code != "N"):
        return False
    singular = lexicon.noun_lemma(words[head].text) == words[head].text and words[start].text in _SINGULAR
    third = _is_third_person(words[i].text)
    if third != singular or base in NOUNS_FIRST:  # subject and verb do not agree
        return False
    object_ = after in ("D", "H")
    if before == ",":  # "the clown, a fat man, juggles lemons"
        apart = words[head + 1].code == "," and head + 2 < i - 1 and words[head + 2].code in "DEG"
        return apart and third and (object_ or after in ("P", "", "N", "J"))
    if clauses:
        predicate = before == "J" and words[i - 2].code == "B"
        free = (before in "NVER" and not (before == "V" and after == "N")) or predicate
        return free and (object_ or after in ("P", "", "N", "J", "M") or base in _VERBAL)
    if before != "N" or not third:
        return False
    if is_living(words[i - 1].text) and words[start].text in ("a", "an") and after in ("J", "N", "M"):
        return True  # "a hardy fisherman braves heavy snow"
    return (object_ and head < i - 1) or (base in _VERBAL and after in ("P", "", "R", "A"))
