"""Make relations from verbs with an object, and attributes from verbs without an object."""

from __future__ import annotations

from sclip.scenegraph import lexicon, reference
from sclip.scenegraph.connectors import Connector, VerbUse
from sclip.scenegraph.draft import PENDING, Draft, has
from sclip.scenegraph.forms import with_particle
from sclip.scenegraph.retagging import ACTIONS


def read_verbs(draft: Draft, previous: int, c: Connector) -> int:
    """Find the subjects of a connector's verbs, and turn verbs without an object into attributes.

    Returns the chunk described by a relative clause that ends in this connector, or -1.
    """
    draft.denied_verbs |= c.denied_words
    if not c.verbs:
        draft.has_verb = draft.has_verb or (c.copula >= 0 and not c.relative)
        return -1
    closed = {use.verb: use for use in c.closed}
    filler = -1
    for verb in c.verbs:
        draft.subjects_of[verb] = draft.row(filler) if filler >= 0 else _subjects(draft, verb, previous, c)
        if (
            draft.main in draft.subjects_of[verb]
            and not c.relative
            and (draft.words[verb].code == "V" or c.copula >= 0)
        ):
            draft.has_verb = True
        use = closed.get(verb)
        if use is None:
            continue
        if previous in draft.adjacent and (len(c.verbs) > 1 or c.copula > verb) and filler < 0:
            draft.subjects_of[verb] = draft.row(previous)
            draft.gaps[previous] = (draft.adjacent[previous], -1)
        about = draft.gaps.get(previous, (-1, -1))[0]
        if _fill_gap(draft, verb, use.preposition):
            filler = about
            draft.filled.add(filler)
            continue
        if use.passive_by or _shares_object(draft, use, c):
            continue
        if draft.main >= 0 and draft.main in draft.subjects_of[use.verb] and use.preposition < 0:
            draft.main_verb = use.verb
            if any(link.fronted for j in range(draft.first, draft.main) for link in draft.links.get(j, [])):
                continue  # "between the trees a hammock is tied"
        intransitive(draft, use)
    return filler


def bind_object(draft: Draft, k: int, c: Connector) -> None:
    """Relate the subjects of a connector's open verb to chunk k, the object of the verb or of its preposition."""
    words = draft.words
    subjects = draft.subjects_of[c.verb]
    lemma = lexicon.verb_lemma(words[c.verb].text)
    span = (words[c.verb].span[0], words[max(c.verb, c.preposition)].span[1])
    negated = c.verb in c.denied_words
    preposition = words[c.preposition].text if c.preposition >= 0 else ""
    if draft.main >= 0 and draft.main in subjects and words[c.verb].code == "V" and draft.main_verb < 0:
        draft.main_verb = c.verb
    if preposition:
        draft.prepositions[c.preposition] = (subjects, lemma)
    particle = (
        bool(preposition)
        and words[c.preposition].code == "R"
        and preposition not in lexicon.DIRECTIONS - {"out"}
    )
    particle = particle and words[draft.chunks[k].head].dep == "dobj"
    if not preposition or particle:
        draft.transitive[c.verb] = k
        draft.relate(subjects, k, f"{lemma} {preposition}".strip(), span, negated=negated)
        if any(draft.gaps.get(subject, (-1, -1))[1] >= 0 for subject in subjects):
            _fill_gap(draft, c.verb)  # "to whom a waiter hands the bill"
        for use in c.closed:
            if _shares_object(draft, use, c):
                text, verb_span = words[use.verb].text, words[use.verb].span
                draft.relate(
                    subjects, k, lexicon.verb_lemma(text), verb_span, negated=use.verb in c.denied_words
                )
    elif _fill_gap(draft, c.verb):
        draft.relate(subjects, k, preposition, words[c.preposition].span, negated=negated)
    elif c.passive_by or (lemma in lexicon.COVERING and words[c.verb].code == "E"):
        draft.transitive[c.verb] = k
        predicate = lemma if preposition in ("by", "in", "with") else f"{lemma} {preposition}"
        draft.relate(subjects, k, predicate, span, reverse=True, negated=negated)
    elif lemma in lexicon.SHOOTING and words[c.verb].code == "E":
        return  # "captured from above"
    elif lemma == "dress" and preposition == "in":
        draft.relate(subjects, k, "wear", span, negated=negated)
    else:
        draft.relate(subjects, k, f"{lemma} {preposition}", span, negated=negated)


