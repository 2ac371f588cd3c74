"""An exchange is drawn only if it surely makes the caption false. None enters a negated part or a name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sclip.negatives import candidates
from sclip.negatives.certainty import objects_surely_change
from sclip.negatives.reading import Reading
from sclip.scenegraph import Parser, SceneGraph
from sclip.scenegraph.graph import Object, Relation

# caption -> an exchange that may be true of the same picture, or may be read as true: never drawn
KEPT_MEANING = [
    ("A van stands in an outdoor lot.", "An outdoor van stands in a lot."),
    ("A blue room with blinds.", "A room with blue blinds."),
    ("A red plane with wings.", "A plane with red wings."),
    ("Children wearing helmets.", "Helmets wearing children."),
    ("woman selling fruit at a market", "fruit selling woman at a market"),
    ("A singer is the winner of a race.", "The winner is a singer of a race."),
    ("A woman near a wall holding a bag.", "A wall near a woman holding a bag."),
    ("A boy walks along a path in a park.", "A boy walks along a park in a path."),
    ("People at a fair in a hall.", "People at a hall in a fair."),
    ("A lamp on a desk next to a book.", "A book on a desk next to a lamp."),
    ("A man walking on a beach with a dog.", "A dog walking on a beach with a man."),
    ("A girl on a porch on a sunny day.", "A girl on a sunny day on a porch."),
    ("A man rides a wave on a surfboard.", "A man rides a surfboard on a wave."),
    ("A wooden table with a bench.", "A table with a wooden bench."),
    ("A green bus stands on the grass.", "A bus stands on the green grass."),
    ("Two monkeys sit on some branches.", "Some monkeys sit on two branches."),
    ("A black and white photo of a dog.", "A photo of a black and white dog."),
    ("A truck is parked by a bus.", "A bus is parked by a truck."),
    ("A man stands across from a store.", "A store stands across from a man."),
    ("A road meets a river.", "A river meets a road."),
    ("A singer arrives as the winner of a race.", "The winner arrives as a singer of a race."),
    ("A plate with a salad and an egg.", "An egg with a salad and a plate."),
    ("A giraffe walks in a large field.", "A large giraffe walks in a field."),
    ("White / Black shoes", "Black / White shoes"),
    ("A man holding a bag and a woman carrying a box.", "A man carrying a bag and a woman holding a box."),
    (
        "A dog sits on a mat and the animal looks at a bowl.",
        "The animal sits on a mat and a dog looks at a bowl.",
    ),
    ("A vase on a white background with a flower.", "A flower on a white background with a vase."),
    ("The wall is blue and a main door is open.", "The wall is main and a blue door is open."),
    ("A man in trousers holds pants.", "A man in pants holds trousers."),
    ("Twelve dogs chase dozens of birds.", "Dozens of dogs chase twelve birds."),
    ("A kitchen with a stove.", "A stove with a kitchen."),
    ("A shed has a lamp.", "A lamp has a shed."),
    ("A cliff behind a waterfall.", "A waterfall behind a cliff."),
    ("A sofa is in front of a window.", "A window is in front of a sofa."),
    ("A man in boots walks in a field.", "A man in a field walks in boots."),
    ("A black stool next to a cat.", "A stool next to a black cat."),
    ("A purple van with a poster on its side.", "A van with a purple poster on its side."),
    ("A father plays chess with a boy.", "A boy plays chess with a father."),
    ("A house near some old buildings on a hill.", "Some old buildings near a house on a hill."),
    ("A bus next to a dock with children on it.", "A dock next to a bus with children on it."),
    ("Cats sit near a lamp.", "A cat sits near lamps."),
]

# caption -> an exchange that surely makes it false: drawn if it reads well
SURELY_FALSE = [
    ("A man riding a horse next to an elephant.", "An elephant riding a horse next to a man."),
    ("A cat sits on a couch with a dog on the floor.", "A dog sits on a couch with a cat on the floor."),
    ("A man with a ball and a girl with a bat.", "A girl with a ball and a man with a bat."),
    ("A small dog on a large sofa.", "A large dog on a small sofa."),
    ("A red plane with white wings.", "A white plane with red wings."),
    ("A cat lies on a rug next to a shoe.", "A cat lies on a shoe next to a rug."),
    ("A boy hits a ball with a bat.", "A boy hits a bat with a ball."),
    ("A book on a chair and a shoe under a bed.", "A book under a chair and a shoe on a bed."),
    ("A car is parked in front of a house on a hill.", "A house is parked in front of a car on a hill."),
]


CASES = [*((*case, False) for case in KEPT_MEANING), *((*case, True) for case in SURELY_FALSE)]


@pytest.mark.parametrize(("caption", "exchanged", "is_false"), CASES)
def test_an_exchange_is_certain_only_if_it_breaks_a_fact_of_the_caption(
    parser: Parser, caption: str, exchanged: str, is_false: bool
) -> None:
    certain = {negative.caption: negative.certain for negative in candidates(parser.parse([caption])[0])}
    assert certain.get(exchanged, False) == is_false


def test_exchanging_two_objects_is_certain_only_if_their_relations_differ() -> None:
    caption = "a boy sees a horse, holds a rope and sees it"
    objects = tuple(
        Object(name, (start := caption.index(name), start + len(name)), (start - 2, start + len(name)))
        for name in ("boy", "horse", "rope")
    )

    def graph(*verbs: tuple[str, int]) -> SceneGraph:
        return SceneGraph(caption, objects, (), tuple(Relation(0, verb, k, (6, 10)) for verb, k in verbs))

    def changes(graph: SceneGraph) -> bool:
        return objects_surely_change(Reading(graph, 3), 1, 2)

    assert changes(graph(("see", 1), ("hold", 2)))
    assert not changes(graph(("see", 1), ("hold", 2), ("see", 2), ("hold", 1)))


CAPTIONS = (
    "A small red dog chases an old cat under a brown table near two men.",
    "A tall man in a black hat holds a bat and a woman watches three birds on the roof.",
    "The fire truck beside the old house is red and the tall tower is blue.",
)


def _mark(graph: SceneGraph, part: str, index: int) -> tuple[SceneGraph, set[int]]:
    """Return the graph with one part negated (or one name fixed), and the objects whose words must stay."""
    field, mark = ("objects", "fixed") if part == "fixed" else (f"{part}s", "negated")
    parts = list(getattr(graph, field))
    k = index % len(parts)
    parts[k] = marked = replace(parts[k], **{mark: True})
    shut = {"attribute": lambda: {marked.object}, "relation": lambda: {marked.subject, marked.object}}
    return replace(graph, **{field: tuple(parts)}), shut.get(part, lambda: {k})()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(CAPTIONS),
    st.sampled_from(["object", "attribute", "relation", "fixed"]),
    st.integers(0, 9),
)
def test_no_exchange_enters_a_negated_part_or_a_fixed_name_and_graphs_keep_their_marks(
    parser: Parser, caption: str, part: str, index: int
) -> None:
    graph, shut = _mark(parser.parse([caption])[0], part, index)
    for negative in candidates(graph):
        for k in shut:
            phrase = graph.caption[slice(*graph.objects[k].phrase)].casefold()
            assert phrase in negative.caption.casefold()
            assert negative.graph.objects[k].name == graph.objects[k].name
        assert _marks(negative.graph) == _marks(graph)


def _marks(graph: SceneGraph) -> list[tuple[bool, bool]]:
    parts = (*graph.objects, *graph.attributes, *graph.relations)
    return [(part.negated, getattr(part, "fixed", False)) for part in parts]


def test_two_fixed_names_may_be_exchanged_as_a_whole(parser: Parser) -> None:
    graph = parser.parse(["a small fire truck chases an old school bus"])[0]
    names = replace(graph, objects=tuple(replace(obj, fixed=True) for obj in graph.objects))
    assert [negative.caption for negative in candidates(names) if not negative.is_replacement] == [
        "an old school bus chases a small fire truck"
    ]
