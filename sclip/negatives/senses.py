"""Classes of words: words that exclude each other, and words that may be true of other things nearby too.

Words are written as in scene graphs.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sclip.negatives.meaning import ANIMALS, PERSONS, POSTURES, is_animate, synonym
from sclip.scenegraph.lexicon import COLOURS

_NEAR = frozenset("near by beside alongside".split()) | {
    "next to", "close to", "across from", "away from", "adjacent to", "opposite of",
}  # fmt: skip
_LOOSE = _NEAR | frozenset(
    """along around among amongst with without and of for from like at during about between against together past via
    per as be become outside toward towards to than have""".split()
) | {"side by side with"}  # fmt: skip
"""Predicates such as "near", which nearly always stay true if the two things change places."""

_HAVE = frozenset(("with", "have"))
_AT_NOT_ON = frozenset("table desk counter bar".split())
_MOUNTS = frozenset(
    """surfboard skateboard snowboard ski board bike bicycle motorcycle horse elephant scooter boat chair sled blanket
    pillow
    towel mat sheet""".split()
)
_FRAMES = frozenset(
    """photo photograph picture image view shot portrait painting illustration drawing sketch video silhouette profile
    aerial panorama symbol reflection""".split()
)
_ROOMS = frozenset("room kitchen bathroom bedroom restroom office store shop restaurant".split())
"""Scenes that captions describe by the color of their walls or contents."""
_WEATHER = frozenset(
    """snow snowfall rain fog mist sunshine sunlight wind storm dark darkness winter lighting light sunset
    moonlight""".split()
)
_DEPTHS = frozenset("background foreground distance".split())
_SCENES = frozenset(
    """room kitchen bathroom bedroom office restaurant store shop building house street road city town park field yard
    garden beach lot hall station church airport court market bazaar village museum hotel area space lobby
    tower meadow countryside landscape forest desert square cafe district region country state mountain hill valley
    coast sea lake river shore farm zoo pool pond camp site island neighborhood scene highway sidewalk""".split()
)
_PLACES = {
    word: group.split()[0]
    for group in (
        "on onto upon atop", "in inside into within", "under below beneath", "above over", "behind",
        "down up along through across",
        "in_front_of", "left", "right",
    )
    for word in group.split()
}  # fmt: skip
_LONG_PLACES = {
    "on top of": "on", "in front of": "in_front_of", "in back of": "behind", "at the left of": "left",
    "on the right side of": "right", "in center of": "in", "in middle of": "in", "on middle of": "in",
    "in corner of": "in", "on edge of": "on", "at rear of": "behind", "on back of": "on", "out of": "out",
    "off": "out",
}  # fmt: skip
_OPPOSITE = {"on": "under", "above": "under", "under": "above", "in_front_of": "behind", "behind": "in_front_of",
             "left": "right", "right": "left"}  # fmt: skip
_MOTIONS = frozenset(
    """walk run go move drive travel fly swim sail jump climb stroll jog skate ski surf skateboard snowboard march
    wander come pass roll cruise head cross race hover float glide drift soar""".split()
)
_STAYS = POSTURES - frozenset("play talk speak grow".split())
_IS_BY = frozenset("park stand sit lay lie rest perch locate position line".split())
"""Verbs that scene graphs write without "by": "park" for "is parked by"."""
_SHARED = frozenset(
    """eat drink play watch look see view pose enjoy share wait talk speak listen attend celebrate smile visit perform
    dance sing work train practice pass follow lead""".split()
)
_USES = frozenset(
    """have hold carry use grab serve eat drink make prepare cook enjoy show display feature include contain see watch
    look bring take sell buy offer wear""".split()
)
_WORN = frozenset(
    """shirt jacket dress suit hat coat uniform cap vest sweater outfit costume jeans short pant skirt helmet tie
    t-shirt gown robe hoodie swimsuit bikini wetsuit apron scarf jersey clothing clothes gear
    sock shoe boot glove mask glass sunglass""".split()
)
_SAME_ACT = {
    verb: group.split()[0]
    for group in (
        "have with hold contain carry use grab grip", "look watch see view observe face stare gaze",
        "eat bite chew taste", "pull tow drag", "fix repair", "make prepare cook", "ride on drive", "touch pet pat",
        "show display depict",
    )
    for verb in group.split()
}  # fmt: skip
_SURFACES = frozenset(
    """chair armchair couch sofa bed field grass lawn snow sand dirt mud road street lot sidewalk path trail track
    beach shore water ocean sea river lake pool wave boat bus train plane court deck porch patio balcony hill
    mountain slope farm area park floor ground corner background foreground platform yard city picture photo mirror
    screen window tree plate tray pan stroller wheelchair cart""".split()
)
"""Things that someone can be both in and on."""


@lru_cache(maxsize=1 << 14)
def place_of(predicate: str) -> str:
    """Return the kind of place that a predicate states: "on" for "sit on top of"; "" means that it states none."""
    if predicate in _LONG_PLACES or predicate in _PLACES:
        return _LONG_PLACES.get(predicate) or _PLACES[predicate]
    verb, _, rest = predicate.partition(" ")
    if verb in _STAYS or verb in _MOTIONS:
        return _LONG_PLACES.get(rest) or _PLACES.get(rest.rsplit(" ", 1)[-1], "")
    return ""


@lru_cache(maxsize=1 << 14)
def is_loose(predicate: str) -> bool:
    """Return whether a predicate only states that two things are together: "next to", "stand with", "parked by"."""
    if predicate in _LOOSE or predicate in _IS_BY:
        return True
    verb, _, rest = predicate.partition(" ")
    return rest in _LOOSE and (
        verb in POSTURES or verb in _MOTIONS or rest not in ("at", "to", "for", "against")
    )


def is_having(predicate: str) -> bool:
    """Return whether a predicate states that one thing has another or is with it."""
    return predicate in _HAVE


@lru_cache(maxsize=1 << 14)
def contradict(one: str, other: str, name: str) -> bool:
    """Return whether two predicates with the same subject and object exclude each other; `name`: the object's name."""
    head = name.rsplit(" ", 1)[-1]
    places = (place_of(one), place_of(other))
    if is_loose(one) or is_loose(other):
        loose, firm, place = (one, other, places[1]) if is_loose(one) else (other, one, places[0])
        last = _ending(loose)
        if last == "at":
            return place == "on" and head in _AT_NOT_ON
        if last in _NEAR:
            return place in ("", "in", "on", "under")
        if last == "with" and not place:
            return not (is_use(firm) or is_shared(firm) or is_loose(firm))
        return last in ("with", "for", "from") and place in ("in", "on", "under") and head not in _MOUNTS
    if all(places):
        if places[0] == places[1] or "down" in places:
            return False
        return set(places) != {"in", "on"} or (head not in _SURFACES and head not in _SCENES)
    return _act(one) != _act(other)


