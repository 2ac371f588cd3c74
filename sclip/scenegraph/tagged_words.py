"""Turn spaCy's tokens into tagged words: merge spatial phrases, and correct the tagger's mistakes.

The tokens of "t-shirt" become one word, and so do those of a preposition ("on the left side of"). Then rules correct
typical mistakes of the tagger, which was trained on news.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sclip.scenegraph import lexicon
from sclip.scenegraph.expressions import find_expressions
from sclip.scenegraph.missing_verbs import find_verbs
from sclip.scenegraph.retagging import ING_BOTH, ING_NOUNS, retag, sentence_start
from sclip.scenegraph.tokens import Token, read_tokens

if TYPE_CHECKING:
    from spacy.tokens import Doc

CODES = {
    "DT": "D", "PDT": "D", "PRP$": "D", "WP$": "D", "CD": "M", "JJ": "J", "JJR": "J", "JJS": "J", "AFX": "J",
    "RB": "A", "RBR": "A", "RBS": "A", "NN": "N", "NNS": "N", "NNP": "N", "NNPS": "N", "VBG": "G", "VBN": "E",
    "VB": "V", "VBZ": "V", "VBP": "V", "VBD": "V", "MD": "B", "IN": "P", "TO": "T", "RP": "R", "CC": "C",
    ",": ",", "POS": "S", "PRP": "H", "EX": "X", "WDT": "W", "WP": "W", "WRB": "K", ".": ".", ":": ".",
}  # fmt: skip
"""Penn Treebank tag -> code, a letter for the part of speech. The rules match patterns of these letters.

D determiner, M number, J adjective, A adverb, N noun, G -ing form, E participle, V finite verb, B auxiliary or
copula, P preposition, T to, R particle, C conjunction, S possessive, H pronoun, X existential "there", W relative
pronoun, K subordinator ("while"), L a place with no "of" after it ("on the left"), Q quotation, I a time or something
else that no picture shows, O anything else.
"""

_NO_VERBS = "parking something anything nothing everything spring sting sterling hearing".split()
_ING_NOUNS = ING_NOUNS | ING_BOTH | frozenset(_NO_VERBS)
_POSTURES = frozenset(
    """waits sits stands lies lays rests hangs sleeps grazes floats poses leans swims eats looks flies perches hovers
    walks runs jumps lands rolls climbs marches strolls wanders crouches kneels talks reads watches holds
    sleep sit lie eat""".split()
)
_AMOUNTS = frozenset("more less fewer many much few long well soon far".split())
_BACKGROUNDS = frozenset(("background", "backdrop"))
_BEHIND = frozenset(("on", "against", "over"))
_STARTS = (
    lexicon.PLACE_PREPOSITIONS
    | {phrase[0] for phrase in lexicon.MULTIWORD_PREPOSITIONS}
    | {"more", "less", "as", "close"}
)
_JOINS = ("-", "than")
_CODES = {"side by side": "A", "thumbs-up": "N"}  # phrases that are no prepositions
_SUBORDINATORS = ("while", "as", "because", "if", "than")
_PLURAL = re.compile("[a-z]s$")
_PRONOUNS = frozenset(
    "it them him he she they itself themselves himself herself one another each eachother".split()
)


@dataclass(slots=True)
class Word:
    """One word of a caption, made of one or more tokens."""

    text: str
    """Lower-case text, or the graph's form of a merged preposition."""
    code: str  # a letter of CODES
    span: tuple[int, int]  # characters
    dep: str  # spaCy's dependency label
    head: int = -1  # index of the word that this word depends on; its own index at the root
    owner: bool = False  # whether a possessive is part of a merged place phrase: "on its right"
    fixed: bool = False  # whether the word is a proper name, a title or a quotation


