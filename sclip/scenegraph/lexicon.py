"""Word lists of the parser (spatial phrases, measures, colors, materials), and the forms that graphs use for words.

Measures, containers, place nouns and materials are closed classes of words. They were read from the training half
of FACTUAL (Li et al., ACL Findings 2023). Graphs use the forms of FACTUAL's annotators: "X is covered in Y" is
(Y, cover, X), "the wheels of a bus" is (bus, have, wheel), "beneath" is "under".

A spatial phrase is made of PLACE_PREPOSITIONS, PLACE_DETERMINERS, PLACE_ADJECTIVES and PLACE_NOUNS ("on the
far side of"), or is one of MULTIWORD_PREPOSITIONS. Sizes need no list, because the tagger finds adjectives.

Only the look-up functions import lemminflect: lemminflect imports spaCy, which only a `Parser` should load.
"""

from __future__ import annotations

from functools import lru_cache

NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()
    )
} | {"dozen": "12"}

MEASURES = {
    "group": "group of", "groups": "group of", "pair": "2", "couple": "2", "piece": "piece", "pieces": "piece",
    "slice": "slice", "slices": "slice", "patch": "patch", "patches": "patch", "part": "part", "pile": "pile",
    "bunch": "", "lot": "", "lots": "", "row": "", "rows": "", "herd": "",
    "set": "", "sets": "", "stack": "stack of", "crowd": "", "flock": "flock of",
    "variety": "", "cluster": "", "number": "", "roll": "", "bit": "", "bits": "",
    "kind": "", "kinds": "", "type": "", "types": "", "assortment": "", "dozen": "12", "dozens": "",
    "collection": "", "bouquet": "", "clump": "", "bundle": "", "amount": "", "portion": "", "section": "",
    "loaf": "loaf of", "layer": "", "half": "", "body": "", "team": "", "series": "", "view": "", "close": "",
    "shot": "", "closeup": "", "close-up": "", "array": "", "hundreds": "", "thousands": "", "tons": "",
    "plenty": "", "handful": "", "range": "", "selection": "", "mix": "", "mixture": "", "sort": "", "sorts": "",
    "strip": "", "piles": "pile", "stacks": "stack of", "some": "", "all": "", "most": "", "each": "", "both": "",
    "heap": "heap of", "mound": "mound of", "litter": "litter of", "fleet": "fleet of",
    "batch": "batch of", "harvest": "", "gang": "gang of", "pride": "pride of", "example": "", "examples": "",
    "one": "", "several": "", "many": "", "any": "", "none": "", "canvas": "", "tapestry": "", "expanse": "",
    "mosaic": "", "blend": "", "smattering": "", "backdrop": "", "school": "", "shades": "", "tones": "", "hues": "",
    "swarm": "swarm of", "scattering": "", "sample": "", "samples": "", "chain": "", "pat": "",
    "sprinkling": "", "trio": "", "silhouette": "silhouette",
    "silhouettes": "silhouette", "display": "", "combination": "", "multitude": "", "abundance": "",
}  # fmt: skip
"""Noun before "of" that is no object -> attribute of the noun after "of" ("2" in "a pair of shoes"); "" means none."""

CONTAINERS = {
    "plate": "on", "tray": "on", "glass": "in", "cup": "in", "box": "in", "bottle": "in", "bag": "in",
    "basket": "in", "vase": "in", "line": "in", "jar": "in", "can": "in", "pot": "in", "mug": "in",
    "bowl": "in", "bucket": "in", "container": "in", "field": "on", "garden": "in", "rack": "on", "pan": "in",
}  # fmt: skip
"""Noun that contains the noun after "of" -> the predicate: "a glass of wine" is (wine, in, glass)."""