def _ending(predicate: str) -> str:
    """Return the preposition of a loose predicate: "next to" of "sit next to"."""
    return predicate if predicate in _LOOSE else predicate.partition(" ")[2]


def is_shared(predicate: str) -> bool:
    """Return whether two people who are together probably both do this act: "eat"."""
    return predicate.partition(" ")[0] in _SHARED


def is_use(predicate: str) -> bool:
    """Return whether an act on a thing probably includes what is in or on it: who holds a bag holds its contents."""
    return predicate.partition(" ")[0] in _USES


def is_worn(name: str) -> bool:
    """Return whether a name denotes clothes."""
    return name.rsplit(" ", 1)[-1] in _WORN


def is_mount(name: str) -> bool:
    """Return whether a name denotes a thing that someone can be on while at another place: a board, a horse."""
    return name.rsplit(" ", 1)[-1] in _MOUNTS


def is_frame(name: str) -> bool:
    """Return whether a name denotes a picture: "photo", "drawing"."""
    return name.rsplit(" ", 1)[-1] in _FRAMES


def is_depth(name: str) -> bool:
    """Return whether a name states how far away something is: "background"."""
    return name in _DEPTHS


def is_weather(name: str) -> bool:
    """Return whether a name denotes weather or light: "snow"."""
    return name.rsplit(" ", 1)[-1] in _WEATHER


def is_scene(name: str) -> bool:
    """Return whether a name denotes a place that holds things."""
    return name.rsplit(" ", 1)[-1] in _SCENES


def reverses(one: str, other: str) -> bool:
    """Return whether "x one y" means the same as "y other x": "above" and "under"."""
    place = place_of(one)
    return bool(place) and _OPPOSITE.get(place) == place_of(other)


def _act(predicate: str) -> str:
    verb = predicate.partition(" ")[0]
    return _SAME_ACT.get(place_of(predicate) or verb, verb)


