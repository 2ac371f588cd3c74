"""Score scene graphs as FACTUAL's evaluator does: Set Match, SPICE and Soft-SPICE.

Each score compares two graphs. Set Match and SPICE lie from 0 to 1, Soft-SPICE (a mean cosine) from -1 to 1. The text
form of a graph is "( boats , tie to , dock ) , ( boats , is , 5 )". The definitions are those of FACTUAL (Li et al.,
ACL Findings 2023) in its package FactualSceneGraph 0.7.3, with the settings of its test script: both graphs are
lemmatized, and synonymous tuples of one graph stay separate. Synonyms come from the files of WordNet 3.0.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sclip.benchmark.rounds import BenchmarkError

__all__ = ["Fact", "WordNet", "facts", "phrases", "set_match", "soft_spice", "spice"]

Fact = tuple[str, ...]
"""(subject, predicate, object), (object, "is", attribute), or (object,)."""

Synset = tuple[str, str]
"""WordNet's name of a set of synonyms: (part of speech, offset in its data file)."""

_NOUN_ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
)  # fmt: skip
_VERB_ENDINGS = (
    ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
)  # fmt: skip
_ADJECTIVE_ENDINGS = (("er", ""), ("est", ""), ("er", "e"), ("est", "e"))
"""WordNet's rules for replacing the ending of a word, in the order of its manual page morphy(7WN)."""


@dataclass(frozen=True)
class WordNet:
    """WordNet's words, in lower case with "_" for spaces, and the base forms of inflected words ("run" for "ran")."""

    synsets: Mapping[str, frozenset[Synset]]
    bases: Mapping[str, frozenset[str]]
    """Base forms of each irregular form of a noun, verb, adjective or adverb: "better" -> {"good", "well"}."""
    nouns: frozenset[str]
    noun_bases: Mapping[str, tuple[str, ...]]
    """Base forms of each irregular form of a noun, in WordNet's order: "mice" -> ("mouse",)."""

    @classmethod
    def read(cls, folder: Path) -> WordNet:
        """Read `index.*` and `*.exc` from a folder of WordNet's files. Raises BenchmarkError if a file is missing."""
        synsets: dict[str, set[Synset]] = defaultdict(set)
        bases: dict[str, dict[str, tuple[str, ...]]] = {}
        nouns = frozenset[str]()
        try:
            for part in ("noun", "verb", "adj", "adv"):
                lines = (folder / f"index.{part}").read_text(encoding="utf-8").splitlines()
                # lemma pos synset_cnt p_cnt [pointer...] sense_cnt tagsense_cnt offset...; licence lines are indented
                entries = [line.split() for line in lines if not line.startswith(" ")]
                for word, _, count, *rest in entries:
                    synsets[word].update((part, offset) for offset in rest[-int(count) :])
                if part == "noun":
                    nouns = frozenset(word for word, *_ in entries)
                forms = map(str.split, (folder / f"{part}.exc").read_text(encoding="utf-8").splitlines())
                bases[part] = {form: tuple(words) for form, *words in forms}
        except (OSError, ValueError) as error:
            raise BenchmarkError(
                f"--wordnet {folder}: {error}: name the folder that holds index.noun, noun.exc and the like of "
                "WordNet 3.0 (Debian's wordnet-base, or NLTK's corpus wordnet, unpacked)"
            ) from error
        irregular = {form for part_bases in bases.values() for form in part_bases}
        return cls(
            {word: frozenset(offsets) for word, offsets in synsets.items()},
            {
                form: frozenset().union(*(part_bases.get(form, ()) for part_bases in bases.values()))
                for form in irregular
            },
            nouns,
            bases["noun"],
        )

    def noun(self, word: str) -> str:
        """Return the shortest noun that WordNet lists among a word's forms ("boats" -> "boat"), else the word.

        As in NLTK's WordNetLemmatizer, every word is taken for a noun ("as" -> "a").
        """
        forms = self.noun_bases.get(word) or _detached(word, (*_NOUN_ENDINGS, ("ves", "f")))
        return min((form for form in (word, *forms) if form in self.nouns), key=len, default=word)

    def synsets_of(self, phrase: str) -> frozenset[Synset]:
        """Return the synsets of a phrase and of its base form, as SPICE looks them up; empty for an unknown phrase."""
        word = "_".join(phrase.lower().split())
        bases = self.bases.get(word) or (self._base(word),)
        return frozenset().union(*(self.synsets.get(form, frozenset()) for form in (word, *bases)))

    def _base(self, word: str) -> str:
        if word.endswith("ful"):
            return word.removesuffix("ful")
        if word.endswith("ss") or len(word) <= 2:
            return word
        forms = _detached(word, _NOUN_ENDINGS + _VERB_ENDINGS + _ADJECTIVE_ENDINGS)
        return next((form for form in forms if form in self.synsets), word)