ATTRIBUTE_NOUNS = frozenset(
    """metal brick glass stone wood dirt cement concrete plastic leather paper iron steel gold silver rock ice
    straw clay gravel rubber porcelain ceramic wicker tile marble aluminum aluminium brass copper chrome tin cotton
    denim velvet wool silk cardboard granite bamboo cobblestone asphalt sand foam wire linoleum hardwood plaster
    white black red blue green yellow orange pink purple brown tan grey gray beige maroon turquoise teal cream
    plaid round square circle rectangle oval adult baby mother toddler male female asian wii laptop computer pine
    ocean tomato chocolate decker fighter apple army military football khaki navy adult suit strawberry cherry
    blueberry camouflage camo calico tabby bronze lace linen satin
    antique vintage evergreen palm-tree leafy wispy grassy folding""".split()
) - {"palm-tree"}
"""Nouns that are attributes of the noun after them: "a brick wall" is (brick, is, wall)."""

COMPOUND_ADJECTIVES = frozenset(
    """hot polar front right left remote french back living dining cutting chopping frying
    steering washing swimming parking sleeping rocking shopping baking boxing wedding""".split()
)
"""Adjectives that are part of the name: "a polar bear", "the left hand"."""

COMPOUND_NAMES = frozenset(
    tuple(name.split())
    for name in """light pole,light post,light fixture,light bulb,light switch,light house,ski pole,ski lift,ice cube,
    computer mouse,computer keyboard,american flag,orange juice,chocolate cake,chocolate chip,ice cream,
    apple tree,cherry tree,orange tree,electronic device,paper towel,paper bag,paper plate""".split(",")
)
"""Names of two words ("paper towel"). Before other nouns, "paper" is an attribute: "a paper hat"."""

ATTRIBUTE_PAIRS = frozenset(
    tuple(pair.split())
    for pair in """chain link,double decker,king size,queen size,flat screen,long sleeve,short sleeve,well lit,
    long sleeved,short sleeved,high rise,high school,high speed,wrought iron""".split(",")
)
"""Pairs of words that are one attribute: "a chain link fence"."""

JOINED_BEHIND = frozenset(
    """haired sleeved legged shaped looking skinned eyed faced headed colored coloured lit dressed chested
    seated toned tailed sized topped backed sided heeled fashioned""".split()
)
"""Second words of an attribute: "a dark haired man"."""

COLOURED = frozenset("color colour colored coloured".split())

SILENT_MODIFIERS = frozenset(
    """many several few other another different various multiple same own some certain such opposite next more
    most numerous additional only entire whole about""".split()
)
"""Modifiers that only count or point ("several", "other"), so they are not attributes."""

SHADES = frozenset("light dark bright navy pale sky deep neon lime royal baby hot multi dull".split())
COLOURS = frozenset(
    """white black red blue green yellow orange pink purple brown tan grey gray beige maroon turquoise teal cream
    gold golden silver colored coloured colour color violet""".split()
)

ATTRIBUTE_FORMS = {
    "wood": "wooden", "blond": "blonde", "multi colored": "multi-colored", "multi coloured": "multi-colored",
    "multicolored": "multi-colored", "multicoloured": "multi-colored", "multi-coloured": "multi-colored",
}  # fmt: skip

NAME_FORMS = {
    "cell phone": "cellphone", "surf board": "surfboard", "side walk": "sidewalk", "counter top": "countertop",
    "skate board": "skateboard", "tooth brush": "toothbrush", "base ball": "baseball",
    "guy": "person", "guys": "people", "someone": "person", "somebody": "person", "leave": "leaves",
    "snow board": "snowboard", "foot ball": "football", "tee shirt": "t-shirt", "tshirt": "t-shirt",
    "t shirt": "t-shirt", "motor cycle": "motorcycle", "lap top": "laptop", "bill board": "billboard",
    "hotdog": "hot dog", "wheel chair": "wheelchair", "wet suit": "wetsuit", "streetlight": "street light",
    "panda bear": "panda",
}  # fmt: skip

