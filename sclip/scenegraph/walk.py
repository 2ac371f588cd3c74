"""Make the scene graph of a caption from its tagged words: objects, attributes, relations.

A caption alternates between noun phrases and connectors ("is sitting on", "'s", "and"). The rules walk over the
connectors from left to right. The dependency parse only chooses among several possible subjects. Rules that read the
whole parse tree would break at every wrong arc, and spaCy's parser, trained on news, errs most if there is no verb.

The walk starts anew at every sentence. Phrases before a clause's subject ("On the table is a cat") are linked to
PENDING until the walk finds the subject.
"""

from __future__ import annotations

from collections.abc import Iterator

from sclip.scenegraph import lexicon, reference
from sclip.scenegraph.chunks import adjectives
from sclip.scenegraph.connectors import Connector, read_connector
from sclip.scenegraph.draft import PENDING, Draft, Link
from sclip.scenegraph.forms import wearing
from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.prepositions import bind_preposition, place_phrase, possess
from sclip.scenegraph.retagging import sentence_start
from sclip.scenegraph.tagged_words import Word
from sclip.scenegraph.verbs import adjoin, bind_object, intransitive, late_particle, read_verbs


def extract(caption: str, words: list[Word], shape: int) -> SceneGraph:
    """Return the scene graph of a caption from the words and the shape that `read_words` returned."""
    reference.mark_members(words)
    draft = Draft(words)
    _walk(draft)
    return draft.graph(caption, shape)


def _walk(draft: Draft) -> None:
    index = 0
    sentence_of: list[int] = []
    subjects: list[int] = []
    for number, (start, end) in enumerate(_sentences(draft.words)):
        previous = -1
        draft.front, draft.main, draft.main_verb = False, -1, -1
        draft.first, draft.has_verb = index, False
        while index < len(draft.chunks) and draft.chunks[index].start < end:
            chunk = draft.chunks[index]
            sentence_of.append(number)
            _connect(draft, previous, index, read_connector(draft.words, start, chunk.start))
            previous, start = index, chunk.end
            index += 1
        _finish(draft, previous, read_connector(draft.words, start, end))
        _settle(draft, index)
        subjects.append(draft.main)
    held = set(draft.transitive.values())
    pronouns = reference.Pronouns(draft.words, draft.chunks, sentence_of, subjects, draft.partners, held)
    pronouns.resolve()
    draft.aliases |= pronouns.referents
    for k, owner in pronouns.owners.items():
        if not any(
            link.other == owner and link.predicate in ("have", "with") for link in draft.links.get(k, [])
        ):
            negated = any(link.negated for link in draft.links.get(k, []))  # "missing its arm"
            draft.relate(
                [owner], k, "have", (draft.words[draft.chunks[k].head].span[0],) * 2, negated=negated
            )


def _sentences(words: list[Word]) -> Iterator[tuple[int, int]]:
    """Yield (first word, one past the last) of each sentence, without its final mark."""
    start = 0
    for i, word in enumerate(words):
        if word.code == "." and not word.text.strip(".!?;…"):
            yield start, i
            start = i + 1
    yield start, len(words)


def _connect(draft: Draft, previous: int, k: int, c: Connector) -> None:
    draft.groups[k] = [k]
    _deny(draft, previous, k, c)
    if previous < 0:
        _open(draft, k, c)
    elif draft.front and _ends_front(draft, k, c):
        _begin(draft, k, c)
    else:
        _continue(draft, previous, k, c)