def _detached(word: str, endings: tuple[tuple[str, str], ...]) -> list[str]:
    return [word.removesuffix(ending) + other for ending, other in endings if word.endswith(ending)]


def facts(graph: str, wordnet: WordNet) -> frozenset[Fact]:
    """Parse the text form of a graph into facts. Each word except "is" is lemmatized as a noun."""
    parsed = set()
    for fact in re.split(r"\)\s*,\s*\(", graph):
        parts = fact.strip("() ").split(",")
        if any(parts):
            parsed.add(
                tuple(
                    " ".join(word if word == "is" else wordnet.noun(word) for word in part.split())
                    for part in parts
                )
            )
    return frozenset(parsed)


def set_match(candidate: frozenset[Fact], gold: frozenset[Fact]) -> float:
    """Return 1 if both graphs hold the same facts in the same words, else 0."""
    return float(candidate == gold)


def spice(candidate: frozenset[Fact], gold: frozenset[Fact], wordnet: WordNet) -> float:
    """Return F1 over the tuples of two graphs: objects, pairs of object and attribute, relations.

    Equal tuples match first. Then two remaining tuples match if they have equally many parts, and the first parts are
    synonyms, the second parts are synonyms, and so on.
    """
    ours, theirs = _tuples(candidate), _tuples(gold)
    matched = len(ours & theirs)
    # A word that WordNet does not know has no synset, so it matches nothing here, not even itself.
    unmatched = [[wordnet.synsets_of(part) for part in fact] for fact in sorted(theirs - ours, key=" ".join)]
    for fact in sorted(ours - theirs, key=" ".join):
        senses = [wordnet.synsets_of(part) for part in fact]
        for index, other in enumerate(unmatched):
            if len(senses) == len(other) and all(one & two for one, two in zip(senses, other, strict=True)):
                del unmatched[index]
                matched += 1
                break
    return 2 * matched / max(len(ours) + len(theirs), 1)


def phrases(graph: frozenset[Fact]) -> list[str]:
    """Return the phrases that Soft-SPICE compares: objects, each attribute before its object, and relations."""
    return sorted({" ".join(fact[::-1] if len(fact) == 2 else fact) for fact in _tuples(graph)})


def soft_spice(candidate: NDArray[np.float32], gold: NDArray[np.float32]) -> float:
    """Return the mean score of the candidate's phrases; a phrase scores its largest cosine with any gold phrase.

    Both arguments are unit features [phrases, D]. If a graph has no phrase, the score is 0.
    """
    return float((candidate @ gold.T).max(axis=1).mean()) if len(candidate) and len(gold) else 0.0


def _tuples(graph: frozenset[Fact]) -> set[Fact]:
    tuples: set[Fact] = set()
    for subject, *rest in graph:
        tuples.add((subject,))
        if len(rest) == 1 or (len(rest) == 2 and rest[0] == "is"):
            tuples.add((subject, rest[-1]))
        elif rest:
            tuples |= {(rest[-1],), (subject, " ".join(rest[:-1]), rest[-1])}
    return tuples