PREPOSITION_FORMS = {
    "beneath": "under", "underneath": "under", "below": "under", "onto": "on", "upon": "on", "atop": "on top of",
    "toward": "towards", "amongst": "among", "besides": "beside", "amidst": "among", "amid": "among",
    "inbetween": "between", "nearby": "near", "adjacent to": "next to", "alongside": "alongside", "w/": "with",
}  # fmt: skip

MULTIWORD_PREPOSITIONS = {
    tuple(phrase.split()): form
    for phrase, form in {
        "next to": "next to", "close to": "close to", "out of": "out of", "inside of": "inside",
        "outside of": "outside", "in between": "between", "away from": "away from", "across from": "across from",
        "far from": "away from", "near to": "near", "off of": "off", "along side of": "alongside",
        "along side": "alongside", "up against": "against", "adjacent to": "next to", "in front of": "in front of",
        "side by side with": "side by side with", "side by side": "side by side",
        "thumbs up": "thumbs-up", "thumb up": "thumbs-up", "on top of": "on top of", "ontop of": "on top of",
        "opposite of": "opposite of", "full of": "have", "left of": "at the left of", "up to": "to",
        "right of": "on the right side of", "beside of": "beside", "on to": "on", "in to": "into",
        "underneath of": "under", "topped with": "top with", "prior to": "before", "ahead of": "before",
        "on the background of": "against", "on a background of": "against", "against the background of": "against",
        "in the form of": "in form of", "in a form of": "in form of", "in the shape of": "in shape of",
        "in the style of": "in style of",
        "as part of": "as part of", "in honor of": "in honor of", "in addition to": "with", "along with": "with",
        "together with": "with", "instead of": "without", "rather than": "without", "devoid of": "without",
        "empty of": "without",
    }.items()
}  # fmt: skip

CONNECTIVES = frozenset(
    """about above across after against along alongside amid among around as at atop before behind below beneath
    beside besides between beyond by down during for from in inside into like near of off on onto opposite out
    outside over past through throughout to toward towards under underneath up upon via with within without
    and or while""".split()
) | {phrase[0] for phrase in MULTIWORD_PREPOSITIONS}

PLACE_PREPOSITIONS = frozenset("on in at to from along by near onto".split())
PLACE_DETERMINERS = frozenset("the a an its his her their one each either both other it's".split())
PLACE_ADJECTIVES = frozenset(
    "left right far other opposite very front back near upper lower top bottom both either hand rear immediate".split()
)
PLACE_NOUNS = {
    "side": "on side of", "sides": "on side of", "top": "on top of", "tops": "on top of", "front": "in front of",
    "back": "on back of", "middle": "on middle of", "center": "in center of", "centre": "in center of",
    "bottom": "on bottom of", "edge": "on edge of", "edges": "on edge of", "end": "in end of",
    "corner": "in corner of", "rear": "at rear of", "left": "at the left of", "right": "on the right side of",
    "inside": "inside", "outside": "outside", "base": "at base of", "midst": "on middle of",
}  # fmt: skip

PERSONAL = frozenset("it them him her itself themselves himself herself".split())
REFLEXIVES = frozenset("itself himself herself themselves".split())
HELD = frozenset("in on around over under between".split())
OWNERS = frozenset("his her its their".split())
VERB_FORMS = {"lie": "lay", "seat": "sit", "have": "have", "contain": "contain"}

COVERING = frozenset(("cover", "surround", "enclose"))
"""Passive verbs after which any preposition introduces the agent: "a car covered in snow"."""

COPULAS = frozenset("be am is are was were been being 's 're".split())
AUXILIARIES = frozenset("has have had having do does did will would can could may might shall should".split())
NEGATIONS = frozenset("not n't nt never nor neither without lacking lacks lack minus missing".split())

