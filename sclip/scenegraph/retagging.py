"""Correct nouns that the tagger takes for verbs, adverbs or adjectives, and verbs that it takes for nouns.

The tagger was trained on news, whose sentences have a verb. Captions are mostly noun phrases, so the tagger
takes the last noun for a verb ("a lamp near building"). Three signs show this: the dictionary ("skateboard"
is no adverb), the word before (no verb follows "the"), and the ending -s ("a horse rides", "green leaves").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sclip.scenegraph import lexicon
from sclip.scenegraph.reference import is_living, is_plural_noun

if TYPE_CHECKING:
    from sclip.scenegraph.tagged_words import Word

ING_NOUNS = frozenset(
    """building ceiling clothing railing awning wing ring string king evening morning frosting icing bedding fencing
    scaffolding netting lettering carpeting thing earring sibling siding flooring tubing shelving housing wedding
    pudding rigging seating molding moulding wiring stocking
    inning""".split()
)
ING_BOTH = frozenset(
    """painting writing drawing topping dressing opening marking covering landing crossing serving filling carving
    engraving trimming stuffing lighting swing sling meeting offering outing setting clearing rendering""".split()
)
NOUNS_FIRST = frozenset(
    """train fire sign bear head fork towel bench rug sink post mirror gravel shadow stove spoon shower clock monitor
    bus vase rack blanket racquet pillow window curtain ground sand kitten ear counter bun store sauce pole helmet fence
    crowd bathtub arm wave wall tray trash straw stone sleeve shrimp rainbow pasture microwave menu hat horn elephant
    drain curb cone carrot button bow bat map paddle brush kite lettuce stem pot pan plate bowl bottle cup glass box
    bag table boat car truck bike skateboard surfboard snowboard board light field tree grass flower plant road street
    water shoe shirt jacket coat suit skirt tile floor roof wheel tire horse dog cat cow sheep bird animal person baby
    child umbrella oven racket fair""".split()
)
"""Nouns that are also verbs. In FACTUAL's training half, they are objects at least 6 times as often as predicates."""
_CAN = frozenset(
    "trash garbage soda beer tin watering paint spray aluminum aluminium metal recycling rubbish waste coke".split()
)
_SOMEWHERE = frozenset(
    """backstage onstage outdoor outdoors indoor indoors upstairs downstairs offshore ashore underwater overhead
    mid-air midair""".split()
)
"""Adverbs of place that the tagger takes for nouns: "poses with a skateboard backstage"."""
_PURPOSES = frozenset(
    """dining greeting parking sewing swimming rocking cutting chopping frying washing steering shopping ironing
    sleeping sailing fishing training wedding""".split()
)
_TOOLS = frozenset(
    """chair chairs table tables room card cards machine machines board boards pan pans pool pools bag bags cart carts
    wheel lot lots hall area boat boats ship ships vessel vessels session set""".split()
)
_KINDS = frozenset("multi cream orange tan rust long short dark light double different heart".split())
_NOT_THINGS = frozenset(
    """young old elderly dark open wild rich poor sick injured opposite other same right left past present cold
    outdoor indoor front back rear very next last first second top bottom""".split()
)


def retag(words: Sequence[Word]) -> None:
    """Correct the codes of wrongly tagged words in place."""
    for i, word in enumerate(words):
        code, text = word.code, word.text
        describes = i + 1 < len(words) and words[i + 1].code == "N"  # "hotel outdoor pool"
        if (
            text in _SOMEWHERE
            and not describes
            and ((i and words[i - 1].code == "N") or text.startswith("mid"))
        ):
            word.code = "A"
        if text == "both" and i and words[i + 1 : i + 2]:
            word.code = "A" if _is_adverb(words, i) else code
        if code in "DPC,.ST" or not text.isalpha():
            continue
        if code == "N":
            following = words[i + 1].code if i + 1 < len(words) else ""
            if (
                following == "N"
                and (text.endswith("ed") or lexicon.is_adjective(text))
                and not lexicon.is_noun(text)
                and lexicon.is_word(words[i + 1].text)  # "new york"
            ):
                word.code = "J"  # "a tattooed woman"
            elif (
                following == "J"
                and not word.fixed
                and lexicon.is_adjective(text)
                and ((i and words[i - 1].code in "VP") or text in lexicon.COLOURS)
            ):
                word.code = "J"  # "cross wet snowy streets", "a turquoise strapless dress"
            elif i and (
                (words[i - 1].code == "N" and _is_verb(words, i)) or _follows_one(words, i, following)
            ):
                word.code = "V"
            continue
        before = words[i - 1].code if i else ""
        after = words[i + 1].code if i + 1 < len(words) else ""
        if text in lexicon.JOINED_BEHIND and before in ("N", "J", "A") and code in "VGEJ" and i:
            if (
                before == "J"
                or (before == "A" and words[i - 1].text in _KINDS)
                or (after in ("N", "J") and words[i - 1].text in lexicon.ATTRIBUTE_NOUNS | _KINDS)
            ):
                words[i - 1].code = word.code = "J"  # "a cream colored door"
        elif code == "A" and text == "long" and after in ("N", "J"):
            word.code = "J"
        elif code == "V" and not i and after in ("E", "J", "N", "G") and lexicon.is_adjective(text):
            word.code = "J"  # "Empty parked train"
        elif code == "V" and text.endswith("ed") and before == "J" and after == "N":
            word.code = "J"
        elif text == "drops" and i and words[i - 1].text in ("rain", "water", "dew"):
            word.code = "N"
        elif code in "VG" and _links(words, i):
            word.code = "B"
        elif (
            code == "G"
            and text in _PURPOSES
            and before in "DJMPC"
            and after == "N"
            and words[i + 1].text in _TOOLS
        ):
            word.code = "J"  # "a modern dining chair", but "a woman washing pans"
        elif code in "VGE":
            if _is_noun(words, i, before, after):
                word.code = "N"
                if before == "C":
                    word.head = i  # this head was parsed for a verb and is wrong for a noun
        elif code == "B":
            if text == "can" and (before in ("D", "J") or (i and words[i - 1].text in _CAN)):
                word.code = "N"
        elif code == "O" and after == "N" and lexicon.is_adjective(text):
            word.code = "J"  # "a snowy hill"
        elif code in "JAOR" and _ends_phrase(text, code, before, after):
            word.code = "V" if before == "N" and _is_verb(words, i) else "N"


