"""Web captions are cut into the segments that describe the picture."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.scenegraph import Parser
from sclip.scenegraph.segments import segments

# caption -> its segments, which are parsed
SEGMENTS = {
    "a dog on a red sofa": ["a dog on a red sofa"],
    "A dog on a sofa | Example Shop | Flickr": ["A dog on a sofa", "Example Shop"],
    "A dog on a sofa - Stock Photo": ["A dog on a sofa"],
    "Dog on sofa – a cat beside it": ["Dog on sofa", "a cat beside it"],
    "a cat::a dog": ["a cat", "a dog"],
    "close - up of a snow - covered fence - photo by someone": ["close-up of a snow-covered fence"],
    "a step - by - step drawing": ["a step-by-step drawing"],
    "a red house - a winter scene": ["a red house", "a winter scene"],
    "#sunset #beach #nofilter": [],
    "two boats at the #beach #sunset": ["two boats at the beach"],
    "boy with kite by @kite_boy": ["boy with kite"],
    "see www.example.com/dogs or https://example.org/a?b=c": ["see or"],
    "IMG_1234.jpg": [],
    "DSC00012 white horse in field.png": ["white horse in field"],
    "white horse 1920x1080 wallpaper": ["white horse wallpaper"],
    "a 8x10 print of a horse in a 4x4 truck": ["a print of a horse in a 4x4 truck"],
    "green chair for only $19.99": ["green chair"],
    "chairs from €1,200 each, with cushions": ["chairs , with cushions"],
    "royalty free stock photo of two cats": ["of two cats"],
    "A cat, Royalty-Free Images": ["A cat"],
    "Sunset over a bay by John Doe": ["Sunset over a bay"],
    "a painting of a bay by visual artist": ["a painting of a bay"],
    "bend in the stream , by person": ["bend in the stream"],
    "a tree on a hill photo by person": ["a tree on a hill"],
    "spring - summer dress": ["spring-summer dress"],
    "a man hit by Henry": ["a man hit by Henry"],
    "a house by the lake": ["a house by the lake"],
    "Photo: a bus (Getty Images) 2015-03-12": ["a bus"],
    "A dog (left) and a cat (right)": ["A dog and a cat"],
    "<b>a dog</b> &amp; a cat<br/>&nbsp;<PERSON> rides": ["a dog & a cat", "PERSON rides"],
    "wedding bells : the couple at a church": ["the couple at a church"],
    "a clock at 10:30": ["a clock at 10:30"],
    "how to build a table": [],
    "10 tips to clean a table": [],
    "tips on how to keep your roses alive": [],
    "ideas for what you can do with a barrel. A barrel in a yard": ["A barrel in a yard"],
    "is this a dog ? a dog on a sofa": ["a dog on a sofa"],
    "click here to buy. A bowl of fruit": ["A bowl of fruit"],
    "a beach where we stayed": ["a beach"],
    "we can see a boat near the shore": ["a boat near the shore"],
    "image may contain : person , on stage , playing a flute and dog": [
        "person on stage playing a flute",
        "dog",
    ],
    "writing on a wall , close - up": ["writing on a wall"],
    "woman jogging in a park , in slow motion": ["woman jogging in a park"],
    "© 2015 Someone": [],
    "Kitchen with an island (Photo by Some One/Getty Images)": ["Kitchen with an island"],
    "two women in a garden by Claude Monet": ["two women in a garden"],
    "an elephant on a hill , vector illustration cartoon": ["an elephant on a hill"],
    "my go - to soup": ["my go-to soup"],
    "in a crowded - industrial city": ["in a crowded-industrial city"],
    "a card with swirls vector": ["a card with swirls"],
    "a table made by artist": ["a table made by artist"],
    "a bowl of rice , top view": ["a bowl of rice"],
    "a man at a desk , zoom in": ["a man at a desk"],
    "three birds on a white background illustration": ["three birds on a white background"],
    "inspiration for a small kitchen": ["a small kitchen"],
    "On the square, one can see two fountains": ["On the square, two fountains"],
    "A dog runs in a park. Browse our gallery": ["A dog runs in a park."],
    "a bridge over a river dreamstime": ["a bridge over a river"],
    "": [""],
}


@pytest.mark.parametrize("caption", SEGMENTS)
def test_caption_is_cut_into_segments_that_describe_the_picture(caption: str) -> None:
    assert [segment.text for segment in segments(caption)] == SEGMENTS[caption]


_PARTS = st.sampled_from(
    """a dog | - – :: : #tag @name www.site.com <b> </b> <PERSON> &amp; ( ) [ " ' “ ” $5 10x12 IMG_12345.jpg by John
    Photo Stock royalty free i you ? . ! how to may contain image in 2015 … • 犬 собака""".split()
)


@settings(max_examples=200)
@given(st.one_of(st.lists(_PARTS, max_size=25).map(" ".join), st.text(max_size=80)))
def test_segments_are_characters_of_the_caption_in_order(caption: str) -> None:
    previous = -1
    for segment in segments(caption):
        assert "".join(caption[origin] for origin in segment.origins) == segment.text
        for origin in segment.origins:
            assert origin > previous
            previous = origin


def test_spans_point_into_the_caption_and_nothing_relates_across_segments(parser: Parser) -> None:
    caption = "Stock photo: <PERSON> on a snow - covered bench | a cat &amp; a dog under a table"
    graph = parser.parse([caption])[0]
    assert [caption[slice(*obj.phrase)] for obj in graph.objects] == [
        "PERSON", "a snow - covered bench", "a cat", "a dog", "a table",
    ]  # fmt: skip
    assert [obj.fixed for obj in graph.objects] == [True, False, False, False, False]
    names = [obj.name for obj in graph.objects]
    assert [(names[r.subject], r.predicate, names[r.object]) for r in graph.relations] == [
        ("person", "on", "bench"), ("cat", "under", "table"), ("dog", "under", "table"),
    ]  # fmt: skip


def _work(parser: Parser, caption: str) -> int:
    """Return how many lines of our own Python run to parse one caption."""
    lines = 0

    def local(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return local

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        return local if "scenegraph" in frame.f_code.co_filename else None

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        parser.parse([caption])
    finally:
        sys.settrace(previous)
    return lines


@pytest.mark.parametrize(
    "unit",
    [
        "a dog chases a red ball, ", "#dog #cat ", "<div class='x'>a dog</div> ",
        "for (int i = 0; i < n; i++) { a[i] = b; } ", "a dog 犬 на диване ", ",", '"(["', '"a "b (c [d ',
        "New York City ", "Anna-Maria ", "dog - cat | ", "by by by ", "$1 5x5 2015 ", "on monday in may ",
    ],
)  # fmt: skip
def test_work_grows_no_faster_than_the_length_of_a_caption(parser: Parser, unit: str) -> None:
    short = unit * (400 // len(unit))
    parser.parse([short])  # fill the dictionaries' caches
    assert _work(parser, short * 4) < 8 * _work(parser, short) + 2000
