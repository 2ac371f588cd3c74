"""Find the noun phrases ("chunks") of a caption, with the name and the attributes of each phrase."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from sclip.scenegraph import lexicon
from sclip.scenegraph.reference import is_animal, is_living
from sclip.scenegraph.tagged_words import Word

# Letters of `CODES`: determiners, modifiers (maybe with "and" or a comma), nouns; a pronoun; a quotation.
_NOUN_PHRASE = re.compile(r"D*(?:A?[JM](?:,?C?(?=A?J))?)*N+|H|Q")


@dataclass(slots=True)
class Chunk:
    """A noun phrase, or a pronoun, whose name is empty. Integers are word indices; `head` is the last word.

    The spans in `attributes` are of characters.
    """

    start: int
    head: int
    end: int
    name: str = ""
    name_start: int = 0
    attributes: list[tuple[str, tuple[int, int]]] = field(default_factory=list)
    phrase_start: int = -1
    """Index of "a" in "a group of people", if a measure stands before the phrase; -1 means no measure."""
    fixed: bool = False
    frame: bool = False
    """Whether the phrase names no object, but describes the picture: "in the background"."""
    negated: bool = False


def find_chunks(words: Sequence[Word]) -> list[Chunk]:
    """Return the noun phrases of a caption in order, including pronouns."""
    codes = "".join(word.code for word in words)
    chunks: list[Chunk] = []
    for match in _NOUN_PHRASE.finditer(codes):
        start, end = match.span()
        receiver = _receiver(words, start, end) if start and words[start - 1].code in "VGE" else 0
        if receiver:
            chunks.append(_read(words, start, receiver))
        chunks.append(_read(words, receiver or start, end))
    if codes.count("M") == 1:  # "one dog" means "a dog", unless the caption has another number ("two cats")
        for chunk in chunks:
            chunk.attributes = [entry for entry in chunk.attributes if entry[0] != "1"]
    return chunks


def _receiver(words: Sequence[Word], start: int, end: int) -> int:
    """Return the index after the receiver ("the ducks" in "feeds the ducks bread"), or 0 if there is none."""
    if words[end - 2].code != "N":
        return 0
    verb = lexicon.verb_lemma(words[start - 1].text)
    if verb not in lexicon.GIVING:
        return 0
    for i in range(start, end - 1):
        text, following = words[i].text, words[i + 1].text
        receives = words[start].code == "D" and is_living(text) and lexicon.noun_lemma(following) != following
        if is_animal(text) and verb not in ("feed", "give", "throw", "bring"):
            receives = False  # "passes the horse stables"
        if words[i].code == "N" and (
            receives or words[i].dep == "dative" or lexicon.noun_lemma(text) != text
        ):
            return i + 1
    return 0


def adjectives(words: Sequence[Word], indices: Sequence[int]) -> list[tuple[str, tuple[int, int]]]:
    """Return the (attribute, span in the caption) pairs of the words at `indices`. "dark red" is one attribute."""
    attributes: list[tuple[str, tuple[int, int]]] = []
    pending: list[int] = []

    def flush() -> None:
        if pending:
            text = " ".join(words[i].text for i in pending)
            text = lexicon.NUMBERS.get(text, lexicon.ATTRIBUTE_FORMS.get(text, text))
            attributes.append((text, (words[pending[0]].span[0], words[pending[-1]].span[1])))
            pending.clear()

    for i in indices:
        word = words[i]
        if word.code in "C,":
            flush()
        elif word.code == "A":
            flush()
            if word.text.endswith("ly") and word.text not in lexicon.SILENT_MODIFIERS:
                pending.append(i)
        elif word.text in lexicon.SILENT_MODIFIERS:
            flush()
        else:
            last = words[pending[-1]].text if pending else ""
            if word.text in lexicon.COLOURED and (last in lexicon.COLOURS or word.code == "N"):
                continue  # "a brown color couch"
            shade = last in lexicon.SHADES and word.text in lexicon.COLOURS
            adverb = pending and words[pending[-1]].code == "A"
            joined = (
                (word.text == "dozen" and last in lexicon.NUMBERS)
                or word.text in lexicon.JOINED_BEHIND
                or (last, word.text) in lexicon.ATTRIBUTE_PAIRS
            )
            if not shade and not adverb and not joined:
                flush()
            pending.append(i)
    if pending and words[pending[-1]].code != "A":
        flush()
    return attributes


def _read(words: Sequence[Word], start: int, end: int) -> Chunk:
    if words[start].code == "H":
        return Chunk(start, end - 1, end)
    if words[start].code == "Q":
        return Chunk(start, end - 1, end, words[start].text, start, fixed=True)
    final = words[end - 1]
    if end - start == 1 or (end - start == 2 and words[start].code == "D"):
        return Chunk(start, end - 1, end, _name("", final.text, final.fixed), end - 1, [], fixed=final.fixed)
    nouns = end
    while nouns > start and words[nouns - 1].code == "N":
        nouns -= 1
    # Leading nouns that describe ("brick wall") are attributes; other nouns are part of the name ("tennis ball").
    first = nouns
    while first < end - 1:
        pair = (words[first].text, words[first + 1].text)
        if pair in lexicon.ATTRIBUTE_PAIRS and first + 2 < end:
            first += 2
        elif (
            pair[0] in lexicon.COLOURED
            or (pair[0] in lexicon.ATTRIBUTE_NOUNS and pair not in lexicon.COMPOUND_NAMES)
            or (first > start and (words[first - 1].text, pair[0]) in lexicon.ATTRIBUTE_PAIRS)
        ):
            first += 1
        else:
            break
    name_start = first
    if first == nouns and nouns > start:
        last = words[nouns - 1].text
        describes = words[nouns].text in ("one", "ones") or (
            last.endswith("ing") and is_living(words[nouns].text)
        )
        if (last in lexicon.COMPOUND_ADJECTIVES and not describes) or (
            last,
            words[nouns].text,
        ) in lexicon.COMPOUND_NAMES:
            name_start -= 1
    modifiers = [i for i in range(start, name_start) if words[i].code != "D"]
    modifiers += [i for i in range(max(nouns, start), first) if i not in modifiers]
    before = " ".join(w.text for w in words[name_start : end - 1])
    name = _name(before, final.text, final.fixed)
    attributes = adjectives(words, modifiers) if modifiers else []
    return Chunk(start, end - 1, end, name, name_start, attributes, fixed=final.fixed)


@lru_cache(maxsize=1 << 16)
def _name(before: str, head: str, fixed: bool) -> str:
    """Return a name as graphs write it: "tennis ball" for "tennis balls". A `fixed` name stays plural."""
    forms = lexicon.NAME_FORMS
    written = f"{before} {head}".lstrip()
    name = written if fixed else f"{before} {lexicon.noun_lemma(head)}".lstrip()
    return forms.get(written) or forms.get(name, name)