def read_words(doc: Doc) -> tuple[list[Word], int]:
    """Return the words of a parsed caption, in order, and its shape (`SceneGraph.shape`)."""
    tokens, shape = read_tokens(doc)
    lower = [token.lower for token in tokens]
    words: list[Word] = []
    indices = [0] * len(doc)
    expressions = find_expressions(tokens, lower)
    following = [*lower[1:], ""]
    end = 0
    for i, token in enumerate(tokens):
        if i < end:
            continue
        owner = fixed = False
        expression = expressions.get(i)
        if expression:
            end, text, code, fixed = expression
        elif token.lower in _STARTS or following[i] in _JOINS:
            end, text, code, owner = _merge(tokens, lower, i)
        else:
            text, code = _single(tokens, i)
            end = i + 1
        if not code:
            continue
        indices[token.i] = len(words)
        if end == i + 1:
            words.append(Word(text, code, (token.idx, token.end), token.dep_, token.head, owner, fixed))
            continue
        last = tokens[end - 1]
        for merged in tokens[i:end]:
            indices[merged.i] = len(words)
        # Head and label come from the last token of a joined word ("t-shirt"), the first token of a preposition,
        # or the first token of an expression that has its head outside the expression.
        anchor = token if code in "PL" else last
        if expression:
            inside = range(token.i, last.i + 1)
            anchor = next((t for t in tokens[i:end] if t.head not in inside), anchor)
        words.append(Word(text, code, (token.idx, last.end), anchor.dep_, anchor.head, owner, fixed))
    for word in words:
        word.head = indices[word.head]
    retag(words)
    _correct(words)
    find_verbs(words)
    if "isolated" in lower or not _BACKGROUNDS.isdisjoint(lower):
        _attach_background(words)
    return words, shape


def _attach_background(words: list[Word]) -> None:
    """Attach "on a white background" and "isolated" to the first object shown, not to the noun just before."""
    for i, word in enumerate(words):
        index = i
        if word.text in _BACKGROUNDS and word.code == "N":
            index -= 1
            while index > 0 and words[index].code in "DJMN":
                index -= 1
        elif word.text != "isolated" or i + 1 == len(words):
            continue
        isolated = word.text == "isolated" and words[i + 1].text in _BEHIND
        if not isolated and (words[index].text not in _BEHIND or words[index - 1].text == "isolated"):
            continue
        first = _first_shown(words, index)
        if first >= 0:
            words[index].head = first


def _first_shown(words: list[Word], end: int) -> int:
    """Return the first noun in words[:end] that is not a measure ("bottles" in "a set of bottles"), or -1."""
    for j in range(end):
        after = words[j + 1] if j + 1 < end else None
        if words[j].code == "N" and (after is None or (after.code != "N" and after.text != "of")):
            return j
    return -1


def _merge(tokens: list[Token], lower: list[str], i: int) -> tuple[int, str, str, bool]:
    """Return (index after the last token, text, code, owner) of the word that starts at token i."""
    for length in (4, 3, 2):
        form = lexicon.MULTIWORD_PREPOSITIONS.get(tuple(lower[i : i + length]))
        if form and i + length <= len(lower):
            return i + length, form, _CODES.get(form, "P"), False
    phrase = _place_phrase(lower, i)
    if phrase:
        return phrase
    compared = _comparison(tokens, lower, i)
    if compared > i:
        return compared, " ".join(lower[i:compared]), "P", False
    if lower[i : i + 3] == ["close", "up", "of"]:
        return i + 2, "close-up", "N", False
    end = i + 1
    while (
        end + 1 < len(tokens)
        and lower[end] == "-"
        and not tokens[end - 1].whitespace_
        and not tokens[end].whitespace_
    ):
        end += 2
    if end > i + 1:
        text = "".join(lower[i:end])
        describes = end < len(tokens) and tokens[end].tag_ == "JJ"  # "an all-year seasonal pitch"
        return end, text, "N" if tokens[end - 1].tag_.startswith("NN") and not describes else "J", False
    return end, *_single(tokens, i), False


def _single(tokens: list[Token], i: int) -> tuple[str, str]:
    token = tokens[i]
    text, code = token.lower, CODES.get(token.tag_, "O")
    following = tokens[i + 1].lower if i + 1 < len(tokens) else ""
    if code == "P" and text == "that":
        code = "K" if token.dep_ == "mark" else "W"
    elif code == "P" and text == "as" and token.dep_ == "prep" and i and tokens[i - 1].tag_ == "VBN":
        pass  # "dressed as a pirate"
    elif code == "P" and (
        (token.dep_ == "mark" and text != "with" and following not in ("them", "him"))
        or text in _SUBORDINATORS
    ):
        code = "K"
    elif text in lexicon.COPULAS and code in "VGEB":
        code = "B"
    return lexicon.PREPOSITION_FORMS.get(text, text) if code in "PJA" else text, code