def sentence_start(words: Sequence[Word], i: int) -> int:
    """Return the index of the first word of word i's sentence, or of its part after a colon, semicolon or dash."""
    while i and words[i - 1].code != ".":
        i -= 1
    return i


def _is_adverb(words: Sequence[Word], i: int) -> bool:
    """Return whether "both" is an adverb that belongs to a later "and": "both sweeps and dusts"."""
    before, after = words[i - 1].code, words[i + 1].code
    if before == "N" and after == "N" and "".join(word.code for word in words[i + 2 : i + 4]) == "CV":
        words[i + 1].code = after = "V"  # the tagger took "sweeps" for a noun
    return (before == "N" and after == "V") or (before == "B" and after == "J") or after == "P"


def _is_noun(words: Sequence[Word], i: int, before: str, after: str) -> bool:
    word = words[i]
    text = word.text
    if word.code == "G":
        if i + 1 < len(words) and words[i + 1].text == "of" and (lexicon.is_noun(text) or text in ING_BOTH):
            return True  # "drawing of a pen"
        if text in ING_NOUNS:
            return after != "D" or before not in ("N", "B", "H", "")
        return text in ING_BOTH and before in ("P", "D", "J", "M", "S") and after not in ("D", "N")
    if text in lexicon.AUXILIARIES or not lexicon.is_noun(text):
        return False
    if not lexicon.is_verb(text):
        return True
    if word.code == "E":
        return False
    if before == "D":
        return words[i - 1].text not in _SUBJECTS
    if before in ("H", "B", "W", "R", "A"):
        return False
    start = sentence_start(words, i)
    if before == "V" and words[start].code == "P" and after in (",", ".", "", "P"):
        return words[i - 1].text.endswith("s")  # "out of the chimney rises smoke"
    if i and words[i - 1].text in ("one", "other", "others", "another"):
        return False  # "the other stirs a pot"
    if words[i - 1].text == "nor" and text.endswith("s"):
        return True  # "neither a coat nor gloves"
    base = lexicon.noun_lemma(text)
    if word.code == "V" and before == "N" and base == text and after == "P":
        one = lexicon.noun_lemma(words[i - 1].text)
        if one != words[i - 1].text and is_living(one):
            return False  # "passengers wave from its windows"
    if base == "bear" and words[i - 1].text in ("teddy", "polar", "panda"):
        return True
    if base != text:  # "green leaves": a verb needs a subject, not an adjective
        return before in ("P", "J", "M", "S") or (before == "" and after in ("P", "", ".", "B", "G", "E"))
    if before == "C" and i > 1 and words[i - 2].code == "N" and after in ("G", "E", "P", "B", "", "."):
        return all(other.code != "V" for other in words[start:i])  # "a man in a shirt and tie sitting"
    if before == "" and after == "P" and words[1].text in _LOCATIVES and base not in ACTIONS | _ORDERS:
        return True  # "whisk on a table"
    if base not in NOUNS_FIRST:
        return (
            before == "P"
            and after in ("", ".", ",", "C", "P")
            and words[i - 1].text not in ("before", "after")
        )
    return not (before == "T" and after in ("D", "N", "H", "J")) and not (
        before == "" and after in ("D", "H")
    )


def _follows_one(words: Sequence[Word], i: int, behind: str) -> bool:
    """Return whether the word at i is the verb of a pronoun: "one licks its paw", "the other eats a fish"."""
    one = words[i - 1].text == "one" or (words[i - 1].text == "other" and behind == "D")
    one = one or words[i - 1].text == "another"
    base = lexicon.noun_lemma(words[i].text)
    return one and base != words[i].text and lexicon.is_verb(base)