def adjoin(draft: Draft, previous: int, k: int) -> None:
    """Connect two phrases without a word between them: "gives a boy a ball", "the ball the dog chases"."""
    words = draft.words
    verb = words[draft.chunks[k].head].head
    if words[verb].dep == "relcl" and draft.chunk_of.get(words[verb].head) == previous:
        draft.gaps[k] = (previous, -1)
        return
    if words[draft.chunks[previous].head].text in ("other", "another") and draft.transitive:
        verb = max(draft.transitive)  # "one holds a parasol, the other a fan"
        draft.relate([previous], k, lexicon.verb_lemma(words[verb].text), words[verb].span)
        return
    draft.adjacent[k] = previous
    gives = next((v for v, object_ in draft.transitive.items() if object_ == previous), -1)
    if gives < 0 or lexicon.verb_lemma(words[gives].text) not in lexicon.GIVING:
        return
    lemma = lexicon.verb_lemma(words[gives].text)
    draft.links[previous] = [
        link._replace(predicate=f"{lemma} to") if link.predicate == lemma else link
        for link in draft.links.get(previous, [])
    ]
    draft.relate(draft.subjects_of[gives], k, lemma, words[gives].span, negated=gives in draft.denied_verbs)
    draft.transitive[gives] = k


def late_particle(draft: Draft, previous: int) -> None:
    """Join the particle after an object to the verb before the object: "turns the water off"."""
    words, end = draft.words, draft.chunks[previous].end
    if end >= len(words) or words[end].code != "R" or words[end].dep != "prt":
        return
    for verb, object_ in draft.transitive.items():
        lemma = lexicon.verb_lemma(words[verb].text)
        if object_ == previous and words[end].head == verb:
            draft.links[previous] = [
                link._replace(predicate=f"{lemma} {words[end].text}") if link.predicate == lemma else link
                for link in draft.links.get(previous, [])
            ]


def _shares_object(draft: Draft, use: VerbUse, c: Connector) -> bool:
    """Return whether a verb shares the object of the verb after it: "peels and eats a banana"."""
    verb, last = draft.words[use.verb], draft.words[c.verb]
    return (
        c.coordinator
        and c.verb > use.verb
        and c.preposition == use.preposition == -1
        and verb.code == last.code != "E"
        and draft.words[use.verb + 1].code in "C,"
        and lexicon.verb_lemma(verb.text) not in ACTIONS
    )


def _subjects(draft: Draft, verb: int, previous: int, c: Connector) -> list[int]:
    subjects = []
    for k in _parsed_subjects(draft, verb, previous, c):
        held = draft.partners(k) if k >= 0 and draft.chunks[k].frame else []
        framed = k >= 0 and draft.chunks[k].frame and k < previous
        subjects += held or [previous if framed else k]  # "a woman in the background wearing a hat"
    lemma = lexicon.verb_lemma(draft.words[verb].text)
    # "a mask with two horns, worn by a dancer"
    if c.comma and not (c.coordinator or c.relative) and draft.words[verb].code in "EG":
        subjects = [_whose(draft, k) for k in subjects]
    if draft.words[verb].code != "G" or lemma not in lexicon.BODILY | lexicon.GIVING or c.comma:
        return subjects
    near = draft.chunks[previous]
    to = near.start and near.end == verb and draft.words[near.start - 1].text == "to"
    if to and reference.is_living(near.name):
        return draft.row(previous)  # "waves to the lady sitting on a bench"
    for k in subjects:  # "a man in a red shirt holding a ball": a shirt holds nothing
        if k == PENDING or reference.is_living(draft.chunks[k].name):
            continue
        wearers = [link.other for link in draft.links.get(k, []) if not link.reverse]
        if wearers and all(w >= 0 and reference.is_living(draft.chunks[w].name) for w in wearers):
            return wearers
    return subjects


def _whose(draft: Draft, k: int) -> int:
    """Return the chunk that a chain of prepositional phrases describes: "artwork" in "artwork by a man in a vase"."""
    for _ in range(3):
        links = (link for link in draft.links.get(k, []) if not link.reverse and link.other >= 0)
        k = next((link.other for link in links if has(link) or link.predicate in lexicon.CONNECTIVES), k)
    return k


