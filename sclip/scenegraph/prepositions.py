"""Make relations from prepositions, all meanings of "of", possessives, and places like "on its right"."""

from __future__ import annotations

from sclip.scenegraph import lexicon, reference
from sclip.scenegraph.connectors import Connector
from sclip.scenegraph.draft import Draft, Link, has
from sclip.scenegraph.forms import is_body_part
from sclip.scenegraph.tagged_words import Word

# `reference.is_rank` misses these words before "of". All words in -est would take in "forest" and "chest".
_SUPERLATIVES = ("best", "eldest", "rest", "west")

_SCREENS = frozenset("computer laptop tablet phone cellphone smartphone television tv screen monitor".split())


def bind_preposition(draft: Draft, previous: int, k: int, c: Connector) -> None:
    """Relate the subjects of a connector's preposition to chunk k, the object of the preposition."""
    words = draft.words
    word = words[c.preposition]
    if word.text == "of":
        _of(draft, previous, k, word)
        return
    if word.text == "with" and c.comma and draft.subjects_of:
        return  # "towels hang from a rack, with more towels below": no relation
    if word.text == "by" and not c.conjunction and _agent(draft, previous, k, word):
        return
    subjects, predicate, negated = _bound(draft, previous, k, c)
    if words[draft.chunks[k].head].text in lexicon.PERSONAL and any(map(has, draft.links.get(previous, []))):
        subjects, predicate = draft.row(previous), ""  # "a bowl with a spoon in it"
    draft.prepositions[c.preposition] = (subjects, predicate)
    predicate = f"{predicate} {word.text}" if predicate else word.text
    draft.relate(subjects, k, predicate, word.span, negated=c.denied or negated)
    for i in c.compared:
        draft.relate(subjects, k, f"{words[i].text} than", words[i].span, negated=i in c.denied_words)


def _agent(draft: Draft, previous: int, k: int, preposition: Word) -> bool:
    """Make chunk k the agent of a passive verb ("given wine by a waiter"). Return False if chunk k is no agent."""
    verb_index = next((v for v, object_ in draft.transitive.items() if object_ == previous), preposition.head)
    if verb_index not in draft.subjects_of or draft.words[verb_index].code != "E":
        return False
    verb, gift = draft.words[verb_index], draft.transitive.get(verb_index, -1)
    lemma, subjects = lexicon.verb_lemma(verb.text), draft.subjects_of[verb_index]
    living = reference.is_living(draft.chunks[k].name)
    # spaCy calls places agents too ("made by the window"), so k must be living or the verb in GIVING.
    gives = lemma in lexicon.GIVING
    if not (living or gives) or not (preposition.dep == "agent" or (living and gift >= 0 and gives)):
        return False
    negated = verb_index in draft.denied_verbs
    if gift >= 0 and gives:
        draft.links[gift] = [link for link in draft.links.get(gift, []) if link.span[0] != verb.span[0]]
        draft.relate([k], gift, lemma, verb.span, negated=negated)
        lemma = f"{lemma} to"
    draft.relate(subjects, k, lemma, verb.span, reverse=True, negated=negated)
    return True


def possess(draft: Draft, previous: int, k: int) -> None:
    """Move an owner's relations to the owned object: "licks the boy's hand" is about the hand."""
    relations = [link for link in draft.links.get(previous, []) if link.span[0] == link.span[1]]
    draft.replace(previous, k)
    draft.links[k] = [link for link in draft.links[k] if link not in relations]
    draft.links[previous] = relations
    draft.relate([previous], k, "have", (draft.words[draft.chunks[k].start].span[0],) * 2)


def place_phrase(draft: Draft, k: int, c: Connector) -> None:
    """Resolve "a square with a circle on its right": the circle is on the right side of the square."""
    word = draft.words[c.place]
    owners = [link for link in draft.links.get(k, []) if has(link)]
    if owners and (word.owner or word.text not in ("at the left of", "on the right side of")):
        draft.links[k] = [link for link in draft.links[k] if link not in owners]
        draft.links.setdefault(owners[0].other, []).append(Link(k, word.text, word.span))