def _open(draft: Draft, k: int, c: Connector) -> None:
    """Read the connector before chunk k, the first chunk of its sentence."""
    words = draft.words
    imperative = c.verb >= 0 and words[c.verb].code == "V" and not c.existential
    is_pushed = c.copula >= 0 and words[c.copula].text == "being" and c.verb > c.copula
    if c.existential or (c.copula >= 0 and not is_pushed):  # but "Being pushed by a boy, a girl swings"
        _begin(draft, k, c)
        return
    for verb in c.verbs:
        draft.subjects_of[verb] = [] if imperative else [PENDING]
        draft.waits = True
    for use in c.closed:  # "Smiling, a man rides a horse"
        draft.subjects_of[use.verb] = [k]
        intransitive(draft, use)
    if c.verb >= 0:
        draft.front = not imperative
        bind_object(draft, k, c)
    elif c.preposition >= 0 and words[c.preposition].text != "of":
        _front(draft, k, c)
    elif c.preposition >= 0:  # "of the two girls, one wears boots"
        draft.front = True
    else:
        draft.main = k


def _front(draft: Draft, k: int, c: Connector) -> None:
    """Link chunk k, whose preposition stands before the clause's subject, to the placeholder PENDING."""
    word = draft.words[c.preposition]
    draft.front, draft.main, draft.main_verb, draft.waits = True, -1, -1, True
    draft.prepositions[c.preposition] = ([PENDING], "")
    draft.links.setdefault(k, []).append(Link(PENDING, word.text, word.span, negated=c.denied, fronted=True))


def _is_fronted(draft: Draft, k: int, c: Connector) -> bool:
    """Return whether a preposition in the middle of a sentence belongs to a verb that comes later."""
    if c.preposition < 0 or not (c.conjunction or c.clause):
        return False
    head = draft.words[c.preposition].head
    return head >= draft.chunks[k].end and draft.words[head].code in "VBG"


def _ends_front(draft: Draft, k: int, c: Connector) -> bool:
    if c.possessive or c.relative:
        return False
    if c.existential or c.copula >= 0 or any(draft.words[v].code == "V" for v in c.verbs):
        return True
    if c.verb >= 0 or c.preposition >= 0:
        return False
    return c.comma or c.clause or not c.conjunction


def _begin(draft: Draft, k: int, c: Connector) -> None:
    """Make chunk k the subject of the clause and of the connector's verbs: "there stands a tree"."""
    draft.front, draft.main = False, k
    draft.has_verb = bool(c.verbs) or c.copula >= 0
    for verb in c.verbs:
        draft.subjects_of[verb] = [k]
        draft.main_verb = verb


def _continue(draft: Draft, previous: int, k: int, c: Connector) -> None:
    words = draft.words
    late_particle(draft, previous)
    about = read_verbs(draft, previous, c)
    _predicate_adjectives(draft, about if about >= 0 else previous, c)
    if c.possessive:
        possess(draft, previous, k)
    elif c.relative and not c.verbs and c.copula < 0:
        draft.gaps[k] = (previous, c.preposition)
    elif c.verb >= 0:
        bind_object(draft, k, c)
    elif _is_fronted(draft, k, c):
        _settle(draft, k)
        draft.first = k
        _front(draft, k, c)
    elif c.preposition >= 0:
        bind_preposition(draft, previous, k, c)
    elif c.clause and not c.comma and words[draft.chunks[k].start - 1].text == "where":
        draft.gaps[k] = (previous, draft.chunks[k].start - 1)
    elif c.comma and _is_apposition(draft, previous, k):
        draft.aliases[k] = previous
    elif c.conjunction and not c.clause and c.copula < 0:
        _coordinate(draft, previous, k, c)
    elif draft.chunks[previous].end == draft.chunks[k].start:
        adjoin(draft, previous, k)
    if words[draft.chunks[k].start].text == "whose":
        draft.gaps.pop(k, None)
        draft.adjacent.pop(k, None)
        draft.relate(draft.row(previous), k, "have", (words[draft.chunks[k].head].span[0],) * 2)


