"""Find the articles, nouns, verbs and pronouns that an exchange must change to keep the English correct.

`verb_forms` and `pronoun_forms` return the words to change as {span: new form}.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sclip.negatives.meaning import PERSONS
from sclip.scenegraph.graph import SceneGraph, Span
from sclip.scenegraph.lexicon import CONNECTIVES, noun_lemma, verb_lemma

_AN_BY_SOUND = re.compile(
    r"hour|honest|honou?r|heir|herb\b|[fhlmnrsx](?:[^a-z]|$)|x-|suv\b|mp3|nfl|mri|lcd|led\b|8|11\b|18\b"
)
_A_BY_SOUND = re.compile(r"uni(?!n|m)|use|usual|utensil|ute|euro|eu|one\b|once|ukul|u\b|u-|urin")
_BE = {"is": "are", "was": "were", "has": "have", "does": "do", "isn't": "aren't"}
_PLURAL_BE = {plural: singular for singular, plural in _BE.items()}
_SINGULAR = {"people": "person"}
_PLURAL = {singular: plural for plural, singular in _SINGULAR.items()}
_AUXILIARIES = frozenset([*_BE, *_PLURAL_BE])
_DETERMINED = re.compile(
    r"(?:an?(?!\s+(?:few|couple|pair|lot|bunch|number|dozen)\b)|one|each|every|this|that|another)\b",
    re.IGNORECASE,
)
_VERB_BEHIND = re.compile(r"\s+(?:(?:that|which|who)\s+)?([^\W\d_]+)\b")
_THERE_BEFORE = re.compile(r"\bthere\s+(is|are|was|were)\s+$", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")
_AUXILIARY_BEFORE = re.compile(
    r"\b(is|are|was|were|has|have|does|do|isn't|aren't)\s+(?:(?:not|also|both|all|being|been|\w+ly)\s+)*$",
    re.IGNORECASE,
)
_INFINITE_BEFORE = re.compile(
    r"\b(?:to|can|will|could|would|may|might|must|should|n't|not)\s+$", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?;:](?:\s|$)")
_AND_BEFORE = re.compile(r"\s*,?\s*(?:and|or)\s+$")

_PRONOUNS = {
    "he": {"subject": "he", "object": "him", "possessive": "his", "self": "himself"},
    "she": {"subject": "she", "object": "her", "possessive": "her", "self": "herself"},
    "it": {"subject": "it", "object": "it", "possessive": "its", "self": "itself"},
    "they": {"subject": "they", "object": "them", "possessive": "their", "self": "themselves"},
}
PRONOUNS = frozenset(form for forms in _PRONOUNS.values() for form in forms.values())
_PRONOUN = re.compile(rf"\b({'|'.join(sorted(PRONOUNS))})\b", re.IGNORECASE)
_HE = frozenset(
    """man boy gentleman male father son brother boyfriend husband king prince groom businessman policeman
    fireman cowboy batter catcher umpire grandfather waiter""".split()
)
_SHE = frozenset(
    "woman girl lady female mother daughter sister girlfriend wife queen princess bride grandmother waitress".split()
)


@lru_cache(maxsize=1 << 16)
def article(word: str) -> str:
    """Return the indefinite article that a word takes, by its sound."""
    lower = word.lower()
    if _AN_BY_SOUND.match(lower):
        return "an"
    if _A_BY_SOUND.match(lower):
        return "a"
    return "an" if lower[0] in "aeiou" else "a"


@lru_cache(maxsize=1 << 16)
def inflect(lemma: str, tag: str) -> tuple[str, ...]:
    """Return the forms of a lemma for a Penn tag (lemminflect), the usual one first."""
    from lemminflect import getInflection  # imports spaCy

    return tuple(getInflection(lemma, tag=tag))


@lru_cache(maxsize=1 << 16)
def is_plural(word: str) -> bool:
    """Return whether a lower-case noun is plural."""
    lemma = noun_lemma(word)
    return word in _SINGULAR or (lemma != word and word in inflect(lemma, "NNS"))


@lru_cache(maxsize=1 << 16)
def in_number(noun: str, plural: bool) -> str:
    """Return a lower-case noun in the singular or plural."""
    if not noun.isalpha():
        return noun
    if not plural:
        return _SINGULAR.get(noun) or noun_lemma(noun)
    return (
        noun if is_plural(noun) else _PLURAL.get(noun) or next(iter(inflect(noun_lemma(noun), "NNS")), noun)
    )


@lru_cache(maxsize=1 << 16)
def agree(verb: str, plural: bool) -> str:
    """Return a lower-case present-tense verb in the singular or plural; other words come back unchanged."""
    if plural and verb in _BE:
        return _BE[verb]
    if not plural and verb in _PLURAL_BE:
        return _PLURAL_BE[verb]
    lemma = "lie" if verb in ("lie", "lies") else verb_lemma(verb)
    third = inflect(lemma, "VBZ")
    if verb in inflect(lemma, "VBN"):
        return verb  # "set", "put": also a participle
    if plural and verb in third:
        return lemma
    if not plural and verb == lemma and third:
        return third[0]
    return verb


@lru_cache(maxsize=1 << 16)
def phrase_is_plural(phrase: str) -> bool:
    """Return whether a noun phrase is plural: its last word is plural and its first is not "a", "each" or the like."""
    words = phrase.split()
    return bool(words) and not _DETERMINED.match(phrase) and is_plural(words[-1].lower())


def verb_forms(graph: SceneGraph, index: int, plural: bool) -> dict[Span, str]:
    """Return the new forms of the verbs whose subject is object `index`; `plural` is the subject's new number."""
    caption = graph.caption
    start, end = graph.objects[index].phrase
    there_is = _THERE_BEFORE.search(caption, max(0, start - 12), start)
    if there_is is not None:
        return _changed(caption, there_is.span(1), plural)
    forms: dict[Span, str] = {}
    verb = _VERB_BEHIND.match(caption, end)
    if (
        verb is not None
        and (verb.group(1).lower() in _AUXILIARIES or (plural and _is_third_person(verb.group(1).lower())))
        and not _hangs(graph, index)
        and not _in_row(graph, index)
    ):
        forms = _changed(caption, verb.span(1), plural)
    for offset, is_verb in _descriptions_behind(graph, index):
        auxiliary = _AUXILIARY_BEFORE.search(caption, end, offset)
        word = _WORD.match(caption, offset)
        if auxiliary is not None:
            forms |= _changed(caption, auxiliary.span(1), plural)
        elif word is not None and not _INFINITE_BEFORE.search(caption, max(0, offset - 8), offset):
            text = word.group().lower()
            adjacent = verb is not None and verb.span(1) == word.span()
            if text not in CONNECTIVES and (is_verb or adjacent or _is_third_person(text)):
                forms |= _changed(caption, word.span(), plural)
    return forms


