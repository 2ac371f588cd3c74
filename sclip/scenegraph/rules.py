"""Connect the tagged words of a caption to its scene graph: objects, attributes, relations.

Captions are strings of noun phrases with a connector between each two ("is sitting on", "'s", "and"), so the
rules walk over the connectors from left to right: the connector gives the predicate, and the dependency parse
says only which earlier phrase is its subject, where there is a choice. A rule that reads the whole tree breaks
at every wrong arc; captions without a verb, which newspapers do not have, are where the parser errs most.

The walk starts anew at every sentence. What stands before a clause's subject ("On the table is a cat", "Sitting on a
bench, a man reads") is linked to PENDING, which becomes the subject when it is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sclip.scenegraph import lexicon, reference
from sclip.scenegraph.chunks import adjectives, find_chunks
from sclip.scenegraph.connectors import Connector, VerbUse, read_connector
from sclip.scenegraph.forms import wearing, with_particle
from sclip.scenegraph.frames import mark_frames
from sclip.scenegraph.graph import Attribute, Object, Relation, SceneGraph, Span
from sclip.scenegraph.tagged_words import Word

PENDING = -1
"""Stands for the subject of a clause that has not been reached yet."""


@dataclass(frozen=True, slots=True)
class _Link:
    """A relation that ends at some chunk."""

    other: int
    """The chunk at its other end."""
    predicate: str
    span: Span
    reverse: bool = False
    """The other chunk is its object."""
    negated: bool = False
    fronted: bool = False
    """A preposition before its clause's subject: its predicate waits for the clause's verb."""


class _Walk:
    """The walk over one caption; holds the graph as it grows."""

    def __init__(self, words: list[Word]) -> None:
        self.words = words
        self.chunks = find_chunks(words)
        mark_frames(words, self.chunks)
        self.chunk_of = {i: k for k, chunk in enumerate(self.chunks) for i in range(chunk.start, chunk.end)}
        self.groups: dict[int, list[int]] = {}
        """Chunk -> the coordinated chunks that it stands in a row with, itself last."""
        self.subjects_of: dict[int, list[int]] = {}
        """Word index of a verb -> chunks that do it."""
        self.denied_verbs: set[int] = set()
        self.denied_subjects: set[int] = set()
        """Chunks of "neither dog": what is said of them is denied."""
        self.transitive: dict[int, int] = {}
        """Word index of a verb -> its object's chunk."""
        self.prepositions: dict[int, tuple[list[int], str]] = {}
        """Word index of a preposition -> chunks that it binds, and the verb before it in the predicate."""
        self.gaps: dict[int, tuple[int, int]] = {}
        """Subject chunk of a relative clause -> (chunk that the clause is about, preposition or -1)."""
        self.adjacent: dict[int, int] = {}
        """Chunk -> the chunk before it, without a word between them."""
        self.links: dict[int, list[_Link]] = {}
        """Chunk -> relations that it ends."""
        self.attributes: list[tuple[int, str, Span, bool]] = []
        """(chunk, attribute, span, whether it is denied)."""
        self.measured: dict[int, int] = {}
        """Chunk of a measure ("a pair of") -> the chunk that stands for it in the graph."""
        self.first = 0
        """First chunk of the clause."""
        self.front = False
        """Whether all phrases of the clause so far stand before its subject."""
        self.main = -1
        """Chunk of the clause's subject, where phrases stand before it."""
        self.aliases: dict[int, int] = {}
        """Chunk of an apposition -> the chunk that it names again."""
        self.main_verb = -1
        """A verb of that subject without an object: "In front of a house stands a tree"."""

    def run(self) -> None:
        """Walk over all sentences."""
        at = 0
        sentence_of: list[int] = []
        subjects: list[int] = []
        for number, (start, end) in enumerate(_sentences(self.words)):
            previous = -1
            self.front, self.main, self.main_verb = False, -1, -1
            self.first = at
            while at < len(self.chunks) and self.chunks[at].start < end:
                chunk = self.chunks[at]
                sentence_of.append(number)
                self._connect(previous, at, read_connector(self.words, start, chunk.start))
                previous, start = at, chunk.end
                at += 1
            self._finish(previous, read_connector(self.words, start, end))
            self._settle(at)
            subjects.append(self.main)
        stands_for, owners = reference.resolve(
            self.words, self.chunks, sentence_of, subjects, self._partners
        )
        self.aliases |= stands_for
        for k, owner in owners.items():
            if not any(link.other == owner and _has(link) for link in self.links.get(k, [])):
                self._relate([owner], k, "have", (self.words[self.chunks[k].head].span[0],) * 2)

    def _partners(self, k: int) -> list[int]:
        return [link.other for link in self.links.get(k, [])]

    # -- clauses

    def _connect(self, previous: int, k: int, c: Connector) -> None:
        """Read the connector before chunk k."""
        self.groups[k] = [k]
        self._deny(previous, k, c)
        if previous < 0:
            self._open(k, c)
        elif self.front and self._ends_front(k, c):
            self._begin(k, c)
        else:
            self._continue(previous, k, c)

    def _open(self, k: int, c: Connector) -> None:
        """Begin a sentence."""
        words = self.words
        imperative = c.verb >= 0 and words[c.verb].code == "V" and not c.existential
        if c.existential or c.copula >= 0:
            self._begin(k, c)
            return
        for verb in c.verbs:
            self.subjects_of[verb] = [] if imperative else [PENDING]
        if c.verb >= 0:
            self.front = not imperative
            self._verb(k, c)
        elif c.preposition >= 0 and words[c.preposition].text != "of":
            self._front(k, c)
        elif c.preposition >= 0:  # "of the two girls, one wears boots"
            self.front = True
        else:
            self.main = k

    def _front(self, k: int, c: Connector) -> None:
        """Link a phrase that stands before its clause's subject."""
        word = self.words[c.preposition]
        self.front, self.main, self.main_verb = True, -1, -1
        self.prepositions[c.preposition] = ([PENDING], "")
        self.links.setdefault(k, []).append(
            _Link(PENDING, word.text, word.span, negated=c.denied, fronted=True)
        )

    def _is_fronted(self, k: int, c: Connector) -> bool:
        """Whether a preposition in the middle of a sentence belongs to a verb that comes later."""
        if c.preposition < 0 or not (c.conjunction or c.clause):
            return False
        head = self.words[c.preposition].head
        return head >= self.chunks[k].end and self.words[head].code in "VBG"

    def _ends_front(self, k: int, c: Connector) -> bool:
        if c.possessive or c.relative:
            return False
        if c.existential or c.copula >= 0 or any(self.words[v].code == "V" for v in c.verbs):
            return True
        if c.verb >= 0 or c.preposition >= 0:
            return False
        return c.comma or c.clause or not c.conjunction

    def _begin(self, k: int, c: Connector) -> None:
        """Take chunk k for the subject of the clause; a verb before it is its own: "there stands a tree"."""
        self.front, self.main = False, k
        for verb in c.verbs:
            self.subjects_of[verb] = [k]
            self.main_verb = verb

    def _continue(self, previous: int, k: int, c: Connector) -> None:
        words = self.words
        self._read_verbs(previous, c)
        self._predicate_adjectives(previous, c)
        if c.possessive:
            self._possess(previous, k)
        elif c.relative and not c.verbs and c.copula < 0:
            self.gaps[k] = (previous, c.preposition)
        elif c.verb >= 0:
            self._verb(k, c)
        elif self._is_fronted(k, c):
            self._settle(k)
            self.first = k
            self._front(k, c)
        elif c.preposition >= 0:
            self._preposition(previous, k, c)
        elif c.comma and self._is_apposition(previous, k):
            self.aliases[k] = previous
        elif c.conjunction and not c.clause and c.copula < 0:
            self._coordinate(previous, k, c)
        elif self.chunks[previous].end == self.chunks[k].start:
            self._adjoin(previous, k)
        if words[self.chunks[k].start].text == "whose":
            self.gaps.pop(k, None)
            self._relate(self._row(previous), k, "have", (words[self.chunks[k].head].span[0],) * 2)

    def _is_apposition(self, previous: int, k: int) -> bool:
        """Whether chunk k names chunk `previous` again: "the goalkeeper, a tall woman, catches"."""
        words = self.words
        head, subject = words[self.chunks[k].head], words[self.chunks[previous].head]
        return (
            head.dep == "appos"
            and head.head == self.chunks[previous].head
            and words[self.chunks[k].start].text in ("a", "an", "the")
            and subject.dep.startswith("nsubj")
            and subject.head > self.chunks[k].head
        )

    def _adjoin(self, previous: int, k: int) -> None:
        """Connect two phrases without a word between them: "gives a boy a ball", "the ball the dog chases"."""
        words = self.words
        verb = words[self.chunks[k].head].head
        if words[verb].dep == "relcl" and self.chunk_of.get(words[verb].head) == previous:
            self.gaps[k] = (previous, -1)
            return
        self.adjacent[k] = previous
        given = next((v for v, object_ in self.transitive.items() if object_ == previous), -1)
        if given < 0 or lexicon.verb_lemma(words[given].text) not in lexicon.GIVING:
            return
        lemma = lexicon.verb_lemma(words[given].text)
        self.links[previous] = [
            replace(link, predicate=f"{lemma} to") if link.predicate == lemma else link
            for link in self.links.get(previous, [])
        ]
        self._relate(self.subjects_of[given], k, lemma, words[given].span, negated=given in self.denied_verbs)
        self.transitive[given] = k

    def _finish(self, previous: int, c: Connector) -> None:
        """Read what stands behind the last noun phrase of a sentence."""
        if previous < 0:
            return
        c.close()
        self._read_verbs(previous, c)
        self._predicate_adjectives(previous, c)
        if c.place >= 0:
            self._place_phrase(previous, c)

    def _settle(self, end: int) -> None:
        """Put the clause's subject where PENDING stands; without one, nothing is said."""
        subjects = self._row(self.main) if self.main >= 0 and not self.front else []
        verb = f"{lexicon.verb_lemma(self.words[self.main_verb].text)} " if self.main_verb >= 0 else ""
        for k in range(self.first, end):
            links = self.links.get(k, [])
            if any(link.other == PENDING for link in links):
                settled = [link for link in links if link.other != PENDING]
                for link in links:
                    if link.other == PENDING:
                        predicate = verb + link.predicate if link.fronted else link.predicate
                        settled += [replace(link, other=s, predicate=predicate) for s in subjects if s != k]
                self.links[k] = settled

    # -- verbs

    def _subjects(self, verb: int, previous: int, c: Connector) -> list[int]:
        """Return the chunks that do the verb: by the parse where it says so, else the phrase before it."""
        found = self._parsed_subjects(verb, previous, c)
        lemma = lexicon.verb_lemma(self.words[verb].text)
        if self.words[verb].code != "G" or lemma not in lexicon.BODILY or c.comma:
            return found
        for k in found:  # "a man in a red shirt holding a ball": a shirt holds nothing
            if k == PENDING or reference.is_living(self.chunks[k].name):
                continue
            wearers = [link.other for link in self.links.get(k, []) if not link.reverse]
            if wearers and all(w >= 0 and reference.is_living(self.chunks[w].name) for w in wearers):
                return wearers
        return found

    def _parsed_subjects(self, verb: int, previous: int, c: Connector) -> list[int]:
        words = self.words
        if c.relative:
            return self._row(previous)
        for i, word in enumerate(words[:verb]):
            if word.head == verb and word.dep in ("nsubj", "nsubjpass") and i in self.chunk_of:
                k = self.chunk_of[i]
                compared = [link.other for link in self.links.get(k, []) if link.predicate.endswith(" than")]
                return compared or self._row(k)
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

    def _read_verbs(self, previous: int, c: Connector) -> None:
        self.denied_verbs |= c.denied_words
        closed = {use.verb: use for use in c.closed}
        filler = -1
        for verb in c.verbs:
            self.subjects_of[verb] = self._row(filler) if filler >= 0 else self._subjects(verb, previous, c)
            use = closed.get(verb)
            if use is None:
                continue
            if previous in self.adjacent and len(c.verbs) > 1 and filler < 0:
                self.subjects_of[verb] = self._row(previous)
                self.gaps[previous] = (self.adjacent[previous], -1)
            about = self.gaps.get(previous, (-1, -1))[0]
            if self._fill_gap(verb, use.preposition):
                filler = about
                continue
            if use.passive_by:
                continue
            if self.main >= 0 and self.main in self.subjects_of[use.verb] and use.preposition < 0:
                self.main_verb = use.verb
            self._intransitive(use)

    def _intransitive(self, use: VerbUse) -> None:
        text, span = with_particle(self.words, use.verb)
        for k in self.subjects_of[use.verb]:
            if k != PENDING:
                self.attributes.append((k, text, span, use.verb in self.denied_verbs))

    def _fill_gap(self, verb: int, preposition: int = -1) -> bool:
        """Let a relative clause's verb act on what the clause is about: "the ball that the dog chases"."""
        filled = False
        for subject in self.subjects_of[verb]:
            if subject in self.gaps:
                filler, before = self.gaps.pop(subject)
                preposition = before if before >= 0 else preposition
                predicate = lexicon.verb_lemma(self.words[verb].text)
                if preposition >= 0:
                    predicate += f" {self.words[preposition].text}"
                negated = verb in self.denied_verbs
                self._relate(self._row(subject), filler, predicate, self.words[verb].span, negated=negated)
                filled = True
        return filled

    def _verb(self, k: int, c: Connector) -> None:
        words = self.words
        subjects = self.subjects_of[c.verb]
        lemma = lexicon.verb_lemma(words[c.verb].text)
        span = (words[c.verb].span[0], words[max(c.verb, c.preposition)].span[1])
        negated = c.verb in c.denied_words
        preposition = words[c.preposition].text if c.preposition >= 0 else ""
        if preposition:
            self.prepositions[c.preposition] = (subjects, lemma)
        if not preposition:
            self.transitive[c.verb] = k
            self._relate(subjects, k, lemma, span, negated=negated)
        elif self._fill_gap(c.verb):
            self._relate(subjects, k, preposition, words[c.preposition].span, negated=negated)
        elif c.passive_by or (lemma in lexicon.COVERING and words[c.verb].code == "E"):
            self.transitive[c.verb] = k
            predicate = lemma if preposition in ("by", "in", "with") else f"{lemma} {preposition}"
            self._relate(subjects, k, predicate, span, reverse=True, negated=negated)
        elif lemma in lexicon.SHOOTING and words[c.verb].code == "E":
            return  # "captured from above"
        elif lemma == "dress" and preposition == "in":
            self._relate(subjects, k, "wear", span, negated=negated)
        else:
            self._relate(subjects, k, f"{lemma} {preposition}", span, negated=negated)

    # -- prepositions

    def _preposition(self, previous: int, k: int, c: Connector) -> None:
        words = self.words
        word = words[c.preposition]
        if word.text == "of":
            self._of(previous, k, word)
            return
        if word.text == "with" and c.comma and self.subjects_of:
            return  # "towels hang from a rack, with more towels below": a scene of its own
        subjects, predicate, negated = self._bound(previous, k, c)
        if words[self.chunks[k].head].text in lexicon.PERSONAL and any(map(_has, self.links.get(previous, []))):
            subjects, predicate = [previous], ""  # "a bowl with a spoon in it"
        self.prepositions[c.preposition] = (subjects, predicate)
        predicate = f"{predicate} {word.text}" if predicate else word.text
        self._relate(subjects, k, predicate, word.span, negated=c.denied or negated)

    def _bound(self, previous: int, k: int, c: Connector) -> tuple[list[int], str, bool]:
        """Return the chunks that a preposition binds, the verb of its predicate, and whether that is denied."""
        words = self.words
        word = words[c.preposition]
        head = word.head
        if c.conjunction and head in self.prepositions:
            return *self.prepositions[head], False
        own = words[self.chunks[k].start].text in lexicon.OWNERS and word.text in lexicon.HELD
        if own and not c.clause and self._row(previous) != [self.main] and head != c.preposition:
            held = next((v for v, object_ in self.transitive.items() if object_ == previous), -1)
            if held >= 0 or head not in self.subjects_of:
                return self._row(previous), "", False
        if head in self.subjects_of and not c.conjunction:
            subjects, denied = self.subjects_of[head], head in self.denied_verbs
            object_ = self.transitive.get(head, -1)
            lemma = lexicon.verb_lemma(words[head].text)
            if object_ < 0 or (word.text in ("to", "with") and lemma not in ("wear", "have")):
                return subjects, lemma, denied
            if (lemma in lexicon.MOVING or not subjects) and word.text in lexicon.PLACING_PREPOSITIONS:
                return self._row(object_), "", False
            return subjects, "", denied
        subject = self.chunk_of.get(head, previous)
        if words[head].code == "B" and head < c.preposition:
            subject = self._subject_of(head, previous)
        if subject >= k:
            subject = previous
        return self._row(subject), "", False

    def _subject_of(self, verb: int, previous: int) -> int:
        """Return the chunk that the parse has for a verb's subject, or `previous`."""
        for i in range(self.chunks[previous].end):
            if self.words[i].head == verb and self.words[i].dep.startswith("nsubj") and i in self.chunk_of:
                return self.chunk_of[i]
        return previous

    def _of(self, previous: int, k: int, word: Word) -> None:
        owner, part = self.chunks[k], self.chunks[previous]
        head = self.words[part.head].text
        if not owner.name or not part.name:
            return
        lemma = lexicon.noun_lemma(head)
        if lemma in lexicon.ABSTRACT or self.words[owner.head].text in lexicon.MANNERS:
            owner.frame = True
        elif owner.frame:
            part.frame = True
        elif head in lexicon.MANNERS and part.frame:  # "in the shape of a heart"
            self.links.pop(previous, None)
        elif part.frame or (not {head, lemma}.isdisjoint(lexicon.MEASURES) and " " not in part.name):
            self._measure(previous, k)
        elif head in lexicon.CONTAINERS or lemma in lexicon.CONTAINERS:
            held = lexicon.CONTAINERS[head if head in lexicon.CONTAINERS else lemma]
            self._relate([previous], k, held, word.span, reverse=True)
        elif head in lexicon.DEPICTIONS:
            self._relate([previous], k, "of", word.span)
        else:
            self._relate([previous], k, "have", word.span, reverse=True)

    def _measure(self, previous: int, k: int) -> None:
        """Let the thing measured take the place of its measure: "a group of people" is people."""
        part, owner = self.chunks[previous], self.chunks[k]
        head = self.words[part.head].text
        attribute = lexicon.MEASURES.get(head) or lexicon.MEASURES.get(lexicon.noun_lemma(head))
        if attribute:
            owner.attributes.insert(0, (attribute, self.words[part.head].span))
        if not part.frame:
            owner.phrase_start = part.phrase_start if part.phrase_start >= 0 else part.start
        self._replace(previous, k)
        self.measured[previous] = k
        for i, chunk in self.chunk_of.items():  # what hangs on the measure hangs on the thing
            if chunk == previous:
                self.chunk_of[i] = k

    def _possess(self, previous: int, k: int) -> None:
        """Let what was said of the owner be said of what it owns: "licks the boy's hand" is about the hand."""
        self._replace(previous, k)
        self._relate([previous], k, "have", (self.words[self.chunks[k].start].span[0],) * 2)

    def _replace(self, previous: int, k: int) -> None:
        """Give chunk k the place in the sentence that chunk `previous` had."""
        self.links[k] = self.links.pop(previous, [])
        self.groups[k] = [g for g in self._row(previous) if g != previous] + [k]
        self.groups[previous] = [previous]
        for verb, object_ in self.transitive.items():
            if object_ == previous:
                self.transitive[verb] = k
        if self.main == previous:
            self.main = k

    # -- rows

    def _coordinate(self, previous: int, k: int, c: Connector) -> None:
        """Put chunk k into the row of an earlier one, and give it that one's links."""
        chunk = self.chunks[k]
        if self._begins_clause(previous, k):
            return
        other = self.chunk_of.get(self.words[chunk.head].head, previous)
        if other >= k or other in self.measured:
            other = previous
        denied = self.chunks[other].negated
        if denied and (c.exclusive or self.words[chunk.start].code != "D"):
            chunk.negated = True
        row = self._row(other)
        self.groups[k] = [*row, k]
        for member in row:
            self.groups[member] = self.groups[k]
        if not denied or chunk.negated:
            self.links.setdefault(k, []).extend(self.links.get(other, []))

    def _begins_clause(self, previous: int, k: int) -> bool:
        """Whether chunk k is the subject of a verb behind it that no phrase before it is the subject of."""
        word = self.words[self.chunks[k].head]
        before = self.words[self.chunks[previous].head]
        return word.dep.startswith("nsubj") and word.head > self.chunks[k].head and before.head != word.head

    def _predicate_adjectives(self, previous: int, c: Connector) -> None:
        if not c.adjectives:
            return
        head = self.words[c.adjectives[0]].head
        subject = self._row(self._subject_of(head, previous))
        for text, span in adjectives(self.words, c.adjectives):
            denied = any(self.words[i].span[1] == span[1] for i in c.denied_words)
            self.attributes += [(k, text, span, denied) for k in subject]

    def _place_phrase(self, k: int, c: Connector) -> None:
        """Resolve "a square with a circle on its right": the circle stands at the square."""
        word = self.words[c.place]
        owners = [link for link in self.links.get(k, []) if _has(link)]
        if word.owner and owners:
            self.links[k] = [link for link in self.links[k] if link not in owners]
            self.links.setdefault(owners[0].other, []).append(_Link(k, word.text, word.span))

    def _deny(self, previous: int, k: int, c: Connector) -> None:
        """Mark what is denied at the beginning of chunk k, and what the connector before it denies."""
        chunk = self.chunks[k]
        determiners = [w.text for w in self.words[chunk.start : chunk.end] if w.code == "D"]
        definite = any(d not in ("a", "an", "any", "no", "some") for d in determiners)
        if determiners[:1] == ["no"]:
            chunk.negated = True
        elif "neither" in determiners:
            self.denied_subjects.add(k)
        elif c.verb >= 0:  # behind a denied verb, or "has neither cars nor ..."
            chunk.negated = c.denied and not definite
        elif c.denied and definite and c.preposition < 0 and c.copula < 0:
            self.denied_subjects.add(k)
        elif c.denied:
            chunk.negated = not definite or c.preposition < 0 or self.words[c.preposition].text == "without"

    def _relate(
        self,
        subjects: list[int],
        k: int,
        predicate: str,
        span: Span,
        reverse: bool = False,
        negated: bool = False,
    ) -> None:
        if not self.chunks[k].name:
            pronoun = self.words[self.chunks[k].head].text
            if pronoun in lexicon.PERSONAL and self._pronoun(subjects, predicate, span, pronoun):
                return
        predicate = wearing(predicate, self.words[self.chunks[k].head].text)
        for subject in subjects:
            if subject != k:
                self.links.setdefault(k, []).append(_Link(subject, predicate, span, reverse, negated))

    def _pronoun(self, subjects: list[int], predicate: str, span: Span, pronoun: str) -> bool:
        """Resolve "a bowl with a spoon in it": what the bowl is with is in the bowl."""
        for subject in subjects:
            for link in self.links.get(subject, []):
                if _has(link):
                    near = subject - 1 if reference.fits(self.words, self.chunks, subject - 1, pronoun) else -1
                    self.links[subject].remove(link)
                    owner = near if near >= 0 else link.other
                    self.links.setdefault(owner, []).append(_Link(subject, predicate, span))
                    return True
        return False

    # -- result

    def _differ(self, index: dict[int, int], subject: int, object_: int) -> bool:
        """Whether two chunks are not one thing twice; "one chases the other" are two things of one name."""
        return index[subject] != index[object_] or self.words[self.chunks[object_].head].text in ("other", "another", "each")

    def graph(self, caption: str) -> SceneGraph:
        """Return what was found, after `run`."""
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
            index[k] = len(objects)
            start = chunk.phrase_start if chunk.phrase_start >= 0 else chunk.start
            end = words[chunk.head].span[1]
            span = (words[chunk.name_start].span[0], end)
            phrase = (words[start].span[0], end)
            objects.append(Object(chunk.name, span, phrase, chunk.negated, chunk.fixed))
            attributes += [Attribute(index[k], text, span) for text, span in chunk.attributes]
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
                    negated = link.negated or subject in denied or self.chunks[object_].negated
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
        )


def _sentences(words: list[Word]) -> Iterator[tuple[int, int]]:
    """Yield first word and one past the last of each sentence, its mark left out."""
    start = 0
    for i, word in enumerate(words):
        if word.code in ".:" and not word.text.strip(".!?;…"):
            yield start, i
            start = i + 1
    yield start, len(words)


def _has(link: _Link) -> bool:
    return not link.reverse and (link.predicate == "have" or link.predicate.rpartition(" ")[2] == "with")


def extract(caption: str, words: list[Word]) -> SceneGraph:
    """Return the scene graph of a caption whose words have been read."""
    reference.mark_members(words)
    walk = _Walk(words)
    walk.run()
    return walk.graph(caption)