def _is_apposition(draft: Draft, previous: int, k: int) -> bool:
    """Return whether chunk k names chunk `previous` again: "the goalkeeper, a tall woman, catches"."""
    words = draft.words
    chunk, named = draft.chunks[k], draft.chunks[previous]
    head, subject = words[chunk.head], words[named.head]
    if head.dep != "appos" or head.head != named.head or words[chunk.start].text not in ("a", "an", "the"):
        return False
    if subject.dep.startswith("nsubj") and subject.head > chunk.head:
        return True
    known = words[named.start].text in lexicon.OWNERS or (named.start and words[named.start - 1].code == "S")
    return bool(known) and (chunk.end == len(words) or words[chunk.end].code == ".")  # "his toy, a train"


def _finish(draft: Draft, previous: int, c: Connector) -> None:
    if previous < 0:
        return
    c.close()
    late_particle(draft, previous)
    about = read_verbs(draft, previous, c)
    _predicate_adjectives(draft, about if about >= 0 else previous, c)
    if c.place >= 0:
        place_phrase(draft, previous, c)


def _settle(draft: Draft, end: int) -> None:
    """Replace PENDING by the clause's subject. If there is no subject, remove the links to PENDING."""
    if not draft.waits:
        return
    subjects = draft.row(draft.main) if draft.main >= 0 and not draft.front else []
    verb = f"{lexicon.verb_lemma(draft.words[draft.main_verb].text)} " if draft.main_verb >= 0 else ""
    acts = draft.main_verb in draft.transitive
    for k in range(draft.first, end):
        links = draft.links.get(k, [])
        if any(link.other == PENDING for link in links):
            settled = [link for link in links if link.other != PENDING]
            object_ = draft.words[draft.chunks[k].head].text
            for link in links:
                if link.other == PENDING:
                    joined = link.fronted and (not acts or link.predicate == "with")
                    predicate = wearing(verb + link.predicate, object_) if joined else link.predicate
                    settled += [link._replace(other=s, predicate=predicate) for s in subjects if s != k]
            draft.links[k] = settled


def _coordinate(draft: Draft, previous: int, k: int, c: Connector) -> None:
    """Coordinate chunk k with an earlier chunk, and give k a copy of the earlier chunk's links."""
    chunk = draft.chunks[k]
    is_aside = not c.coordinator and draft.words[chunk.start].text in lexicon.OWNERS
    if is_aside or _begins_clause(draft, previous, k):  # an aside: "a stream, its water clear"
        return
    head = draft.words[chunk.head].head
    shared = draft.transitive.get(head, previous)  # "holds a cup in one hand and a plate in the other"
    other = draft.chunk_of.get(head, shared if draft.words[chunk.head].dep == "conj" else previous)
    if other >= k or other in draft.measured:
        other = previous
    other = _parallel(draft, other, k)
    following = draft.words[min(chunk.end, len(draft.words) - 1)]
    if following.code == "P" and draft.words[draft.chunks[other].end].text == following.text:
        draft.parallel.add(k)
    denied = draft.chunks[other].negated
    if denied and (c.exclusive or draft.words[chunk.start].code not in "DMA"):
        chunk.negated = True
    row = draft.row(other)
    draft.groups[k] = [*row, k]
    for member in row:
        draft.groups[member] = draft.groups[k]
    links = draft.links.get(other, [])
    if draft.words[chunk.start - 1].text == "but":  # "does not hold a pen but a phone"
        links = [link._replace(negated=False) for link in links]
    elif denied and not chunk.negated:  # "no hat but a coat"
        links = [link for link in links if not link.negated]
    draft.links.setdefault(k, []).extend(links)


def _parallel(draft: Draft, other: int, k: int) -> int:
    """Return the chunk that chunk k joins: for "women" in "men with hats and women with fans", "men", not "hats"."""
    following = draft.words[min(draft.chunks[k].end, len(draft.words) - 1)]
    for link in draft.links.get(other, []):
        same = link.span[0] < link.span[1] and following.code == "P" and not link.reverse and link.other >= 0
        same = same and draft.words[draft.chunks[other].start - 1].text == following.text
        if same and all(reference.is_living(draft.chunks[m].name) for m in (link.other, k)):
            return link.other
    return other