def _links(words: Sequence[Word], i: int) -> bool:
    """Return whether a verb only links its subject to the next words: "looks tired", "seems to sleep"."""
    lemma = lexicon.verb_lemma(words[i].text)
    if lemma not in _LINKING:
        return False
    codes = "".join(word.code for word in words[i + 1 : i + 5])
    if words[i].code == "V" and codes[:1] == "P" and words[i + 1].text.endswith(" than"):
        return True  # "looks higher than"
    return re.match("A?E|A*J+(?!N)" + ("|T" if lemma in ("seem", "appear") else ""), codes) is not None


def _is_verb(words: Sequence[Word], i: int) -> bool:
    """Return whether a supposed noun after a noun is a verb: "a dog sprints", "the dog and the cat play"."""
    text, noun = words[i].text, words[i - 1].text
    after = words[i + 1].code if i + 1 < len(words) else ""
    shared = after == "C" and words[min(i + 2, len(words) - 1)].code == "V"  # "peels and eats a banana"
    if not (shared or after in ("P", "", ".", "D", "A", "R", "T", ",")) or words[i - 1].code != "N":
        return False
    if any(word.code in "VB" for word in words[sentence_start(words, i) : i]):
        return False
    if text in ACTIONS:
        in_row = "C" in [word.code for word in words[max(i - 3, 0) : i - 1]]
        before = words[i - 2].text if i > 1 and words[i - 2].code != "." else ""
        return (in_row or is_plural_noun(noun, before)) and noun not in ACTIONS
    base, one = lexicon.noun_lemma(text), lexicon.noun_lemma(noun)
    living = is_living(one)
    if one != noun:  # "two mice nibble at a loaf"
        farmers = one.endswith("er")  # "farmers market"
        # "the hounds sniff at"
        living = living or words[min(i + 1, len(words) - 1)].text in ("at", "into", "onto")
        return living and not farmers and base == text and text not in NOUNS_FIRST and lexicon.is_verb(text)
    if base == text or not lexicon.is_verb(base):
        return False
    if noun == "dozen":  # "a dozen eggs"
        return False
    # "the woman waves to a boy"
    acts = base not in NOUNS_FIRST or (bool(after) and words[i + 1].text in ("at", "to"))
    if base in ACTIONS or (living and acts and noun not in _POSSESSED):
        return True
    start = i - 1
    while start and words[start].code in "NJ":
        start -= 1
    return words[start].text in ("a", "an") and (living or acts)  # "a" excludes a plural: "a bear fishes"


ACTIONS = frozenset(
    """wait sit stand lie lay rest hang sleep graze float pose lean swim eat look fly perch sprint ski surf sail run
    jump leap crawl nap snooze dance perform race dive splash play walk talk stroll jog skate skateboard snowboard
    slide climb smile laugh stare gaze peek peer march hike drink browse bark glide soar hover wade bathe stretch
    yawn grin speak sing travel move shine bloom grow glow burn fall flow gallop trot kneel crouch relax work
    turn stop bend come go stay arrive wake""".split()
)
"""Verbs that need no object."""

_LINKING = frozenset("look seem appear remain stay feel become".split())
_POSSESSED = frozenset(
    "baby child kid toddler dog cat horse bear cow sheep bird elephant lion tiger pig fish".split()
)
"""Nouns of living beings that captions put before things made for them: "baby toys", "horse stables"."""

_LOCATIVES = frozenset(
    ("on", "in", "next to", "under", "behind", "beside", "near", "in front of", "with", "on top of")
)
_ORDERS = frozenset(
    "put cut look get turn step go come take click place drop pour stay keep live check fill".split()
)
_SUBJECTS = frozenset("this that these those both all each some another either neither half".split())


def _ends_phrase(text: str, code: str, before: str, after: str) -> bool:
    """Return whether a word that was not tagged as noun or verb is the last noun of its phrase: "a skateboarder"."""
    unknown = not (lexicon.is_noun(text) or lexicon.is_adjective(text))
    if unknown and code == "J" and before in ("D", "J", "N") and after in ("P", "A", "V", "G", ".", ""):
        return not text.endswith(("ed", "y", "ish", "ous", "al", "ic", "ble", "ful"))  # "a skateboarder"
    if (
        text in lexicon.COLOURS
        or text in lexicon.CONNECTIVES
        or text in lexicon.SILENT_MODIFIERS
        or not lexicon.is_noun(text)
    ):
        return False
    if code == "O":
        return True
    if not lexicon.is_adjective(text):
        return before != "B"
    return (
        code == "J"
        and (
            before in ("D", "J", "M", "S")
            or (before == "N" and text in NOUNS_FIRST)
            or (before == "" and after in ("V", "B"))  # "senior is playing the guitar"
        )
        and after in ("", "P", "V", "B", ".")
        and text not in _NOT_THINGS
    )