FRAMES = frozenset(
    """image picture photo photograph photography scene shot view closeup close-up close snapshot frame pic footage
    panorama portrait longshot illustration drawing painting sketch cartoon rendering render vector clipart
    background foreground distance midground aerial exposure""".split()
)
"""Nouns for the picture itself ("a photo of a dog") or for an object in it; `sclip.scenegraph.frames` decides which."""

PURE_FRAMES = frozenset("shot view closeup close-up longshot footage".split())
"""Nouns that mean the picture itself wherever they begin a sentence: "Close-up of a cat"."""

ALWAYS_FRAMES = frozenset("image scene composition foreground view shot".split())
"""Nouns that mean the picture itself after "the" or "this" ("adds to the scene"), unless "of" follows."""

SHOOTING = frozenset("capture photograph picture depict shoot".split())

UNSEEN = frozenset(
    "say know think want need learn decide begin start continue happen exist do get let mean".split()
)
"""Verbs that say nothing about the picture if they have no object: "a professor says"."""

DIRECTION_NOUNS = frozenset("left right front center centre middle distance".split())

FRAME_PREPOSITIONS = frozenset("in at from throughout within across of".split())

ABSTRACT = frozenset(
    """sense touch hint feeling atmosphere ambiance ambience mood vibe feel impression contrast depth perspective
    composition appearance angle viewer aura essence charm elegance warmth serenity tranquility beauty simplicity effect
    addition attention interest interplay splash pop hint layout orientation element focus appeal eye-level low-angle
    high-angle level presence future importance history vibrancy drama dynamic dynamism symmetry balance""".split()
)
"""Nouns of impressions: in "a sense of calm", neither "sense" nor "calm" is an object."""

UNSHOWN = frozenset(
    """advantage advice age anniversary attempt awareness beginning benefit birthday career cause century challenge
    chance choice conclusion consequence cost culture danger date debut decade decision demand difference difficulty
    economy effort era experience explanation fact failure fate favour favor fear freedom fun generation glimpse
    happiness health hope hour idea independence influence information inspiration journey joy knowledge lack league
    life love luck memory method mission moment month mystery need news opportunity option peace peek period
    personality pleasure possibility power prediction price privacy problem process promise purpose quarter question
    reality reason relationship reminder request responsibility result return risk role rumor rumour safety search
    season secret security solution sport springtime start strategy strength success summertime technique thank
    thought threat tradition trend trip trouble truth universe vacation value version victory visit wait week
    weekend wintertime wisdom wish work world year""".split()
)
"""Nouns of times, thoughts and doings that no picture shows. Unlike those of ABSTRACT, they do not hide the noun after
"of": "the danger of bears" has bears."""

UNSHOWN_ALONE = frozenset("age fun life love power return search sport work world".split())
"""Nouns of UNSHOWN that name objects if they end a longer name: "art work"."""

OCCASIONS = frozenset(
    """accident attack battle birth bombing breakfast ceremony championship collapse competition concert crash death
    defeat demolition derby dinner draw earthquake election event festival fight final fixture flight flood game
    hurricane interview kick-off kickoff launch loss lunch makeover match meal meeting party performance practice
    premiere race rain remodel renovation restoration school screening session show snowfall storm surgery touchdown
    tournament training war wedding win workout""".split()
)
"""Nouns of events. After "after", "before" or "following", such an event is not in the picture."""

MANNERS = frozenset(
    """color colour size shape length height width appearance motion action use progress style tone hue variety fashion
    manner""".split()
)
"""Nouns that are not objects after "in": "brown in color"."""

DEPICTING = frozenset(
    """show depict feature capture portray display present include contain illustrate picture have showcase focus
    highlight represent take reveal exhibit offer provide unfold""".split()
)
PLACING = frozenset("hang lay sit lean rest stand attach mount frame stick tape pin place put print".split())
HANGING = frozenset("hang mount frame pin tape".split())
PLACES = frozenset(
    ("on", "above", "over", "behind", "under", "next to", "beside", "in front of", "on top of")
)