@lru_cache(maxsize=1 << 16)
def _is_third_person(word: str) -> bool:
    return word not in CONNECTIVES and word in inflect(verb_lemma(word), "VBZ")


def _changed(caption: str, span: Span, plural: bool) -> dict[Span, str]:
    word = caption[slice(*span)].lower()
    form = agree(word, plural)
    if form == word:
        return {}
    return {span: form.capitalize() if caption[span[0]].isupper() else form}


def _descriptions_behind(graph: SceneGraph, index: int) -> list[tuple[int, bool]]:
    """Return (offset, is a verb) of each predicate or attribute after object `index` that describes it alone."""
    objects, end = graph.objects, graph.objects[index].phrase[1]
    closing = _SENTENCE_END.search(graph.caption, end)
    stop = closing.start() if closing else len(graph.caption)
    described: dict[int, set[int]] = {}
    verbs = set()
    for r in graph.relations:
        start = r.span[0]
        if end <= start < min(r.span[1], stop):
            described.setdefault(start, set()).add(
                r.subject if objects[r.subject].phrase[1] <= start else r.object
            )
            word = _WORD.match(graph.caption, start)
            if word is not None and verb_lemma(word.group().lower()) == r.predicate.split()[0]:
                verbs.add(start)
    for a in graph.attributes:
        if end <= a.span[0] < stop:
            described.setdefault(a.span[0], set()).add(a.object)
    return [(start, start in verbs) for start, subjects in sorted(described.items()) if subjects == {index}]


