"""Nouns and verbs are told apart, capitals are read as small letters, and names and attributes have one form."""

from __future__ import annotations

import pytest

from sclip.scenegraph import Parser

# caption -> (relations, attributes as "object: attribute")
WORDS = {
    # nouns that the tagger takes for verbs, adverbs and adjectives
    "a lamp near building": ({"lamp near building"}, set()),
    "a bike leaning against railing": ({"bike lean against railing"}, set()),
    "a red skateboard next to fire hydrant": ({"skateboard next to fire hydrant"}, {"skateboard: red"}),
    "a cake with white frosting": ({"cake with frosting"}, {"frosting: white"}),
    "a trash can beside bench": ({"trash can beside bench"}, set()),
    "green leaves on a wall": ({"leaves on wall"}, {"leaves: green"}),
    "whisk on a counter": ({"whisk on counter"}, set()),
    "a man in a shirt and tie sitting at a desk": (
        {"man wear shirt", "man wear tie", "man sit at desk"},
        set(),
    ),
    "a street light on a pole": ({"street light on pole"}, set()),
    "a painting of a horse near a sofa": ({"horse near sofa"}, set()),
    # verbs that it takes for nouns
    "The dog sprints through a tunnel": ({"dog sprint through tunnel"}, set()),
    "a bear fishes in a river": ({"bear fish in river"}, set()),
    "a red boat sails on a lake": ({"boat sail on lake"}, {"boat: red"}),
    "A child and a dog play in the snow": ({"child play in snow", "dog play in snow"}, set()),
    "a man building a wall": ({"man build wall"}, set()),
    "the train leaves the station": ({"train leave station"}, set()),
    "a woman in white playing tennis": ({"woman play tennis"}, set()),
    "a dozen eggs in a basket": ({"egg in basket"}, {"egg: 12"}),
    # Title Case and its names
    "A Man Riding A Horse In The City": ({"man ride horse", "man in city"}, set()),
    "Black Dog on a Red Sofa": ({"dog on sofa"}, {"dog: black", "sofa: red"}),
    "Young Woman Walking In New York": ({"woman walk in new york"}, {"woman: young"}),
    "Eiffel Tower in Paris": ({"eiffel tower in paris"}, set()),
    # forms
    "a dark haired woman in a long sleeved shirt": (
        {"woman wear shirt"},
        {"woman: dark haired", "shirt: long sleeved"},
    ),
    "a double decker bus behind a chain link fence": (
        {"bus behind fence"},
        {"bus: double decker", "fence: chain link"},
    ),
    "a brown color couch near a multicolored rug": (
        {"couch near rug"},
        {"couch: brown", "rug: multi-colored"},
    ),
    "a boy looking up": (set(), {"boy: looking up"}),
    "one dog and two cats on a rug": ({"dog on rug", "cat on rug"}, {"dog: 1", "cat: 2"}),
    "one dog on a rug": ({"dog on rug"}, set()),
    "two slices of toast on a plate": ({"toast on plate"}, {"toast: 2", "toast: slice"}),
    "the bread has butter on top": ({"butter on top of bread"}, set()),
    # directions frame, places named after them do not
    "people in the shopping center": ({"people in shopping center"}, set()),
    "a cat in the upper left corner": (set(), set()),
    # a measure in the plural is no number
    "dozens of boats on a lake": ({"boat on lake"}, set()),
    "two pairs of shoes on a rug": ({"shoe on rug"}, set()),
    "a splash of water on a window": ({"water on window"}, set()),
    "a splash of red on a wall": (set(), set()),
    "geese and mice near an ox": ({"goose near ox", "mouse near ox"}, set()),
}


@pytest.mark.parametrize("caption", WORDS)
def test_each_word_has_its_role(parser: Parser, caption: str) -> None:
    graph = parser.parse([caption])[0]
    name = [obj.name for obj in graph.objects]
    relations = {f"{name[r.subject]} {r.predicate} {name[r.object]}" for r in graph.relations}
    attributes = {f"{name[a.object]}: {a.attribute}" for a in graph.attributes}
    assert (relations, attributes) == WORDS[caption]


@pytest.mark.parametrize(
    "caption", ["A small dog sits on a red sofa.", "A white cat on a bed next to two pillows"]
)
def test_capitals_change_no_graph(parser: Parser, caption: str) -> None:
    small, title, capitals = parser.parse([caption.lower(), caption.title(), caption.upper()])
    assert small.triples() == title.triples() == capitals.triples()