DEPICTIONS = frozenset(
    """statue sculpture figurine painting drawing picture photo photograph poster portrait image illustration sketch
    mural print map sticker model carving engraving statuette bust screenshot topping design""".split()
)
"""Nouns that depict the noun after "of": "a statue of a horse" is (statue, of, horse)."""

WATCHING = frozenset("watch see view observe photograph protect keep".split())
"""Verbs whose "from" says where the subject is: "watches a game from a bench"."""

BODILY = frozenset(
    """hold wear walk look eat ride stand sit talk smile play watch carry read jump run throw drink swing reach catch
    kneel crouch pose ski surf skate work speak laugh""".split()
)
"""Verbs that have only people and animals as subjects."""

DIRECTIONS = frozenset("down out along across over around past through".split())
"""Particles that are prepositions before a noun phrase: "slides down a slope"."""
MOTION = frozenset("walk go run climb ride ski drive come move hike travel".split())

GIVING = frozenset(
    """give hand offer show feed throw pass bring send serve read teach toss lend tell sell pour buy award pay
    grant""".split()
)
"""Verbs with two objects: "gives a boy a ball" is (X, give, ball) and (X, give to, boy)."""

PLACING_PREPOSITIONS = frozenset(
    ("on", "in", "into", "under", "over", "above", "next to", "beside", "in front of", "behind",
     "inside", "near", "between", "around", "through", "on top of", "against")
)  # fmt: skip
MOVING = frozenset(
    """put place set lay pour throw hang load push drop toss mount spread stack hold carry cast arrange slice chop
    cut""".split()
)
"""Verbs whose preposition locates their object: "puts a plate on a table" is (plate, on, table)."""


@lru_cache(maxsize=1 << 16)
def parts_of_speech(word: str) -> dict[str, tuple[str, ...]]:
    """Return the lemmas of a lower-case word by part of speech (NOUN, VERB, ADJ, ADV); empty for an unknown word."""
    from lemminflect import getAllLemmas

    lemmas: dict[str, tuple[str, ...]] = getAllLemmas(word)
    return lemmas


@lru_cache(maxsize=1 << 16)
def noun_lemma(word: str) -> str:
    """Return the singular of a lower-case noun ("people" -> "person")."""
    from lemminflect import getAllLemmasOOV

    if word == "oxen":
        return "ox"  # the dictionary lacks this plural
    lemmas = parts_of_speech(word).get("NOUN")
    # lemminflect's rules for unknown words would turn "quinoa" into "quinoum" and "paris" into "pari".
    if not lemmas and word.endswith("s") and not word.endswith(("is", "us")):
        lemmas = getAllLemmasOOV(word, "NOUN").get("NOUN")
    return (lemmas and lemmas[0]) or word


def is_word(word: str) -> bool:
    """Return whether lemminflect's dictionary has the lower-case word as any part of speech."""
    return bool(parts_of_speech(word))


def is_noun(word: str) -> bool:
    """Return whether lemminflect's dictionary has the lower-case word as a noun."""
    return "NOUN" in parts_of_speech(word)


def is_verb(word: str) -> bool:
    """Return whether lemminflect's dictionary has the lower-case word as a verb."""
    return "VERB" in parts_of_speech(word)


def is_adjective(word: str) -> bool:
    """Return whether lemminflect's dictionary has the lower-case word as an adjective or an adverb."""
    return not parts_of_speech(word).keys().isdisjoint(("ADJ", "ADV"))


@lru_cache(maxsize=1 << 16)
def verb_lemma(word: str) -> str:
    """Return the graph's form of a lower-case verb: "lay" for both "lying" and "laying", as in FACTUAL's graphs."""
    from lemminflect import getAllLemmasOOV

    lemmas = parts_of_speech(word).get("VERB") or getAllLemmasOOV(word, "VERB").get("VERB")
    lemma = lemmas[0] if lemmas else word
    return VERB_FORMS.get(lemma, lemma)