def _hangs(graph: SceneGraph, index: int) -> bool:
    """Return whether the verb after object `index` belongs to an earlier noun: for "hat" in "a man in a hat is"."""
    start, end = graph.objects[index].phrase
    return any(r.object == index and r.span[1] <= start for r in graph.relations) and not any(
        r.subject == index and r.span[0] >= end for r in graph.relations
    )


def _in_row(graph: SceneGraph, index: int) -> bool:
    """Return whether object `index` is a later member of a list, whose verb stays plural: "a dog and a cat are"."""
    start = graph.objects[index].phrase[0]
    before = _AND_BEFORE.search(graph.caption, max(0, start - 8), start)
    return before is not None and any(o.phrase[1] == before.start() for o in graph.objects)


def pronoun_forms(graph: SceneGraph, first: int, second: int) -> dict[Span, str]:
    """Return the new forms of the pronouns that refer to objects `first` and `second`, which change places."""
    old = (_pronoun_class(graph, first), _pronoun_class(graph, second))
    if old[0] == old[1] or not all(old):
        return {}
    classes = [_pronoun_class(graph, index) for index in range(len(graph.objects))]
    becomes = {first: old[1], second: old[0]}
    forms: dict[Span, str] = {}
    for match in _PRONOUN.finditer(graph.caption):
        text = match.group(1).lower()
        for index, new in becomes.items():
            role = _role(text, classes[index], graph.caption[match.end() :])
            rivals = [  # earlier objects to which the pronoun may refer too: it stays as it is
                k
                for k, obj in enumerate(graph.objects)
                if k != index and classes[k] == classes[index] and obj.phrase[0] < match.start()
            ]
            if role and graph.objects[index].phrase[1] <= match.start() and not rivals:
                form = _PRONOUNS[new][role]
                forms[match.span(1)] = form.capitalize() if match.group(1)[0].isupper() else form
                if role == "subject" and "they" in (classes[index], new):
                    next_word = _VERB_BEHIND.match(graph.caption, match.end())
                    if next_word is not None:
                        forms |= _changed(graph.caption, next_word.span(1), new == "they")
    return forms


def changes_pronouns(graph: SceneGraph, first: int, second: int) -> bool:
    """Return whether the caption has a pronoun that can refer to only one of the two objects."""
    one, other = _pronoun_class(graph, first), _pronoun_class(graph, second)
    if one == other:
        return False
    start = min(graph.objects[index].phrase[0] for index in (first, second))
    # pronouns before both objects do not count
    pronouns = {match.group(1).lower() for match in _PRONOUN.finditer(graph.caption, start)}
    return any(_may_name(form, one) != _may_name(form, other) for form in pronouns)


def _may_name(pronoun: str, kind: str) -> bool:
    kinds = (kind,) if kind else ("he", "she", "they")
    return any(pronoun in _PRONOUNS[k].values() for k in kinds)


def _pronoun_class(graph: SceneGraph, index: int) -> str:
    obj = graph.objects[index]
    return _class_of(graph.caption[slice(*obj.phrase)], obj.name)


@lru_cache(maxsize=1 << 16)
def _class_of(phrase: str, name: str) -> str:
    if phrase_is_plural(phrase):
        return "they"
    head = name.rsplit(" ", 1)[-1]
    if head in _HE:
        return "he"
    if head in _SHE:
        return "she"
    return "" if head in PERSONS else "it"


def _role(text: str, kind: str, behind: str) -> str:
    roles = [role for role, form in _PRONOUNS[kind].items() if form == text] if kind else []
    if text == "her" and roles:
        word = re.match(r"\s+([^\W\d_]+)", behind)
        return "object" if word is None or word.group(1).lower() in CONNECTIVES else "possessive"
    if text == "it" and roles:
        before_verb = re.match(r"\s+(?:is|was|has|\w+s)\b", behind)
        return "subject" if before_verb else "object"
    return roles[0] if roles else ""