def _comparison(tokens: list[Token], lower: list[str], i: int) -> int:
    """Return the index after a comparison that begins at i ("taller than", "as tall as"); else return i."""
    if tokens[i].tag_ in ("JJR", "RBR") and lower[i] not in _AMOUNTS and lower[i + 1 : i + 2] == ["than"]:
        return i + 2
    if lower[i] in ("more", "less", "as") and lower[i + 2 : i + 3] == ["as" if lower[i] == "as" else "than"]:
        # "is as long as a bus", but not "as long as it rains"
        measured = lower[i + 1] == "long" and i and lower[i - 1] in lexicon.COPULAS
        return (
            i + 3 if tokens[i + 1].tag_ in ("JJ", "RB") and (measured or lower[i + 1] not in _AMOUNTS) else i
        )
    return i


def _place_phrase(lower: list[str], i: int) -> tuple[int, str, str, bool] | None:
    """Return (end, form, code, owner) of a place phrase: "on the left side of" (P), "on its right" (L)."""
    j = i
    n = len(lower)
    if lower[j] not in lexicon.PLACE_PREPOSITIONS:
        return None
    j += 1
    determiner = ""
    if j < n and lower[j] in lexicon.PLACE_DETERMINERS:
        determiner = lower[j]
        j += 1
    adjectives: list[str] = []
    while (
        j < n
        and lower[j] in lexicon.PLACE_ADJECTIVES
        and (j + 1 < n and (lower[j + 1] in lexicon.PLACE_NOUNS or lower[j + 1] in lexicon.PLACE_ADJECTIVES))
    ):
        adjectives.append(lower[j])
        j += 1
    if j >= n or lower[j] not in lexicon.PLACE_NOUNS:
        return None
    noun = lower[j]
    j += 1
    form = _place_form(noun, lower[i], determiner, adjectives)
    if j < n and lower[j] == "of":
        return j + 1, form, "P", False
    if j < n and lower[j] in ("a", "an", "the") and noun in ("front", "top", "side", "back"):
        return j, form, "P", False
    if determiner in ("its", "his", "her", "their"):
        ends = j >= n or not lower[j].isalpha() or lower[j] in ("and", "is", "are", "with")
        return (j, form, "L", True) if ends else None
    if j >= n or lower[j] in (".", ",", "and", "is", "are"):
        return j, form, "L", False
    return None


def _place_form(noun: str, preposition: str, determiner: str, adjectives: list[str]) -> str:
    if noun in ("side", "sides"):
        for word in (*adjectives, determiner):
            if word == "left":
                return "at the left of"
            if word == "right":
                return "on the right side of"
            if word in ("both", "either"):
                return f"on {word} sides of" if word == "both" else "on either side of"
    if noun == "back" and preposition == "in":
        return "in back of"
    return lexicon.PLACE_NOUNS[noun]


def _correct(words: list[Word]) -> None:
    for i, word in enumerate(words):
        text, code = word.text, word.code
        if code == "N":
            if _may_be_wrong(text):
                _correct_noun(words, i)
        elif code in "VGEO":
            _correct_verb(words, i)
        elif (code == "D" and text in _PRONOUNS) or text == "eachother":
            after = words[i + 1].code if i + 1 < len(words) else ""
            if text == "eachother" or after not in ("N", "J", "M", "G", "E", "D"):
                word.code = "H"


@lru_cache(maxsize=1 << 16)
def _may_be_wrong(text: str) -> bool:
    listed = text in _POSTURES or text in lexicon.ATTRIBUTE_NOUNS or text in lexicon.COLOURS
    return listed or text.endswith(("ing", "s"))


def _correct_noun(words: list[Word], i: int) -> None:
    word = words[i]
    text = word.text
    before = words[i - 1].code if i else ""
    after = words[i + 1].code if i + 1 < len(words) else ""
    if (
        text.endswith("ing")
        and before == "N"
        and text not in _ING_NOUNS
        and after in ("D", "P", "M", "J", "N", "", "R", "A", ".")
    ) or (text.endswith("ing") and before == "B" and text not in _ING_NOUNS):
        word.code = "G"
    elif (
        text.endswith("ing") and i > 1 and words[i - 1].text in lexicon.COLOURS and words[i - 2].text == "in"
    ):
        word.code = "G"  # "a man in white playing tennis"
    elif before == "N" and after == "D" and word.dep != "poss" and _PLURAL.search(text):
        word.code = "V"  # "a man rides a horse", tagged as a plural
    elif (
        _is_verb_form(text) and before in "NHJ" and _ends_relative(words, i) and after in ("B", "V", ".", "")
    ):
        word.code = "V"  # "the ball that the dog chases"
    elif after == "H" and _is_verb_form(text) and words[i + 1].text in ("it", "him", "them"):
        word.code = "V"  # "the other climbs it"
    elif text in _POSTURES and after in ("P", ".", "") and before in ("N", "J", "C"):
        if before == "J" and i > 1 and words[i - 2].code in "DJM" and _is_thing(words[i - 1].text):
            words[i - 1].code, word.code = "N", "V"  # "a red square hovers above"
        elif before == "N" or (
            before == "C" and any(w.code == "V" for w in words[sentence_start(words, i) : i])
        ):
            word.code = "V"  # "a school bus waits in traffic", "jumps over a bench and lands on"
    elif text in lexicon.ATTRIBUTE_NOUNS and _describes(words, i):
        word.code = "J"  # "grey and red furniture"
    elif (
        text in lexicon.COLOURS
        and before in ("D", "J")
        and (after == "V" or (after == "J" and "".join(w.code for w in words[i + 2 : i + 3]) in ".BP"))
        and words[i + 1].text not in lexicon.COLOURS
        and lexicon.is_noun(words[i + 1].text)
    ):
        word.code, words[i + 1].code = "J", "N"  # "the purple cross"


