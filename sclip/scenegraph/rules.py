"""Connect the tagged words of a caption to its scene graph: objects, attributes, relations.

Captions are strings of noun phrases with a connector between each two ("is sitting on", "'s", "and"), so the
rules walk over the connectors from left to right: the connector gives the predicate, and the dependency parse
says only which earlier phrase is its subject, where there is a choice. A rule that reads the whole tree breaks
at every wrong arc; captions without a verb, which newspapers do not have, are where the parser errs most.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sclip.scenegraph import lexicon
from sclip.scenegraph.chunks import adjectives, find_chunks
from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph, Span
from sclip.scenegraph.tagged_words import Word


@dataclass(slots=True)
class _Connector:
    """What stands between two noun phrases, read."""

    conjunction: bool = False
    clause: bool = False
    """A subordinator, semicolon or full stop: the next phrase begins a clause."""
    possessive: bool = False
    copula: bool = False
    relative: bool = False
    verb: int = -1
    preposition: int = -1
    place: int = -1
    passive_by: bool = False
    adjectives: list[int] = field(default_factory=list)


class _Extractor:
    """The walk over one caption; holds the graph as it grows."""

    def __init__(self, words: list[Word]) -> None:
        self.words = words
        self.chunks = find_chunks(words)
        self.chunk_of = {i: k for k, chunk in enumerate(self.chunks) for i in range(chunk.start, chunk.end)}
        self.groups: dict[int, list[int]] = {}
        """Chunk -> the coordinated chunks that it stands in a row with, itself last."""
        self.subjects_of: dict[int, list[int]] = {}
        """Word index of a verb -> chunks that do it."""
        self.transitive: set[int] = set()
        self.roles: dict[int, list[tuple[int, str, Span, bool]]] = {}
        """Chunk -> relations that it ends: (other chunk, predicate, span, reversed)."""
        self.attributes: list[tuple[int, str, Span]] = []
        self.measured: dict[int, int] = {}
        """Chunk of a measure ("a pair of") -> the chunk that stands for it in the graph."""

    def run(self) -> None:
        previous = -1
        for k, chunk in enumerate(self.chunks):
            start = self.chunks[k - 1].end if k else 0
            connector = self._read(start, chunk.start, previous)
            self._connect(previous, k, connector)
            previous = k
        if self.chunks:
            end = self._read(self.chunks[-1].end, len(self.words), previous)
            self._close(previous, end)

    # -- connectors

    def _read(self, start: int, end: int, previous: int) -> _Connector:
        """Read words start..end; verbs without an object on the way become attributes."""
        c = _Connector()
        words = self.words
        for i in range(start, end):
            word = words[i]
            code = word.code
            if code in "C,":
                if c.verb >= 0 and c.preposition < 0:
                    self._intransitive(previous, c)
                if c.adjectives:
                    continue
                c.conjunction = True
            elif code in ".K":
                if c.verb >= 0 and c.preposition < 0:
                    self._intransitive(previous, c)
                c.clause = c.clause or code == "K" or word.text in (".", ";")
            elif code == "S":
                c.possessive = True
            elif code == "W":
                c.relative = True
            elif code == "B":
                c.copula = True
            elif code in "VGE":
                if word.text in lexicon.AUXILIARIES and i + 1 < end and words[i + 1].code in "EV":
                    continue
                c.verb, c.preposition = i, -1
                self.subjects_of[i] = self._subjects(i, previous, c)
            elif code == "P":
                if word.text == "by" and c.verb >= 0 and words[c.verb].code == "E":
                    c.passive_by = True
                if word.text == "have":
                    c.verb = i
                    self.subjects_of[i] = self._subjects(i, previous, c)
                elif not (c.preposition >= 0 and word.text == "of"):
                    c.preposition = i
            elif code == "T":
                if i + 1 >= end or words[i + 1].code not in "VB":
                    c.preposition = i
            elif code == "L":
                c.place = i
            elif code in "JM" and (c.copula or i == start):
                c.adjectives.append(i)
        return c

    def _subjects(self, verb: int, previous: int, c: _Connector) -> list[int]:
        """Return the chunks that do the verb: by the parse where it says so, else the phrase before it."""
        if previous < 0:
            return []
        words = self.words
        if c.relative:
            return self._row(previous)
        for i, word in enumerate(words[:verb]):
            if word.head == verb and word.dep in ("nsubj", "nsubjpass") and i in self.chunk_of:
                return self._row(self.chunk_of[i])
        i = verb
        for _ in range(4):
            head = words[i].head
            if head == i or head > verb:
                break
            k = self.chunk_of.get(head)
            if k is not None:
                return self._row(k)
            if head in self.subjects_of:
                return self.subjects_of[head]
            i = head
        return self._row(previous)

    def _row(self, k: int) -> list[int]:
        return self.groups.get(k, [k])

    def _intransitive(self, previous: int, c: _Connector) -> None:
        word = self.words[c.verb]
        for k in self.subjects_of.get(c.verb, []):
            if not c.passive_by:
                self.attributes.append((k, word.text, word.span))
        c.verb = -1

    # -- relations

    def _connect(self, previous: int, k: int, c: _Connector) -> None:
        if previous < 0:
            self.groups[k] = [k]
            return
        self._predicate_adjectives(previous, c)
        words = self.words
        if c.possessive:
            self._relate(self._row(previous), k, "have", (words[self.chunks[k].start].span[0],) * 2)
        elif c.verb >= 0:
            self._verb(k, c)
        elif c.preposition >= 0:
            self._preposition(previous, k, c)
        elif c.conjunction and not c.clause and not c.copula:
            self._coordinate(previous, k)
        self.groups.setdefault(k, [k])

    def _verb(self, k: int, c: _Connector) -> None:
        words = self.words
        subjects = self.subjects_of[c.verb]
        lemma = lexicon.verb_lemma(words[c.verb].text)
        span = (words[c.verb].span[0], words[max(c.verb, c.preposition)].span[1])
        if c.preposition < 0:
            self.transitive.add(c.verb)
            self._relate(subjects, k, lemma, span)
        elif c.passive_by or (lemma in lexicon.COVERING and words[c.verb].code == "E"):
            self.transitive.add(c.verb)
            predicate = (
                lemma
                if words[c.preposition].text in ("by", "in", "with")
                else f"{lemma} {words[c.preposition].text}"
            )
            self._relate(subjects, k, predicate, span, reverse=True)
        elif lemma == "dress" and words[c.preposition].text == "in":
            self._relate(subjects, k, "wear", span)
        else:
            self._relate(subjects, k, f"{lemma} {words[c.preposition].text}", span)

    def _preposition(self, previous: int, k: int, c: _Connector) -> None:
        words = self.words
        word = words[c.preposition]
        if word.text == "of":
            self._of(previous, k, word)
            return
        head = word.head
        if head in self.subjects_of and not c.conjunction:
            subjects = self.subjects_of[head]
            predicate = word.text
            if head not in self.transitive:
                predicate = f"{lexicon.verb_lemma(words[head].text)} {word.text}"
            self._relate(subjects, k, predicate, word.span)
            return
        subject = self.chunk_of.get(head, previous)
        if subject >= k:
            subject = previous
        self._relate(self._row(subject), k, word.text, word.span)

    def _of(self, previous: int, k: int, word: Word) -> None:
        owner, part = self.chunks[k], self.chunks[previous]
        head = self.words[part.head].text
        if not owner.name or not part.name:
            return
        if head in lexicon.MEASURES:
            self._measure(previous, k)
        elif head in lexicon.CONTAINERS:
            self._relate([previous], k, lexicon.CONTAINERS[head], word.span, reverse=True)
        else:
            self._relate([previous], k, "have", word.span, reverse=True)

    def _measure(self, previous: int, k: int) -> None:
        """Let the thing measured take the place of its measure: "a group of people" is people."""
        part, owner = self.chunks[previous], self.chunks[k]
        attribute = lexicon.MEASURES[self.words[part.head].text]
        if attribute:
            owner.attributes.insert(0, (attribute, self.words[part.head].span))
        owner.phrase_start = part.phrase_start if part.phrase_start >= 0 else part.start
        self.roles[k] = self.roles.pop(previous, [])
        self.groups[k] = [g for g in self._row(previous) if g != previous] + [k]
        self.measured[previous] = k
        for i in range(part.start, part.end):  # what hangs on the measure hangs on the thing
            self.chunk_of[i] = k

    def _coordinate(self, previous: int, k: int) -> None:
        """Put chunk k into the row of an earlier one, and give it that one's role."""
        other = self.chunk_of.get(self.words[self.chunks[k].head].head, previous)
        if other >= k or other in self.measured:
            other = previous
        row = self._row(other)
        self.groups[k] = [*row, k]
        for member in row:
            self.groups[member] = self.groups[k]
        for role in list(self.roles.get(other, [])):
            self.roles.setdefault(k, []).append(role)

    def _predicate_adjectives(self, previous: int, c: _Connector) -> None:
        if not c.adjectives:
            return
        subject = self._row(previous)
        for i in c.adjectives[:1]:
            head = self.words[i].head
            for word in range(self.chunks[previous].end):
                if (
                    self.words[word].head == head
                    and self.words[word].dep.startswith("nsubj")
                    and word in self.chunk_of
                ):
                    subject = self._row(self.chunk_of[word])
        for text, span in adjectives(self.words, c.adjectives):
            for k in subject:
                self.attributes.append((k, text, span))

    def _close(self, previous: int, c: _Connector) -> None:
        self._predicate_adjectives(previous, c)
        if c.place >= 0:
            self._place_phrase(previous, c)
        elif c.verb >= 0:
            self._intransitive(previous, c)

    def _place_phrase(self, k: int, c: _Connector) -> None:
        """Resolve "a square with a circle on its right": the circle stands at the square."""
        word = self.words[c.place]
        owners = [role for role in self.roles.get(k, []) if role[1] in ("with", "have") and not role[3]]
        if word.owner and owners:
            self.roles[k] = [role for role in self.roles[k] if role not in owners]
            self.roles.setdefault(owners[0][0], []).append((k, word.text, word.span, False))

    def _relate(self, subjects: list[int], k: int, predicate: str, span: Span, reverse: bool = False) -> None:
        if not self.chunks[k].name:
            self._pronoun(subjects, predicate, span)
            return
        for subject in subjects:
            if subject != k:
                self.roles.setdefault(k, []).append((subject, predicate, span, reverse))

    def _pronoun(self, subjects: list[int], predicate: str, span: Span) -> None:
        """Resolve "a bowl with a spoon in it": what the bowl is with is in the bowl."""
        for subject in subjects:
            for role in self.roles.get(subject, []):
                owner, link, _, reverse = role
                if link in ("with", "have") and not reverse:
                    self.roles[subject].remove(role)
                    self.roles.setdefault(owner, []).append((subject, predicate, span, False))
                    return

    # -- result

    def graph(self, caption: str) -> SceneGraph:
        words = self.words
        objects: list[Object] = []
        index: dict[int, int] = {}
        attributes: list[Attribute] = []
        for k, chunk in enumerate(self.chunks):
            if not chunk.name or k in self.measured:
                continue
            index[k] = len(objects)
            start = chunk.phrase_start if chunk.phrase_start >= 0 else chunk.start
            end = words[chunk.head].span[1]
            objects.append(
                Object(
                    chunk.name,
                    (words[chunk.name_start].span[0], end),
                    (words[start].span[0], end),
                    fixed=chunk.fixed,
                )
            )
            attributes += [Attribute(index[k], text, span) for text, span in chunk.attributes]
        attributes += [Attribute(index[k], text, span) for k, text, span in self.attributes if k in index]
        relations: list[Relation] = []
        for k, roles in sorted(self.roles.items()):
            for other, predicate, span, reverse in roles:
                if k in index and other in index:
                    pair = (index[k], index[other]) if reverse else (index[other], index[k])
                    relations.append(Relation(pair[0], predicate, pair[1], span))
        unique_relations = {(r.subject, r.predicate, r.object): r for r in reversed(relations)}
        unique_attributes = {(a.object, a.attribute): a for a in reversed(attributes)}
        return SceneGraph(
            caption,
            tuple(objects),
            tuple(sorted(unique_attributes.values(), key=lambda a: (a.span, a.object))),
            tuple(sorted(unique_relations.values(), key=lambda r: (r.span, r.subject, r.object))),
        )


def extract(caption: str, words: list[Word]) -> SceneGraph:
    """Return the scene graph of a caption whose words have been read."""
    extractor = _Extractor(words)
    extractor.run()
    return extractor.graph(caption)
