"""Read COCO-Order and Flickr-Order (ARO) from BLIP's retrieval JSON, and make four reordered captions of each caption.

Source: ARO (Yuksekgonul et al., ICLR 2023): `aro_datasets.py`, `perturbations.py` and `retrieval.py` in its
`dataset_zoo` (MIT). Every caption of the test split gets four false ones, made at random:

- the nouns exchange places, and so do the adjectives (spaCy's tokens, tags NN* and JJ*);
- all tokens except nouns and adjectives exchange places;
- the caption is cut into groups of three tokens (NLTK's), and the tokens exchange places within each group;
- the groups of three exchange places.

All five captions are then cleaned and cut to 30 words (`pre_caption`). The score is Precision@1. A tie is won: the
authors take the argmax with the true caption first. A short caption may equal one of its false captions; the chance
level counts equal captions once. The authors' false captions differ from run to run; here, the caption's name seeds the
draw.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random

from sclip.evaluate.benchmarks import About, left
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.features import Features
from sclip.evaluate.picture import Picture
from sclip.evaluate.readers.karpathy import captioned
from sclip.evaluate.result import Result
from sclip.evaluate.retrieval import Captioned
from sclip.scenegraph import Parser
from sclip.seeding import generator

__all__ = ["MAX_WORDS", "Order", "false_captions", "pre_caption", "read"]

MAX_WORDS = 30
_NOUNS = {"NN", "NNS", "NNP", "NNPS"}
_ADJECTIVES = {"JJ", "JJR", "JJS"}
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")  # NLTK's splitter, which the authors use, needs a download

Tagged = Sequence[tuple[str, str]]
"""Tokens from spaCy, each with its Penn tag."""


def read(about: About, file: Path, images: Path | None = None, split: str = "test") -> Order:
    """Return the task of a `coco_karpathy_test.json` or `flickr30k_test.json`. Karpathy's own JSON works too.

    All captions of an image count. Raises BenchmarkDataError naming file, case and field.
    """
    return Order(about, captioned(file, images, split, 0))


@dataclass(frozen=True)
class Order:
    """Task of choosing the caption whose words are in order. The false captions are made on first use."""

    about: About
    images: Sequence[Captioned]
    skips_unreadable: bool = False

    def sizes(self) -> dict[str, int]:
        """Return the number of cases."""
        return {"cases": sum(len(image.captions) for image in self.images)}

    def pictures(self) -> list[Picture]:
        """Return the pictures."""
        return [image.picture for image in self.images]

    def captions(self) -> list[str]:
        """Return the true and false captions of all cases."""
        return self.choice.captions()

    def without(self, pictures: Collection[Picture]) -> Order:
        """Return the task without these pictures. Raises BenchmarkDataError if no picture is left."""
        kept = [image for image in self.images if image.picture not in pictures]
        return replace(self, about=left(self.about, self.images, kept, "images"), images=kept)

    def result(self, features: Features) -> Result:
        """Return the accuracy, ARO's Precision@1."""
        return self.choice.result(features)

    @cached_property
    def choice(self) -> Choice:
        """Cases of five captions each: the true one and four false ones."""
        named = [
            (f"{image.name}#{number}", image.picture, caption)
            for image in self.images
            for number, caption in enumerate(image.captions)
        ]
        tags = Parser().tags([caption for _, _, caption in named])
        cases = [
            ChoiceCase(name, picture, pre_caption(caption), false_captions(name, caption, tagged))
            for (name, picture, caption), tagged in zip(named, tags, strict=True)
        ]
        return Choice(self.about, cases, ties_win=True)


def false_captions(name: str, caption: str, tagged: Tagged) -> tuple[str, ...]:
    """Return the four false captions of a case, in the authors' order; `tagged` holds its spaCy tokens."""
    rng = generator("aro order", 0, 0, name)
    words = [text for text, _ in tagged]
    nouns, adjectives = (
        [i for i, (_, tag) in enumerate(tagged) if tag in tag_set] for tag_set in (_NOUNS, _ADJECTIVES)
    )
    rest = [i for i, (_, tag) in enumerate(tagged) if tag not in _NOUNS | _ADJECTIVES]
    trigrams = _trigrams(_tokens(caption))
    within = [rng.sample(trigram, len(trigram)) for trigram in trigrams]
    moved = rng.sample(trigrams, len(trigrams))
    token_lists = (
        _exchanged(_exchanged(words, nouns, rng), adjectives, rng),
        _exchanged(words, rest, rng),
        [token for trigram in within for token in trigram],
        [token for trigram in moved for token in trigram],
    )
    return tuple(pre_caption(" ".join(tokens)) for tokens in token_lists)


def pre_caption(caption: str) -> str:
    """Clean a caption as ARO and BLIP do: lower case, spaces for the characters .!"()*#:;~ and at most 30 words."""
    caption = re.sub(r"[.!\"()*#:;~]", " ", caption.lower())
    caption = re.sub(r"\s{2,}", " ", caption).rstrip("\n").strip(" ")
    return " ".join(caption.split(" ")[:MAX_WORDS])


def _exchanged(words: Sequence[str], places: Sequence[int], rng: Random) -> list[str]:
    shuffled = list(words)
    for target, source in zip(places, rng.sample(places, len(places)), strict=True):
        shuffled[target] = words[source]
    return shuffled


def _trigrams(tokens: Sequence[str]) -> list[list[str]]:
    return [list(tokens[start : start + 3]) for start in range(0, len(tokens), 3)]


def _tokens(caption: str) -> list[str]:
    # NLTK's tokenizer takes one sentence at a time.
    return [token for sentence in _SENTENCE.split(caption) for token in _tokenize()(sentence)]


def _tokenize() -> Callable[[str], list[str]]:
    # NLTK takes seconds to import, and only this benchmark needs it.
    from nltk.tokenize import NLTKWordTokenizer

    tokenize: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
    return tokenize
