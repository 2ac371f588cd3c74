"""Tables for other wordings of a caption: synonyms, participles, inverse prepositions, and exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PAIRS = """photograph of=photo of, picture of=photo of, photo of=picture of, sofa=couch, couch=sofa, bicycle=bike,
    refrigerator=fridge, fridge=refrigerator, airplane=plane, aeroplane=airplane, television=TV, automobile=car,
    motorbike=motorcycle, doughnut=donut, donut=doughnut, grey=gray, gray=grey, eyeglasses=glasses, trousers=pants,
    racquet=racket, colourful=colorful, next to=beside, beside=next to, close to=near, beneath=underneath,
    underneath=beneath, on top of=atop, close-up of=closeup of, closeup of=close-up of, filled with=full of,
    cell phone=mobile phone, cellphone=cell phone, smartphone=smart phone, guy=man, gentleman=man, lady=woman,
    kid=child, child=kid, kids=children, children=kids, ladies=women, guys=men, sofas=couches, couches=sofas,
    bicycles=bikes, airplanes=planes, televisions=TVs, doughnuts=donuts, donuts=doughnuts, photographs of=photos of,
    motorbikes=motorcycles, in the middle of=in the center of,
    in the center of=in the middle of, several=a number of, a number of=several,
    lots of=a lot of, a lot of=lots of, is seated=is sitting, are seated=are sitting, hamburger=burger,
    large=big, big=large"""
SYNONYMS: Mapping[str, str] = {
    old: new for pair in _PAIRS.replace("\n", " ").split(",") for old, new in (pair.strip().split("="),)
}
"""Text -> its synonym. `NOT_BESIDE` and `NOT_BEHIND` hold the exceptions."""
SYNONYM = re.compile(
    rf"(?<![\w'’-])(?:{'|'.join(sorted(map(re.escape, SYNONYMS), key=len, reverse=True))})(?![\w'’-])",
    re.IGNORECASE,
)
NOT_BESIDE: Mapping[str, re.Pattern[str]] = {
    # "big city" means "large city"; but big brothers, large intestines and names are something else
    "large": re.compile(
        r"\s+(?:intestine|picture|print|variety|selection|assortment|array|portion|combination|scale|\w+ly\b)"
        r"|[ ,]*(?:and|or|,)?\s*(?:big|small|numbers?|amounts?|quantit)"
    ),
    "big": re.compile(
        r"\s+(?:ben|apple|brother|sister|news|score|win|race|match|show|event|idea|chance|moment|thing|step|name|fan|part"
        r"|question|smile|grin|day|time|bird|mac|rig|wheel|top|game|tackle|cat|deal|foot|screen|bang|sur|city|island|league|bend"
        r"|boy|girl|eyes|hair|hit|wave|air|band|sky|lake|bear|horn|dipper)|\s+[A-Z]"
    ),
    "child": re.compile(r"\s+(?:seat|care|safety|labor|support|actor|star|size)"),
    "children": re.compile(r"\s*['’]|\s+(?:book|hospital|museum)"),
    "kid": re.compile(r"\s+(?:rock|room|skin|glove)"),
    "kids": re.compile(r"\s*['’]|\s+(?:meal|room|menu|club|bedroom|party|table|play|bike)"),
    "guy": re.compile(r"\s+(?:fawkes|wire|line|[A-Z])"),
    "lady": re.compile(r"\s+(?:bug|bird|liberty|[A-Z])"),
    "gray": re.compile(r"\s+(?:[A-Z])"),
    "grey": re.compile(r"\s+(?:hound|[A-Z])"),
    "airplane": re.compile(r"\s+(?:mode|hangar)"),
    "close to": re.compile(r"\s+(?:be\w*|each|the (?:camera|viewer|ground)|\w+ing)\b"),
    "beside": re.compile(r"\s*(?:$|[.,;]|\w+self\b)"),
    "next to": re.compile(r"\s*(?:$|[.,;]|nothing|last|no\b)"),
    "in the middle of": re.compile(
        r"\s+(?:\w+ing|an?|nowhere|summer|winter|the (?:night|day|afternoon|game|ocean|sea))\b"
    ),
    "in the center of": re.compile(r"\s+(?:attention)\b"),
    "on top of": re.compile(r"\s+(?:each|one another|the world|it|that|them|course)\b"),
    "picture of": re.compile(r"\s+(?:health)"),
}  # fmt: skip
"""Text -> words after it that rule out its synonym."""
NOT_BEHIND: Mapping[str, re.Pattern[str]] = {
    "picture of": re.compile(r"(?:drawn|painted|framed|draws|drawing|paints|painting|wall|hanging|hung)\W"),
    "photograph of": re.compile(r"\b(?:to|and)\s+$"),
    "photo of": re.compile(r"\b(?:file|stock|passport|profile|group)\s+$"),
    "next to": re.compile(r"\b(?:right|up|directly|just|immediately)\s+$"),
    "close to": re.compile(r"\b(?:very|up|so|too|quite|really|extremely|come|comes|coming|as|is|are)\s+$"),
    "on top of": re.compile(r"\b(?:right|up|directly)\s+$"),
    "large": re.compile(r"\b(?:very|so|too|extra|by|at|as|how|and|,)\s*$"),
    "big": re.compile(r"\b(?:very|so|too|how|as|and|a great|,)\s*$"),
    "several": re.compile(r"\b(?:the|these|those|of|over|than)\s+$"),
    "a lot of": re.compile(r"\b(?:quite|such|whole|is|was)\s+$"),
    "a number of": re.compile(r"\bof\s+$"),
    "lots of": re.compile(r"\b(?:and|the)\s+$"),
    "child": re.compile(r"\bman\s+$"),
    "lady": re.compile(r"\b(?:first|old|our|dragon|bag)\s+$"),
}
"""Text -> words before it that rule out its synonym."""

_VERBS = """ride riding ridden, hold holding held, carry carrying carried, wear wearing worn, pull pulling pulled,
    push pushing pushed, chase chasing chased, eat eating eaten, feed feeding fed, lead leading led,
    throw throwing thrown, kick kicking kicked, wash washing washed, drive driving driven, follow following followed,
    lick licking licked, hug hugging hugged, kiss kissing kissed, watch watching watched, brush brushing brushed,
    pet petting petted, herd herding herded, fly flying flown, swing swinging swung, cut cutting cut,
    slice slicing sliced, prepare preparing prepared, use using used, cook cooking cooked, repair repairing repaired,
    paint painting painted, clean cleaning cleaned, inspect inspecting inspected, tow towing towed,
    surround surrounding surrounded, cover covering covered, bite biting bitten, steer steering steered,
    decorate decorating decorated, drag dragging dragged, groom grooming groomed, examine examining examined"""
PARTICIPLES: Mapping[str, tuple[str, str]] = {
    base: (ing, participle) for base, ing, participle in (entry.split() for entry in _VERBS.split(","))
}
"""Transitive verb that is often used in the passive -> (-ing form, past participle)."""
STATES = frozenset("hold carry wear surround cover decorate".split())
"""Verbs that need no "being" in the passive: "a hat worn by a man", but "a horse being ridden by a man"."""
OF_THINGS = frozenset("surround cover decorate pull tow push".split())
"""Verbs that may have an inanimate subject."""

PLACES: Mapping[str, str] = {
    "above": "below", "below": "above", "beneath": "above", "underneath": "above", "behind": "in front of",
    "in front of": "behind", "to the left of": "to the right of", "to the right of": "to the left of",
    "on the left of": "on the right of", "on the right of": "on the left of", "left of": "right of",
    "right of": "left of", "next to": "next to", "beside": "beside", "near": "near", "close to": "close to",
    "alongside": "alongside", "opposite": "opposite", "across from": "across from", "adjacent to": "adjacent to",
}  # fmt: skip
"""Preposition of place -> its inverse: "a lamp above a bed", "a bed below a lamp"."""

ROWS = tuple(
    frozenset(row.split())
    for row in """salt pepper,bread butter,macaroni cheese,mac cheese,ham cheese,cheese cracker,fish chip,knife fork,
    cup saucer,bed breakfast,oil vinegar,pen paper,hat coat,lady gentleman,bride groom,mother child,mother baby,
    milk cookie,meat potato,sky cloud,hand foot,arm leg,rock roll,fruit vegetable,ketchup mustard,sand water,
    burger fry,hamburger fry,chicken waffle,spaghetti meatball,pork bean,rice bean,cream sugar,coffee cream,
    jacket tie,suit tie,shirt tie,shirt pants,shirt jeans,shirt short,ball chain,bow arrow,horse carriage,
    peanut jelly""".replace("\n", " ").split(",")
)
"""Pairs of things with a fixed order: "salt and pepper"."""

DESCRIPTIVE = frozenset(
    """red blue green yellow brown white black gray grey orange pink purple large small big tiny huge tall wooden empty
    broken dirty wet old new round square striped open closed colorful""".split()
)
"""Adjectives that can stand after "that is"."""
KINDS_OF = frozenset(
    """light carpet card board wine bear tea meat pepper onion bean cabbage bread rice house hole tape screen oak panda
    belt flag eye hat town city school""".split()
)
"""Nouns that form a name with an adjective: a "red light" is more than a light that is red."""