_SHADES = {
    word: group.split()[0]
    for group in (
        "brown tan beige cream", "yellow gold golden blonde", "gray grey silver", "blue teal turquoise navy",
        "purple violet", "red maroon", "white", "black", "green", "orange", "pink",
    )
    for word in group.split()
}  # fmt: skip
_MATERIALS = {
    word: word
    for word in """wooden brick metal stone concrete plastic leather paper steel iron glass marble cardboard wicker
    ceramic granite wool straw clay bamboo cement""".split()
}
_POLES = {
    word: (kind, pole)
    for kind, poles in {
        "size": ("small tiny little short miniature mini", "large giant gigantic massive enormous tall long"),
        "age": ("young baby newborn juvenile", "old elderly older adult grown senior"),
        "new": ("new modern contemporary", "antique vintage ancient retro"),
        "light": ("dark dim", "bright light lit"),
        "clean": ("clean tidy neat", "dirty messy muddy cluttered"),
        "open": ("open opened", "closed shut"),
        "full": ("empty vacant", "full crowded busy packed"),
        "wet": ("wet", "dry"),
        "sex": ("male", "female"),
    }.items()
    for pole, words in enumerate(poles)
    for word in words.split()
}  # fmt: skip
_USUAL = {
    word: frozenset(names.split())
    for attribute, names in {
        "white": """toilet sink bathtub tub plate snow cloud wall ceiling refrigerator stove sheep swan paper napkin
            sheet dumpling
            pillow curtain tile urinal rice wave foam bathroom shower bowl mountain slope bed goat refrigerator blanket
            fence house building line cup saucer""",
        "green": """tree grass field plant leaf vegetable broccoli lawn hill bush forest park lettuce pasture salad
            hillside meadow court bean pea apple""",
        "blue": "sky water ocean lake pool wave river jeans",
        "black": "tire monitor screen tv keyboard computer mouse suit laptop speaker",
        "brown": "bear dirt ground horse dog bench table giraffe wood cow floor field grass desk fence",
        "gray": "road street elephant pavement sky cloud rock building parking",
        "yellow": "banana taxi sun lemon ball corn",
        "orange": "carrot pumpkin cone",
        "red": "brick sign tomato strawberry hydrant",
    }.items()
    for word in (attribute,)
}  # fmt: skip
_PLAIN = frozenset("white black brown gray".split())
"""Colors that captions often leave out."""

_LOOSE_STATES = frozenset("sitting standing lying laying resting waiting moving surrounding".split())
"""Participles that may be true of any living being nearby."""
TIMES = frozenset(
    """day afternoon morning evening night noon dusk dawn time daytime nighttime weekend sunset sunrise year month week
    monday tuesday wednesday thursday friday saturday sunday january february march april may june july august september
    october november december spring summer autumn fall winter season moment century today tomorrow yesterday""".split()
)
_VAGUE = frozenset(
    """summer winter spring autumn season year week month hour minute moment way view scene photo image picture
    photograph shot place part side front back top bottom end edge corner middle center background foreground distance
    piece kind type style variety sort lot number line something thing one other stuff air light shade weather
    position direction color colour size up close left right portrait painting illustration drawing sketch video vector
    display sale action work fire flight love fun detail bloom progress use motion event moment life world wild
    fall surface goodbye hue tint texture blend charm perspective angle eye-level high-angle appearance""".split()
)
_ABSTRACT = frozenset(
    """hue tone pattern design style texture contrast charm beauty elegance look glance appearance aesthetic aesthetics
    interplay mood vibe feel feeling sense focus testament weight symmetry layout backdrop setting exterior interior
    glow reflection shadow gleam sheen script font word letter title name number victory win match trip tour walk
    journey adventure voyage visit holiday accident crash traffic history culture story idea tip way gem treasure
    feature element aspect section portion quadrant half majority rest range array series collection grid cluster mix
    form outline shape level size length height width distance experience opportunity joy peace power strength
    fashion trend law result effect impact skill attempt step move effort industry business economy news report
    question answer plan project goal job career crack stripe spot mark stain scratch wrinkle crease fold bend curve
    hour speed cost price deal age era culture tradition nature wildlife theme concept version point base core
    touch kick shot swing pose posture gesture smile grin expression attention care help support rule order row
    jam palette take approach arrangement movement treatment environment development government excitement""".split()
)
_ABSTRACT_ENDING = re.compile(r"(?:[tlr]ness|[ltrv]ity|icity|[ae]nce|ism|[a-z]{3}[ts]ion|ship)$")
_BODIES = frozenset(
    """station television mansion ambulance entrance fence appliance residence audience university celebrity vegetation
    construction decoration illustration intersection ship battleship spaceship cushion lion dandelion prince lance
    reception plantation kindergarten facility fountain security harness""".split()
)
_GROUNDS = frozenset(
    """water ocean wave snow ground floor wood woods tree bush branch plant greenery foliage vegetation leaf moss
    grass sky cloud cliff peak rock boulder stream waterfall creek pond track course ramp slope dune path trail
    wall ceiling roof window door fence facade skyline horizon coastline shoreline canyon desert platform dock pier
    pavement asphalt sand dirt mud gravel ice stage traffic bridge border edge bank deck porch patio terrace
    balcony staircase tile brick plank panel board shingle""".split()
)
_PHYSICAL = frozenset(
    """tow pull push haul drag carry transport hold hit chase follow load lift wear eat ride cover fill crush drive
    pass overtake""".split()
)
_GENERAL = {
    synonym(word): synonym(group.split(":")[0])
    for group in (
        f"person:{' '.join(PERSONS)}", f"animal:{' '.join(ANIMALS)}",
        "vehicle:car bus truck van motorcycle bike train bicycle taxi",
        "food:pizza sandwich cake salad meal dish meat vegetable fruit dessert snack lunch dinner breakfast",
        "building:house church tower skyscraper hotel structure store shop home castle",
        "fruit:apple banana orange strawberry", "furniture:chair table couch bed desk",
        "device:phone laptop computer tablet", "plant:tree flower", "room:kitchen bathroom bedroom",
    )
    for word in group.split(":")[1].split()
}  # fmt: skip