def _bound(draft: Draft, previous: int, k: int, c: Connector) -> tuple[list[int], str, bool]:
    """Return a preposition's subject chunks, its verb ("sit" in "sits on", or ""), and whether the verb is negated."""
    words = draft.words
    chunk, word = draft.chunks[k], words[c.preposition]
    # "with" may open a clause; use the head of that clause: "stands in the snow with its tail raised".
    head = words[word.head].head if word.dep == "mark" else word.head
    if c.conjunction and head in draft.prepositions:
        return *draft.prepositions[head], False
    if words[draft.chunks[previous].head].text == "other" and draft.chunks[previous].end == c.preposition:
        same = [p for p in draft.prepositions if words[p].text == word.text and p < c.preposition]
        if same:  # "one is filled with honey, the other with jam"
            return [previous], draft.prepositions[same[-1]][1], False
    verb = next((v for v, object_ in draft.transitive.items() if object_ == previous), -1)
    if verb >= 0 and c.coordinator and words[c.preposition - 1].code == "C":
        return draft.subjects_of[verb], "", False  # "playing a guitar and on stage"
    own = words[draft.chunks[k].start].text in lexicon.OWNERS and word.text in lexicon.HELD
    holds = own and not c.clause and draft.row(previous) != [draft.main] and head != c.preposition
    if holds and (verb >= 0 or head not in draft.subjects_of):
        return draft.row(previous), "", False
    if head in draft.subjects_of and (not c.conjunction or (c.verb < 0 and head not in draft.transitive)):
        subjects, denied = draft.subjects_of[head], head in draft.denied_verbs
        object_ = draft.transitive.get(head, -1)
        is_shot = words[head].code == "E" and lexicon.verb_lemma(words[head].text) in lexicon.SHOOTING
        if object_ >= 0 and draft.chunks[object_].frame and _is_unshown(draft, object_):
            return subjects, "", denied  # "enjoys life on a beach"
        if is_shot or (object_ >= 0 and draft.chunks[object_].frame):
            return [], "", False  # "captured from above on a sunny day", "adds a touch of color to the room"
        lemma = lexicon.verb_lemma(words[head].text)
        if word.text == "with" and subjects == [previous] and draft.chunks[previous].start > head:
            return subjects, "", denied  # "through the gate walks a soldier with a rifle"
        if object_ < 0 or (word.text in ("to", "with") and lemma not in ("wear", "have")):
            return subjects, lemma, denied
        if word.text == "on" and lexicon.noun_lemma(words[chunk.head].text) in _SCREENS:
            return draft.row(object_), "", False  # "plays a game on a laptop"
        agent = words[head].code == "E" and lemma not in lexicon.COVERING and previous == object_
        if agent and reference.is_living(draft.chunks[object_].name):
            return draft.row(object_), "", False  # "painted by a woman on a ladder"
        moved = lemma in lexicon.MOVING and word.text in lexicon.PLACING_PREPOSITIONS
        if not subjects and word.text not in ("with", "to", "for"):
            moved = True  # "take the pot off the stove"
        moved = moved or (
            word.text in ("into", "out of") and lemma not in lexicon.MOTION | {"follow", "chase"}
        )
        if moved or (word.text == "from" and lemma not in lexicon.WATCHING):
            return draft.row(object_), "", False
        return subjects, "", denied
    subject = draft.chunk_of.get(head, previous)
    if (
        draft.chunks[subject].frame
        and lexicon.noun_lemma(words[draft.chunks[subject].head].text) in lexicon.ABSTRACT
    ):
        return [], "", False  # "a contrast to the sky"
    if draft.chunks[subject].frame and draft.partners(subject):
        return draft.partners(subject), "", False
    if word.text == "from" and any(
        whole == subject and draft.chunks[m].frame for m, whole in draft.measured.items()
    ):
        return [], "", False  # "a view of the city from above the clouds"
    if words[head].code == "B" and head < c.preposition:
        subject = draft.subject_of(head, previous)
    if subject >= k:
        subject = previous
    owner = reference.POSSESSIVES.get(
        next((w.text for w in words[chunk.start : chunk.end] if w.text in lexicon.OWNERS), "")
    )
    if owner and word.text == "with" and not reference.fits(words, draft.chunks, subject, owner):
        for holder in draft.partners(subject):  # "rides down a hill with his feet off the pedals"
            if reference.fits(words, draft.chunks, holder, owner):
                held = next((v for v, object_ in draft.transitive.items() if object_ == subject), -1)
                lemma = lexicon.verb_lemma(words[held].text) if held >= 0 else ""
                if is_body_part(words[chunk.head].text) and lemma not in ("", "have", "wear", "hold"):
                    return [holder], lemma, held in draft.denied_verbs  # "opens a door with his elbow"
                subject = holder
    return [subject] if subject in draft.parallel else draft.row(subject), "", False


