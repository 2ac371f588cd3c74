"""Tables of words that exclude each other: if one replaces another, the caption becomes surely false.

Each row goes from the most to the least frequent word in captions. Any two words of a row are seldom true of one thing,
except the pairs that follow the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations

Options = tuple[tuple[str, float], ...]
"""Pairs (replacement, weight) of a word; the weight grows with the frequency of the replacement in captions."""


def _row(words: str, near: str = "") -> Iterator[tuple[str, str, float]]:
    """Yield (word, other word, weight) for all pairs of a row except those that `near` lists as "a-b"."""
    pairs = {frozenset(pair.split("-")) for pair in near.split()}
    row = [word.replace("_", " ") for word in words.split()]
    for one, other in permutations(row, 2):
        if frozenset((one.replace(" ", "_"), other.replace(" ", "_"))) not in pairs:
            yield one, other, 1 / (row.index(other) + 2)


def _pairs(text: str) -> Iterator[tuple[str, str, float]]:
    """Yield (word, other word, weight) from "big huge: tiny small, ...": each word before a colon with each after."""
    for entry in text.replace("\n", " ").split(","):
        words, _, alternatives = entry.partition(":")
        for word in words.split():
            for k, other in enumerate(alternatives.split()):
                yield word.replace("_", " "), other.replace("_", " "), 1 / (k + 2)


def _options(*sources: Iterator[tuple[str, str, float]]) -> dict[str, Options]:
    options: dict[str, dict[str, float]] = {}
    for source in sources:
        for word, other, weight in source:
            options.setdefault(word, {})[other] = weight
    return {word: tuple(weights.items()) for word, weights in options.items()}


COLOUR_WORDS = "white black red blue green brown yellow orange pink gray purple"
COLOURS = _options(
    _row(
        COLOUR_WORDS,
        "gray-white gray-black orange-yellow orange-red orange-brown pink-red pink-purple purple-blue gray-blue "
        "brown-yellow",
    ),
    _pairs("grey: red green brown yellow, tan: black red blue green, silver: red blue green brown"),
)
"""Color -> colors that nobody mistakes for it."""

MATERIALS = _options(
    _row(
        "wooden brick metal glass stone plastic concrete leather", "brick-stone stone-concrete brick-concrete"
    ),
    _pairs("wood: metal stone glass, marble: wooden metal, steel: wooden stone, iron: wooden stone"),
)

PATTERNS = _options(_row("striped plaid floral spotted", "plaid-striped"), _row("round square", ""))

OPPOSITES_OF_THINGS = _options(
    _pairs(
        """small little tiny: large big huge, large big: small tiny, huge giant massive: small tiny, new modern: old,
        old: new modern, ancient vintage antique: modern new, open: closed, closed: open, empty: full,
        wet: dry, dry: wet, clean: dirty, dirty: clean, long: short, short: long, tall: short, dark: bright,
        bright: dark, hot: cold, cold: hot, thick: thin, thin: thick, narrow: wide, wide: narrow, deep: shallow,
        flat: steep, crowded busy: empty, sunny: cloudy rainy, cloudy: sunny, rainy: sunny,
        grassy: snowy sandy, sandy: grassy, messy cluttered: tidy empty, tidy neat: messy,
        raw: cooked, cooked: raw, rough: smooth, smooth: rough, heavy: light, upper: lower, lower: upper,
        indoor: outdoor, outdoor: indoor, calm: rough,
        left: right, right: left, front: rear back, rear: front, back: front"""
    )
)

OPPOSITES_OF_LIVING = _options(
    _pairs(
        """small little tiny: large big, large big huge: small little tiny, young: old elderly,
        old elderly older: young,
        male: female, female: male, wet: dry, clean: dirty, dirty: clean, happy smiling: sad crying, sad: happy,
        crying: smiling, tall: short, sleeping: running jumping, asleep: awake, awake: asleep, adult: baby, baby: adult,
        fat: thin, bearded: bald"""
    )
)

NUMBERS = _options(_row("two three four five six", ""), _pairs("seven eight nine ten: two three four five"))
DIGITS = _options(_row("2 3 4 5 6", ""), _pairs("7 8 9 10: 2 3 4 5"))

# -- verbs, as "base third-person -ing"

_FORMS = [
    tuple(entry.split())
    for entry in """sit sits sitting,stand stands standing,lie lies lying,lay lays laying,walk walks walking,
    run runs running,jump jumps jumping,kneel kneels kneeling,crouch crouches crouching,swim swims swimming,
    fly flies flying,climb climbs climbing,dance dances dancing,sleep sleeps sleeping,ski skis skiing,
    skate skates skating,surf surfs surfing,skateboard skateboards skateboarding,snowboard snowboards snowboarding,
    ride rides riding,push pushes pushing,wash washes washing,repair repairs repairing,lead leads leading,
    feed feeds feeding,eat eats eating,cut cuts cutting,bake bakes baking,cook cooks cooking,make makes making,
    throw throws throwing,catch catches catching,kick kicks kicking,hit hits hitting,swing swings swinging,
    hold holds holding,drop drops dropping,wear wears wearing,carry carries carrying,pull pulls pulling,
    play plays playing,watch watches watching,brush brushes brushing,chase chases chasing,open opens opening,
    close closes closing,enter enters entering,leave leaves leaving,buy buys buying,sell sells selling,
    drink drinks drinking,pour pours pouring,drive drives driving,read reads reading,write writes writing,
    hug hugs hugging,pet pets petting,perform performs performing,graze grazes grazing,prepare prepares preparing,
    pose poses posing,perch perches perching,rest rests resting,roll rolls rolling,crawl crawls crawling,
    load loads loading,unload unloads unloading,paint paints painting,clean cleans cleaning,follow follows following,
    attend attends attending,celebrate celebrates celebrating,win wins winning,lose loses losing,score scores scoring,
    serve serves serving,fight fights fighting,kiss kisses kissing,smile smiles smiling,cry cries crying""".split(
        ","
    )
]
FORMS: dict[str, tuple[str, int]] = {form: (forms[0], k) for forms in _FORMS for k, form in enumerate(forms)}
"""Verb form -> (base, index of the form: 0 base, 1 third person, 2 -ing)."""
FORM_OF = {forms[0]: forms for forms in _FORMS}
LEMMAS = {"lie": "lay"}
"""Base form of a verb -> its form in scene graphs, if that is another one."""

STATIC = _options(
    _row("stand sit lie kneel crouch", "kneel-crouch sit-crouch sit-kneel"),
    _pairs(
        "lay: stand sit, sleep: stand walk, stand: walk run, sit: walk run, lie: walk run, perch: fly, pose: sleep"
    ),
)
MOVING = _options(
    _row(
        "walk run jump swim climb dance crawl ski skate surf",
        "ski-skate walk-climb ski-jump skate-jump surf-jump",
    ),
    _pairs("ski: snowboard, snowboard: ski walk, skateboard: walk run, skate: walk run"),
)
STATIC_FROM_MOVING = _options(
    _pairs("walk run: sit stand lie, jump: sit lie, swim: stand, fly: sit stand, graze: lie run")
)
STAYING = frozenset(
    ("next to", "near", "by", "beside", "behind", "in front of", "alongside")
)  # fmt: skip
"""Prepositions that go with both rest and motion: "stand near", "walk near"."""

_RIDDEN = "bike bicycle motorcycle scooter skateboard moped motorbike cart"
_MOUNTS = "horse elephant camel pony donkey cow bull ox"
_BALLS = "ball frisbee football baseball disc basketball"
_GAMES = "tennis baseball soccer football basketball game match volleyball golf hockey rugby cricket frisbee chess card"
_FOOD = """pizza sandwich cake salad burger hamburger hotdog meat bread pie steak fish chicken carrot banana apple fruit
vegetable meal food donut doughnut slice cookie dessert breakfast lunch dinner"""
TRANSITIVE: dict[str, tuple[tuple[frozenset[str] | None, Options], ...]] = {}
"""Verb -> pairs (objects, verbs that exclude it before these objects); None means any object."""
for _line in (
    f"ride|{_RIDDEN}|push wash repair carry",
    f"ride|{_MOUNTS}|lead feed wash chase",
    f"lead|{_MOUNTS} dog|ride feed chase",
    f"push|{_RIDDEN} car cart stroller|ride pull carry",
    f"pull|{_RIDDEN} car cart wagon suitcase|push carry",
    f"throw|{_BALLS}|catch hold kick",
    f"catch|{_BALLS}|throw kick",
    f"kick|{_BALLS}|throw catch hold",
    f"hit|{_BALLS}|throw catch miss",
    f"hold|{_BALLS}|throw kick catch",
    "swing|bat racket racquet|drop carry",
    "hold|bat racket racquet|drop throw",
    f"play|{_GAMES}|watch",
    f"watch|{_GAMES}|play",
    "wear|hat helmet tie cap jacket coat scarf backpack glass sunglass|hold carry",
    "hold|hat helmet jacket coat|wear",
    f"eat|{_FOOD}|make prepare serve bake",
    f"cut|{_FOOD}|bake serve",
    f"prepare make cook|{_FOOD}|eat serve",
    f"serve|{_FOOD}|eat make",
    f"bake|{_FOOD}|eat",
    "hold|dog cat baby puppy kitten child|chase feed wash",
    "feed|dog cat baby horse cow giraffe elephant sheep bird goat|chase wash lead",
    "chase|dog cat horse cow sheep man|lead feed hold",
    "brush|tooth hair|wash cut",
    "wash|dish car hand dog|break dry paint",
    "open|door window box bottle laptop|close",
    "close|door window box bottle|open",
    "enter board|train bus building plane room|leave",
    "leave|train bus building plane room|enter",
    "buy|None|sell",
    "sell|None|buy",
    "drink|None|pour",
    "pour|None|drink",
    "drive|car truck bus van cart|wash push repair",
    "read|book newspaper magazine letter|write",
    "write|book letter|read",
    "hug|None|kick chase",
    "win|None|lose",
    "lose|None|win",
    "load|None|unload",
    "unload|None|load",
    "carry|None|throw drop kick",
    "fly|kite plane|carry repair",
    "smile|None|cry",
):
    _verbs, _names, _choices = _line.split("|")
    for _verb in _verbs.split():
        TRANSITIVE[_verb] = (
            *TRANSITIVE.get(_verb, ()),
            (
                None if _names == "None" else frozenset(_names.split()),
                tuple((other, 1 / (k + 2)) for k, other in enumerate(_choices.split()) if other in FORM_OF),
            ),
        )

# -- places

_PLACES: Mapping[str, str] = {
    "on": "under,next to,behind,in front of",
    "on top of": "under,next to,behind,inside",
    "atop": "under,behind",
    "under": "on,behind,next to,in front of,above",
    "underneath": "on,on top of,behind,above",
    "beneath": "on,on top of,behind,above",
    "below": "above",
    "above": "below,under",
    "behind": "in front of,on,under",
    "in front of": "behind,on,under",
    "next to": "on,behind,under,inside",
    "beside": "on,behind,under",
    "near": "on,under",
    "by": "on,under",
    "alongside": "on,under,behind",
    "in": "next to,behind,in front of,on top of,under",
    "inside": "outside,behind,next to,on top of",
    "outside": "inside,in",
    "inside of": "outside of,behind,next to",
    "outside of": "inside of,inside",
    "between": "behind,in front of,above",
    "around": "on,under,behind",
    "at": "on,under",
    "over": "under",
    "into": "out of,past",
    "out of": "into",
    "toward": "away from",
    "towards": "away from",
    "away from": "towards,toward",
    "up": "down",
    "down": "up",
    "through": "past,around",
    "during": "after,before",
    "before": "after,during",
    "after": "before,during",
}
PLACES: dict[str, Options] = {
    word: tuple((other, 1 / (k + 2)) for k, other in enumerate(alternatives.split(",")))
    for word, alternatives in _PLACES.items()
}
"""Preposition -> prepositions that exclude it between the same two things."""
SIDES = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
AT_ONLY = frozenset("table desk counter bar".split())
SLOPES = frozenset("hill slope mountain stair staircase ramp ladder step mountainside hillside".split())
"""Things on which "up" and "down" exclude each other; on a street, both may be true."""
PLACE_VERBS = frozenset(
    """sit sits sitting stand stands standing lie lies lying lay lays laying sleep sleeps sleeping rest rests resting
    park parked parking perch perched perches kneel kneeling crouching seated standing placed located positioned pose
    poses posing walk walks walking run runs running""".split()
)
"""First words of predicates in which the preposition may be replaced: "sits on"."""
NO_SUPPORT = frozenset(
    """ground floor grass snow sand dirt mud water sky air wall ceiling head hand back leg arm face neck mouth foot lap
    shoulder finger body eye nose ear chin knee waist chest side top bottom corner edge middle front end
    tv phone cellphone
    computer internet menu tour
    display leash line row circle way trip day night morning sunset dusk light sunlight sun rain wind shade shadow
    weather distance background foreground direction motion action shape color style size world wave court diamond
    pitch track trail path shore coast bank horizon hair beard wheel stage screen surface set bar pair uniform
    cover centre center area part end start middle piece half cup series list page album road street way
    mood team group crowd pose position traffic bloom love season space area flight use""".split()
)
"""Nouns before which no preposition is replaced, because no other one fits: "on the ground", "in the sky"."""

# -- things

ANYWHERE = _options(
    _row("dog cat horse cow sheep bird elephant giraffe bear zebra goat monkey pig rabbit lion tiger deer camel",
         "sheep-goat horse-zebra lion-tiger"),
    _row("puppy kitten lamb calf", ""),
    _pairs(
        """man: woman girl, woman: man boy, boy: girl woman, girl: boy man, lady: man boy, guy: woman girl, gentleman:
        lady woman, child kid: man woman, baby: man woman, bride: groom, groom: bride, king: queen, queen: king,
        father: mother, mother: father, son: daughter, daughter: son, brother: sister, sister: brother, husband: wife,
        wife: husband, prince: princess, princess: prince, waiter: waitress,
        waitress: waiter, boyfriend: girlfriend, girlfriend: boyfriend, grandfather: grandmother,
        grandmother: grandfather, businessman: businesswoman, businesswoman: businessman,
        skier: snowboarder, snowboarder: skier, surfer: swimmer, skateboarder: cyclist, batter: pitcher,
        pitcher: batter, catcher: pitcher, cyclist: skateboarder jogger"""
    ),
    _row("kitchen bathroom bedroom office classroom garage living_room dining_room",
         "dining_room-kitchen living_room-dining_room"),
    _row("tennis baseball soccer basketball football golf hockey volleyball cricket rugby",
         "soccer-football football-rugby"),
    _row("guitar piano violin trumpet saxophone cello flute", ""),
    _row("skateboard surfboard snowboard bicycle", ""),
)  # fmt: skip
"""Thing -> replacements that make any caption with this thing false."""

ANCHORED = _options(
    _row("car bus train truck motorcycle boat bike bicycle airplane plane helicopter ship van",
         "bike-bicycle bike-motorcycle airplane-plane boat-ship van-truck van-car "
         "airplane-helicopter plane-helicopter"),
    _row("table chair bed couch bench desk", "table-desk"), _pairs("sofa: chair bed bench"),
    _row("street beach field river forest park desert mountain lake",
         "field-park street-park forest-park mountain-forest lake-park river-lake"),
    _pairs("road: beach field river, ocean sea: river lake desert,"
           "city: village forest desert, village: city, farm: zoo"),
    _row("plate bowl box basket bag cup vase bottle tray", "plate-tray bowl-cup"),
    _row("grass snow sand water mud", "water-mud"),
    _row("pizza cake sandwich salad donut burger steak", "sandwich-burger"),
    _pairs("hotdog: pizza sandwich, doughnut: cake sandwich, hamburger: pizza,"
           "banana: apple orange, apple: banana orange,"
           "orange: banana apple, strawberry: banana, lemon: apple, carrot: apple tomato, tomato: carrot"),
    _row("wine beer coffee milk juice tea", ""),
    _row("dress suit swimsuit wetsuit bikini robe", "swimsuit-bikini swimsuit-wetsuit"),
    _pairs("hat: helmet, helmet: hat"),
    _row("phone book umbrella camera newspaper laptop", "phone-camera book-newspaper"),
    _pairs("cellphone: book newspaper umbrella"),
    _row("frisbee ball kite", ""), _pairs("hand: mouth, mouth: hand, head: shoulder, shoulder: head"),
    _row("hotel church school hospital museum library castle airport stadium", ""),
    _row("wedding concert parade conference festival premiere", "festival-concert festival-parade festival-premiere"),
    _row("roof balcony bridge", ""),
    _pairs("house: barn church castle, tree: rock, butterfly: bee bird, town: village forest desert"),
)  # fmt: skip
"""Thing -> replacements. A thing is replaced only if it is the first object, in use, or has something in or on it."""
MASS = frozenset("grass snow sand water mud rain wine beer coffee milk juice tea".split())
MASS_OR_NOT = frozenset("pizza cake steak salad soup pasta chicken".split())  # "a pizza", "some pizza"
COUNTED = frozenset("sandwich donut burger".split())
"""Food that takes no "some" in the singular: "a donut"."""
INVARIANT = frozenset("sheep deer".split())
