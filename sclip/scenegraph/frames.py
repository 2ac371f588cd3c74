"""Mark frames, noun phrases about the picture: "a photo of", "in the background", "a sense of calm".

The walk reads a frame like any noun phrase, but the graph gets no object for the frame. The same words are
objects if the picture shows them: "a photo on a wall", "a man holding a picture".
"""

from __future__ import annotations

from collections.abc import Sequence

from sclip.scenegraph import lexicon
from sclip.scenegraph.chunks import Chunk
from sclip.scenegraph.tagged_words import Word

_HEADS = lexicon.ABSTRACT | lexicon.MANNERS | lexicon.DIRECTION_NOUNS | lexicon.FRAMES | {"corner", "side"}
_HEADS |= lexicon.UNSHOWN | lexicon.OCCASIONS

_APART = frozenset("after before following".split())
"""Words that put an event before or after the time of the picture."""

_POINTING = lexicon.PLACE_ADJECTIVES | lexicon.DIRECTION_NOUNS | lexicon.FRAMES
"""Words that may stand before the direction noun of a frame: "the upper left corner"."""


def mark_frames(words: Sequence[Word], chunks: Sequence[Chunk]) -> None:
    """Mark the chunks that are frames, in place."""
    for chunk in chunks:
        if chunk.name and (head := lexicon.noun_lemma(words[chunk.head].text)) in _HEADS:
            chunk.frame = _frames(words, chunk, head)


def _frames(words: Sequence[Word], chunk: Chunk, head: str) -> bool:
    if head in lexicon.ABSTRACT:
        return True
    if head in lexicon.UNSHOWN and (chunk.name == head or head not in lexicon.UNSHOWN_ALONE):
        return words[chunk.head - 1].text != "still"  # "a still life"
    before = words[chunk.start - 1].text if chunk.start else ""
    if head in lexicon.OCCASIONS:
        return before in _APART
    if head in lexicon.MANNERS and before == "in":
        return True
    after = words[chunk.end].text if chunk.end < len(words) else ""
    definite = words[chunk.start].text in ("the", "this")
    if head in lexicon.DIRECTION_NOUNS or (head in ("corner", "side") and _points(words, chunk)):
        before_head = {word.text for word in words[chunk.start + 1 : chunk.head]}
        return definite and after != "of" and before_head <= _POINTING  # but "the shopping center"
    if head not in lexicon.FRAMES:
        return False
    if definite and chunk.name in lexicon.ALWAYS_FRAMES and after != "of":
        return True
    if before in lexicon.FRAME_PREPOSITIONS and head in ("shot", "view", "close-up", "closeup"):
        return True
    looks = before == "at" and chunk.start > 1 and words[chunk.start - 2].code in "VG"
    if looks:  # "looking at a painting"
        return False
    if before in lexicon.FRAME_PREPOSITIONS and after != "of" and (head != "background" or before == "in"):
        return chunk.name in lexicon.FRAMES
    return _opens(words, chunk.start) and (head in lexicon.PURE_FRAMES or _depicts(words, chunk.end))


def _points(words: Sequence[Word], chunk: Chunk) -> bool:
    return any(word.text in ("left", "right") for word in words[chunk.start : chunk.head])


def _opens(words: Sequence[Word], start: int) -> bool:
    """Return whether a sentence begins at `start`; "There is" or "This is" may precede."""
    i = start - 1
    while i >= 0 and (words[i].code in "XBAD" or words[i].text in ("this", "here", "it", "that", "these")):
        i -= 1
    return i < 0 or words[i].code in ".,"


def _depicts(words: Sequence[Word], i: int) -> bool:
    """Return whether the words after a noun like "photo" say what the photo shows, not where it hangs."""
    copula = False
    for word in words[i : i + 4]:
        if word.code == "B":
            copula = True
        elif word.code in "VGE":
            lemma = lexicon.verb_lemma(word.text)
            return lemma in lexicon.DEPICTING or (copula and lemma not in lexicon.PLACING)
        elif word.code == "P":
            hangs = any(
                w.code in "EV" and lexicon.verb_lemma(w.text) in lexicon.HANGING for w in words[i : i + 12]
            )
            return (word.text in ("of", "with") and not hangs) or (copula and word.text not in lexicon.PLACES)
        elif word.code not in "AW":
            return copula
    return copula
