"""The draft of one caption's scene graph, which the rules fill while they walk over the words.

A draft names noun phrases by their index in `chunks`, because no object is final before the walk ends: a measured noun
replaces its measure ("a pair of shoes"), and a subject may come after its verb.
"""

from __future__ import annotations

from typing import NamedTuple

from sclip.scenegraph import lexicon, reference
from sclip.scenegraph.chunks import find_chunks
from sclip.scenegraph.forms import wearing
from sclip.scenegraph.frames import mark_frames
from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph, Span
from sclip.scenegraph.tagged_words import Word

PENDING = -1
"""Placeholder for the subject of a clause, until the walk reaches that subject."""


class Link(NamedTuple):
    """A relation of one chunk, the link's key in `Draft.links`, to another chunk."""

    other: int  # the other chunk, or PENDING
    predicate: str
    span: Span
    reverse: bool = False  # whether `other` is the object of the relation instead of the subject
    negated: bool = False
    fronted: bool = False
    """Whether the predicate is a preposition before the clause's subject: "On a hill stands a tree"."""


class Draft:
    """Objects, attributes and relations found so far, and the state of the walk."""

    def __init__(self, words: list[Word]) -> None:
        self.words = words
        self.chunks = find_chunks(words)
        mark_frames(words, self.chunks)
        self.chunk_of: dict[int, int] = {}
        self.parsed: dict[int, int] = {}
        """Word index of a verb -> chunk of the verb's first subject in the dependency parse."""
        for k, chunk in enumerate(self.chunks):
            for i in range(chunk.start, chunk.end):
                self.chunk_of[i] = k
                if words[i].dep in ("nsubj", "nsubjpass"):
                    self.parsed.setdefault(words[i].head, k)
        self.groups: dict[int, list[int]] = {}
        """Chunk -> all chunks of its coordination ("a dog and a cat"), itself included."""
        self.subjects_of: dict[int, list[int]] = {}  # word index of a verb -> chunks of its subjects
        self.denied_verbs: set[int] = set()
        self.denied_subjects: set[int] = set()
        """Chunks such as "neither dog": their attributes and relations are negated."""
        self.transitive: dict[int, int] = {}  # word index of a verb -> chunk of its object
        self.prepositions: dict[int, tuple[list[int], str]] = {}
        """Word index of a preposition -> (subject chunks, verb: "sit" in "sits on"; "" means no verb)."""
        self.gaps: dict[int, tuple[int, int]] = {}
        """Subject of a relative clause -> (chunk that the clause describes: "ball" in "the ball that a dog chases";
        word index of "where", or of "to" in "to whom", or -1)."""
        self.parallel: set[int] = set()
        """Coordinated chunks with a preposition of their own: "a man with a hat and a woman with a fan"."""
        self.filled: set[int] = set()  # chunks with a relative clause that the walk has read
        self.adjacent: dict[int, int] = {}  # chunk -> the chunk before it, if no word is between them
        self.links: dict[int, list[Link]] = {}
        self.attributes: list[tuple[int, str, Span, bool]] = []
        """(chunk, attribute, span, whether the attribute is denied)."""
        self.measured: dict[int, int] = {}
        """Chunk of a measure ("a pair of") -> the measured chunk, which replaces it in the graph."""
        self.first = 0  # first chunk of the current clause
        self.front = False
        """Whether the clause's subject is still to come, as after "On the table" in "On the table is a cat"."""
        self.has_verb = False  # whether the walk has read the finite verb of the clause's subject
        self.waits = False  # whether anything was linked to PENDING
        self.main = -1  # chunk of the clause's subject
        self.aliases: dict[int, int] = {}
        """Chunk of an apposition or pronoun -> the chunk that it refers to."""
        self.main_verb = -1
        """Word index of a verb with the subject `main` ("stands" in "On a hill stands a tree"), or -1."""

    def row(self, k: int) -> list[int]:
        """Return chunk k and the chunks coordinated with it."""
        return self.groups.get(k, [k])

    def partners(self, k: int) -> list[int]:
        """Return the chunks at the other ends of chunk k's links."""
        return [link.other for link in self.links.get(k, [])]

    def subject_of(self, verb: int, previous: int) -> int:
        """Return the chunk of a verb's subject in the dependency parse; `previous` if the parse has none before it."""
        # Without a subject, the chunk that the verb depends on counts: "a dog running".
        k = self.parsed.get(verb, self.chunk_of.get(self.words[verb].head, previous))
        return k if k <= previous else previous

    def relate(
        self,
        subjects: list[int],
        k: int,
        predicate: str,
        span: Span,
        reverse: bool = False,
        negated: bool = False,
    ) -> None:
        """Relate subject chunks to their object, chunk k. With `reverse`, chunk k is the subject."""
        if not self.chunks[k].name:
            pronoun = self.words[self.chunks[k].head].text
            if pronoun in lexicon.PERSONAL and self._bind_pronoun(subjects, predicate, span, pronoun):
                return
        predicate = wearing(predicate, self.words[self.chunks[k].head].text)
        for subject in subjects:
            if subject != k:
                self.links.setdefault(k, []).append(Link(subject, predicate, span, reverse, negated))

    def _bind_pronoun(self, subjects: list[int], predicate: str, span: Span, pronoun: str) -> bool:
        """Resolve "it" in "a bowl with a spoon in it" to the bowl. Return whether a link changed."""
        is_bound = False
        for subject in subjects:
            link = next(filter(has, self.links.get(subject, [])), None)
            if link:
                near = min(self.row(subject)) - 1
                owner = near if reference.fits(self.words, self.chunks, near, pronoun) else link.other
                self.links[subject].remove(link)
                self.links.setdefault(owner, []).append(Link(subject, predicate, span))
                is_bound = True
        return is_bound

    def replace(self, previous: int, k: int) -> None:
        """Let chunk k take over the links, coordination and grammatical role of chunk `previous`."""
        self.links[k] = self.links.pop(previous, [])
        row = [g for g in self.row(previous) if g not in (previous, k)] + [k]
        for member in row:
            self.groups[member] = row
        self.groups[previous] = [previous]
        for verb, object_ in self.transitive.items():
            if object_ == previous:
                self.transitive[verb] = k
        if self.main == previous:
            self.main = k

    def graph(self, caption: str, shape: int) -> SceneGraph:
        """Return the finished graph. Call this method after the walk."""
        words = self.words
        objects: list[Object] = []
        index: dict[int, int] = {}
        attributes: list[Attribute] = []
        for k, chunk in enumerate(self.chunks):
            if not chunk.name or k in self.measured or chunk.frame:
                continue
            if k in self.aliases and self.aliases[k] in index:  # an apposition
                named = index[k] = index[self.aliases[k]]
                attributes += [Attribute(named, text, span) for text, span in chunk.attributes]
                continue
            named = index[k] = len(objects)
            start = chunk.phrase_start if chunk.phrase_start >= 0 else chunk.start
            end = words[chunk.head].span[1]
            span = (words[chunk.name_start].span[0], end)
            phrase = (words[start].span[0], end)
            objects.append(Object(chunk.name, span, phrase, chunk.negated, chunk.fixed))
            for text, span in chunk.attributes:
                attributes.append(Attribute(named, text, span))
        for k, stands_for in self.aliases.items():
            if stands_for in index:
                index[k] = index[stands_for]
        denied = self.denied_subjects
        attributes += [
            Attribute(index[k], text, span, negated or k in denied)
            for k, text, span, negated in self.attributes
            if k in index
        ]
        relations: list[Relation] = []
        for k, links in sorted(self.links.items()):
            for link in links:
                subject, object_ = (k, link.other) if link.reverse else (link.other, k)
                if subject in index and object_ in index and self._differ(index, subject, object_):
                    neither = subject in denied or link.other in denied
                    negated = link.negated or (neither and link.span[0] < link.span[1])
                    negated = negated or self.chunks[subject].negated or self.chunks[object_].negated
                    relations.append(
                        Relation(index[subject], link.predicate, index[object_], link.span, negated)
                    )
        unique_relations = {(r.subject, r.predicate, r.object): r for r in reversed(relations)}
        unique_attributes = {(a.object, a.attribute): a for a in reversed(attributes)}
        return SceneGraph(
            caption,
            tuple(objects),
            tuple(sorted(unique_attributes.values(), key=lambda a: (a.span, a.object))),
            tuple(sorted(unique_relations.values(), key=lambda r: (r.span, r.subject, r.object))),
            shape,
        )

    def _differ(self, index: dict[int, int], subject: int, object_: int) -> bool:
        """Return whether two chunks can be related. One object is related to itself only by words such as "itself"."""
        text = self.words[self.chunks[object_].head].text
        return index[subject] != index[object_] or text in ("other", "another", "each", *lexicon.REFLEXIVES)


def has(link: Link) -> bool:
    """Return whether a link says that `other` has something: its predicate is "have" or ends in "with"."""
    return not link.reverse and (link.predicate == "have" or link.predicate.rpartition(" ")[2] == "with")