def _correct_verb(words: list[Word], i: int) -> None:
    word = words[i]
    text = word.text
    before = words[i - 1].code if i else ""
    after = words[i + 1].code if i + 1 < len(words) else ""
    described = before == "J" and i > 1 and words[i - 2].code == "D"
    if i == 0 and word.code in "VO" and after in ("G", "B", "E") and lexicon.is_noun(text):
        word.code = "N"  # "Cow eating grass"
    elif word.code == "V" and described and words[i - 1].text != "other" and lexicon.is_noun(text):
        word.code = "N"  # "the purple cross on a wall"
    elif text in lexicon.COLOURS:
        word.code = word.code if before == "T" and after in ("D", "H") else "J"  # "to color a book"
    elif word.code == "V" and text.endswith(("ed", "wn", "en")) and after in ("P", "", "."):
        word.code = "E"
    elif word.code in "GE" and after and before != "N" and _modifies(words, i):
        word.code = "J"
    elif text == "eachother":
        word.code = "H"
    elif word.code == "O" and re.fullmatch(r"\W+", text):
        word.code = "."


def _describes(words: list[Word], i: int) -> bool:
    """Return whether the noun at i and words coordinated with it modify one noun: "grey and red furniture"."""
    j = i + 1
    while j + 1 < len(words) and words[j].code in "C," and words[j + 1].code in "JN":
        other = words[j + 1].text
        described = i > 0 and words[i - 1].code == "J"
        mixed = described and (other in lexicon.COLOURS) != (words[i].text in lexicon.COLOURS)
        if mixed or (other not in lexicon.ATTRIBUTE_NOUNS and words[j + 1].code != "J"):
            return False  # "white foam and blue sky"
        j += 2
    in_row = j > i + 1 or (i > 1 and words[i - 1].code in "C," and words[i - 2].code == "J")
    return in_row and j < len(words) and words[j].code in "JN"


def _is_verb_form(text: str) -> bool:
    return text.endswith("s") and not text.endswith("ss") and lexicon.verb_lemma(text) != text


def _ends_relative(words: list[Word], i: int) -> bool:
    """Return whether the word at i ends a relative clause, such as "chases" in "the ball that the dog chases"."""
    j = i - 1
    while j >= 0 and words[j].code in "JMN":
        j -= 1
    if j > 0 and words[j].code == "D" and words[j - 1].code == "N" and words[i].code == "N":
        return i + 1 < len(words) and words[i + 1].code in "BV"  # "the ladder the boy climbs leans"
    while j >= 0 and words[j].code in "DJMN":
        j -= 1
    return j >= 0 and words[j].code == "W" and j < i - 1


def _is_thing(text: str) -> bool:
    return text not in lexicon.COLOURS and lexicon.is_noun(text)


def _modifies(words: list[Word], i: int) -> bool:
    """Return whether the participle at i describes the noun after it ("a smiling boy")."""
    j = i + 1
    while j < len(words) and words[j].code in "JMGE":
        j += 1
    if j >= len(words) or words[j].code != "N":
        return False
    before = words[i - 1].code if i else "P"
    if before in "DJM" or (before in "CP" and words[i].code == "E") or (i and words[i - 1].text == "with"):
        return True  # also "a bonfire and decorated drums", "with blowing hair"
    if i and words[i - 1].code == "B":
        return False
    return words[i].dep in ("amod", "compound") and words[i].head > i