def _parsed_subjects(draft: Draft, verb: int, previous: int, c: Connector) -> list[int]:
    words = draft.words
    pronoun = words[draft.chunks[previous].head]
    adjacent = (
        pronoun.code == "H" and draft.chunks[previous].end == verb and pronoun.text not in lexicon.PERSONAL
    )
    if c.relative or (adjacent and words[verb].code == "V"):
        return draft.row(previous)
    k = draft.parsed.get(verb, -1)
    if 0 <= c.copula == verb - 1 and draft.parsed.get(c.copula) == previous:
        k = previous  # "whose net is torn"
    near = draft.chunks[previous]
    if words[near.start].text == "whose" and near.end == verb and words[verb].code == "V":
        return [previous]  # "a knight whose horse drinks polishes a sword"
    clause = near.end == verb and near.start > 0 and words[near.start - 1].code == "C"
    if clause and k == previous - 1 and words[verb].code == "V" and draft.row(previous) == [previous]:
        return [previous]  # "shapes a bowl and a pupil paints it"
    start = draft.chunks[k].start if k >= 0 else 0
    bound = start > 0 and words[start - 1].code == "P" and words[verb].code == "V"
    if bound and _is_main(draft, verb, previous, c):
        k = -1  # "a bicycle without a saddle leans": the object of a preposition is no subject
    if k >= 0 and draft.chunks[k].start < verb:
        compared = [
            link.other for link in draft.links.get(k, []) if link.predicate.endswith((" than", " as"))
        ]
        return compared or draft.row(k)
    ends = draft.chunks[previous].end == verb and previous == draft.main and not draft.has_verb
    if ends and words[verb].code == "V" and k < 0:
        return draft.row(previous)  # "Pushed by a man, a girl swings"
    if words[verb].code == "V" and k < 0 and _is_main(draft, verb, previous, c):
        return draft.row(draft.main)  # "a kitten smaller than a cup sleeps"
    if c.conjunction and words[verb].code == "V":  # "jumps over a bench and lands on the road"
        before = [v for v in draft.subjects_of if v < verb and words[v].code == "V"]
        if before:
            return draft.subjects_of[before[-1]]
    i = verb
    for _ in range(4):
        head = words[i].head
        if head == i or head > verb:
            break
        if head in draft.chunk_of:
            return draft.row(draft.chunk_of[head])
        if head in draft.subjects_of:
            return draft.subjects_of[head]
        i = head
    return draft.row(previous)


def _is_main(draft: Draft, verb: int, previous: int, c: Connector) -> bool:
    """Return whether a finite verb is the first verb of the clause's subject, `draft.main`."""
    main = draft.main
    if (
        main < 0
        or draft.has_verb
        or draft.front
        or main == previous
        or c.clause
        or previous in draft.adjacent
    ):
        return False
    if previous in draft.gaps:  # "the ball that the dog chases"
        return False
    between = draft.words[draft.chunks[main].end : verb]
    return bool(draft.chunks[main].name) and all(word.code != "K" for word in between)


def intransitive(draft: Draft, use: VerbUse) -> None:
    """Make a verb without an object an attribute of its subjects, if a picture can show the verb."""
    verb = draft.words[use.verb]
    if use.verb and draft.words[use.verb - 1].code == "T":
        return  # "the actress had to race": the picture shows no race
    after = draft.words[use.verb + 1] if use.verb + 1 < len(draft.words) else verb
    if (verb.code != "E" and lexicon.verb_lemma(verb.text) in lexicon.UNSEEN) or (
        verb.code == "E" and after.code == "J" and after.text in lexicon.COLOURS  # "is painted red"
    ):
        return
    text, span = with_particle(draft.words, use.verb)
    for k in draft.subjects_of[use.verb]:
        if k != PENDING:
            draft.attributes.append((k, text, span, use.verb in draft.denied_verbs))


def _fill_gap(draft: Draft, verb: int, preposition: int = -1) -> bool:
    """Relate a relative clause's verb to the chunk that the clause describes: "the ball that the dog chases"."""
    is_filled = False
    for subject in draft.subjects_of[verb]:
        if subject in draft.gaps:
            filler, before = draft.gaps.pop(subject)
            preposition = before if before >= 0 else preposition
            predicate = lexicon.verb_lemma(draft.words[verb].text)
            if preposition >= 0:
                text = draft.words[preposition].text
                predicate += " in" if text == "where" else f" {text}"
            elif (after := draft.words[verb + 1 : verb + 2]) and after[0].code == "R":
                predicate += f" {after[0].text}"  # "the hat that the wind blew off"
            negated = verb in draft.denied_verbs
            draft.relate(draft.row(subject), filler, predicate, draft.words[verb].span, negated=negated)
            is_filled = True
    return is_filled