def _is_unshown(draft: Draft, k: int) -> bool:
    return lexicon.noun_lemma(draft.words[draft.chunks[k].head].text) in lexicon.UNSHOWN


def _of(draft: Draft, previous: int, k: int, word: Word) -> None:
    owner, part = draft.chunks[k], draft.chunks[previous]
    head = draft.words[part.head].text
    if not owner.name or not part.name:
        return
    lemma = lexicon.noun_lemma(head)
    measured = lexicon.noun_lemma(draft.words[owner.head].text)
    drops = lemma == "splash" and measured not in lexicon.COLOURS  # "a splash of water"
    if (lemma in lexicon.ABSTRACT and not drops) or measured in lexicon.MANNERS:
        owner.frame = True
    elif owner.frame and not _is_unshown(draft, k):
        part.frame = True
    elif lemma in lexicon.MANNERS and part.frame:  # "in the shape of a heart"
        draft.links.pop(previous, None)
    elif head in ("neither", "none"):
        _measure(draft, previous, k)
        draft.denied_subjects.add(k)
    elif (
        part.frame
        or head in _SUPERLATIVES
        or reference.is_rank(head)
        or (not {head, lemma}.isdisjoint(lexicon.MEASURES) and (lemma == "group" or " " not in part.name))
    ):
        _measure(draft, previous, k)
    elif head in lexicon.CONTAINERS or lemma in lexicon.CONTAINERS:
        held = lexicon.CONTAINERS[head if head in lexicon.CONTAINERS else lemma]
        draft.relate([previous], k, held, word.span, reverse=True)
    elif head in lexicon.DEPICTIONS:
        draft.relate([previous], k, "of", word.span)
    else:
        draft.relate([previous], k, "have", word.span, reverse=True)


def _measure(draft: Draft, previous: int, k: int) -> None:
    """Let the measured object replace its measure: "a group of people" becomes "people"."""
    part, owner = draft.chunks[previous], draft.chunks[k]
    head = draft.words[part.head].text
    attribute = lexicon.MEASURES.get(head) or lexicon.MEASURES.get(lexicon.noun_lemma(head), "")
    if draft.words[part.head].code == "N" and reference.is_rank(head):
        attribute = head  # "the oldest of the sisters"
    if attribute.isdigit() and lexicon.noun_lemma(head) != head:  # "dozens", "two pairs"
        attribute = ""
    if attribute:
        owner.attributes.insert(0, (attribute, draft.words[part.head].span))
    if attribute in ("piece", "slice", "patch"):  # "two slices of pizza"
        owner.attributes[:0] = part.attributes
    if not part.frame:
        owner.phrase_start = part.phrase_start if part.phrase_start >= 0 else part.start
    draft.replace(previous, k)
    draft.measured[previous] = k
    for chunk_by_word in (draft.chunk_of, draft.parsed):  # the object takes over the words of the measure
        for i, chunk in chunk_by_word.items():
            if chunk == previous:
                chunk_by_word[i] = k