@lru_cache(maxsize=1 << 14)
def excludes(one: str, other: str) -> bool:
    """Return whether two attributes exclude each other: "red" and "blue", "wooden" and "metal", "large" and "tiny"."""
    if one.isdigit() and other.isdigit():
        return one != other
    for table in (_SHADES, _MATERIALS):
        first, second = ({table[word] for word in text.split() if word in table} for text in (one, other))
        if first and second:
            return first.isdisjoint(second)
    poles = [_POLES.get(text.rsplit(" ", 1)[-1], ("", 0)) for text in (one, other)]
    return bool(poles[0][0]) and poles[0][0] == poles[1][0] and poles[0][1] != poles[1][1]


@lru_cache(maxsize=1 << 14)
def tells_apart(attribute: str, name: str) -> bool:
    """Return whether an attribute is so unusual for a thing of this name that a caption would mention it."""
    words = attribute.split()
    head = name.rsplit(" ", 1)[-1]
    last = words[-1]
    shades = {shade for word in words if (shade := _SHADES.get(word))}
    if shades:
        usual = any(shade in _PLAIN or head in _USUAL.get(shade, ()) for shade in shades)
        return not usual and head not in _ROOMS and head not in PERSONS
    return last.endswith("ing") and last not in _LOOSE_STATES and is_animate(name)


@lru_cache(maxsize=1 << 14)
def is_vague(name: str) -> bool:
    """Return whether a name is abstract: a time, a general place, a picture, an abstract noun."""
    head = name.rsplit(" ", 1)[-1]
    return (
        name in _VAGUE
        or name in COLOURS
        or is_frame(name)
        or head in TIMES
        or head in _ABSTRACT
        or (head not in _BODIES and _ABSTRACT_ENDING.search(head) is not None)
    )


@lru_cache(maxsize=1 << 14)
def is_ground(name: str) -> bool:
    """Return whether a name denotes something that surrounds or carries things: a scene, water, trees, a wall."""
    return is_scene(name) or name.rsplit(" ", 1)[-1] in _GROUNDS


@lru_cache(maxsize=1 << 14)
def is_physical(predicate: str) -> bool:
    """Return whether a predicate is an act of one thing on another: "tow", not "reflect"."""
    return predicate.partition(" ")[0] in _PHYSICAL


@lru_cache(maxsize=1 << 14)
def may_be_one(one: str, other: str) -> bool:
    """Return whether two names may denote the same thing: "a bus ... the vehicle", "a man ... the player"."""
    heads = [synonym(name.rsplit(" ", 1)[-1]) for name in (one, other)]
    return heads[0] == heads[1] or is_kind_of(one, other)


@lru_cache(maxsize=1 << 14)
def is_kind_of(one: str, other: str) -> bool:
    """Return whether one of two names denotes a kind of the other: "house" and "building"."""
    heads = [synonym(name.rsplit(" ", 1)[-1]) for name in (one, other)]
    return _GENERAL.get(heads[0]) == heads[1] or _GENERAL.get(heads[1]) == heads[0]


def same_act(one: str, other: str, *, animate: bool) -> bool:
    """Return whether two verbs (lemmas) state the same act; all postures of inanimate things count as one act."""
    acts = (_SAME_ACT.get(one, one), _SAME_ACT.get(other, other))
    return acts[0] == acts[1] or (not animate and one in POSTURES and other in POSTURES)