def _begins_clause(draft: Draft, previous: int, k: int) -> bool:
    """Return whether chunk k is the subject of a later verb, and not coordinated with chunk `previous`."""
    word = draft.words[draft.chunks[k].head]
    before = draft.words[draft.chunks[previous].head]
    start = draft.chunks[previous].start
    between = start > 0 and draft.words[start - 1].text == "between"
    if between and len(draft.row(previous)) == 1 and lexicon.noun_lemma(before.text) == before.text:
        return False  # "grows between the garden and the road is"
    if draft.words[draft.chunks[k].head].text in ("other", "others") and draft.words[draft.chunks[k].end :]:
        after = draft.words[draft.chunks[k].end]
        gapped = after.code == "P" and start > 0 and after.text == draft.words[start - 1].text
        # "pours tea and the other slices a lemon", "is filled with honey, the other with jam"
        return gapped or after.code in "VBDGE"
    held = [
        v for v, object_ in draft.transitive.items() if object_ == previous and draft.words[v].code == "V"
    ]
    following = draft.words[min(draft.chunks[k].end, len(draft.words) - 1)]
    acts = following.code == "V" and following.text.endswith("s")
    acts = acts and draft.words[draft.chunks[k].start].code == "D"
    if (
        held
        and (following.code == "B" or acts)
        and all(w.code != "W" for w in draft.words[sentence_start(draft.words, held[0]) : held[0]])
    ):
        return True  # "she has long hair and her dress is red", "sweeps the steps and a cook peels potatoes"
    heads = [before.head] + [
        draft.words[draft.chunks[m].head].head for m, whole in draft.measured.items() if whole == previous
    ]
    return word.dep.startswith("nsubj") and word.head > draft.chunks[k].head and word.head not in heads


def _predicate_adjectives(draft: Draft, previous: int, c: Connector) -> None:
    if c.adjectives and c.preposition >= 0:
        c.compared = [i for i in c.adjectives if c.compares(draft.words, i)]
        c.adjectives = [i for i in c.adjectives if i not in c.compared]
    if not c.adjectives:
        return
    head = draft.words[c.adjectives[0]].head
    if head in c.verbs and 0 <= c.copula < c.adjectives[0] < head:
        head = c.copula  # "whose beard is white paints a girl"
    subject = draft.row(previous if previous in draft.filled else draft.subject_of(head, previous))
    for text, span in adjectives(draft.words, c.adjectives):
        denied = any(draft.words[i].span[1] == span[1] for i in c.denied_words)
        draft.attributes += [(k, text, span, denied) for k in subject]


def _deny(draft: Draft, previous: int, k: int, c: Connector) -> None:
    """Mark chunk k as negated ("no dog"), or only what the caption says about it ("neither dog barks")."""
    chunk = draft.chunks[k]
    if not c.denied and draft.words[chunk.start].code != "D":
        return
    determiners = [w.text for w in draft.words[chunk.start : chunk.end] if w.code == "D"]
    definite = any(d not in ("a", "an", "any", "no", "some") for d in determiners)
    bound = c.verb >= 0 or (c.preposition >= 0 and previous >= 0)
    # "neither man nor beast"
    bound = bound or draft.words[min(chunk.end, len(draft.words) - 1)].text == "nor"
    if determiners[:1] == ["no"] or ("neither" in determiners and bound):
        chunk.negated = True
    elif "neither" in determiners:
        draft.denied_subjects.add(k)
    elif c.verb >= 0:  # after a negated verb, or "has neither cars nor ..."
        chunk.negated = c.denied and (not definite or c.verb not in c.denied_words)
    elif c.exclusive and c.denied and previous >= 0 and draft.chunks[previous].negated:
        chunk.negated = True  # "tied neither to the post nor to the cart"
    elif c.denied and definite and c.preposition < 0 and c.copula < 0:
        draft.denied_subjects.add(k)
    elif c.denied:
        chunk.negated = not definite or c.preposition < 0 or draft.words[c.preposition].text == "without"
