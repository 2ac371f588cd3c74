"""Drawings show the contents of a graph without overlap, and no caption can inject anything that runs."""

from __future__ import annotations

import io
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from sclip.negatives import Negative, candidates
from sclip.report.cards import card
from sclip.report.layout import MOST_OBJECTS, Drawing, Text, lay_out
from sclip.report.page import render
from sclip.report.terminal import show
from sclip.report.texts import MOST_CHARACTERS, visible
from sclip.scenegraph import Attribute, Object, Parser, Relation, SceneGraph

PHONE = 390
HARMLESS = set(
    "html head meta title style body header h1 main article div p i span mark bdi svg g rect path text".split()
)


def graph_of(names: str, attributes: str = "", relations: str = "") -> SceneGraph:
    """Return a graph from texts such as "man horse", "0 tall, 1 brown" and "0 ride 1"."""
    entries = [[entry.split() for entry in text.split(",") if entry] for text in (attributes, relations)]
    return made(
        names.split(),
        [(int(k), word) for k, word in entries[0]],
        [(int(a), word, int(b)) for a, word, b in entries[1]],
    )


def made(
    names: list[str], attributes: list[tuple[int, str]], relations: list[tuple[int, str, int]]
) -> SceneGraph:
    nowhere = (0, 0)
    return SceneGraph(
        " ".join(names),
        tuple(Object(name, nowhere, nowhere) for name in names),
        tuple(Attribute(k, word, nowhere) for k, word in attributes),
        tuple(Relation(one, word, two, nowhere) for one, word, two in relations),
    )


def in_terminal(graph: SceneGraph, negatives: list[Negative] | None = None, width: int = 100) -> str:
    file = io.StringIO()
    show(graph, negatives, Console(file=file, width=width, highlight=False, markup=False, emoji=False))
    return file.getvalue()


def page(graph: SceneGraph, negatives: list[Negative] | None = None) -> str:
    return render("graphs.html", title="graphs", notes=[], wide=True, cards=[card("1", graph, negatives)])


# -- layout


_WORD = st.sampled_from(
    ["dog", "traffic light", "x", "犬", "very long name of a thing that nobody reads", ""]
)


@st.composite
def _graphs(draw: st.DrawFn) -> SceneGraph:
    names = draw(st.lists(_WORD, max_size=14))
    index, most = st.integers(0, max(0, len(names) - 1)), 14 * bool(names)
    attributes = draw(st.lists(st.tuples(index, _WORD), max_size=most))
    return made(names, attributes, draw(st.lists(st.tuples(index, _WORD, index), max_size=most)))


def overlap(one: Text, other: Text) -> bool:
    across = one.x < other.x + other.width - 0.2 and other.x < one.x + one.width - 0.2
    return across and one.y < other.y + other.height - 0.2 and other.y < one.y + one.height - 0.2


@settings(max_examples=150)
@given(_graphs())
def test_boxes_and_labels_do_not_overlap_and_stay_inside_the_drawing(graph: SceneGraph) -> None:
    drawing = lay_out(graph)
    labels = {
        (a.label.x, a.label.y): a.label for a in drawing.arrows
    }.values()  # arrows of one predicate and object share a label
    placed = [box.frame for box in drawing.boxes] + list(labels)
    for i, one in enumerate(placed):
        assert min(one.x, one.y) >= 0
        assert one.x + one.width <= drawing.width + 0.2
        assert one.y + one.height <= drawing.height + 0.2
        assert not [other for other in placed[:i] if overlap(one, other)]
    for box in drawing.boxes:
        for i, pill in enumerate(box.pills):
            assert box.frame.x <= pill.x
            assert pill.x + pill.width <= box.frame.x + box.frame.width + 0.2
            assert pill.y + pill.height <= box.frame.y + box.frame.height
            assert not [other for other in box.pills[:i] if overlap(pill, other)]
    assert lay_out(graph) == drawing


def test_subjects_stand_above_their_objects() -> None:
    drawing = lay_out(graph_of("beach horse man", "", "2 ride 1, 2 on 0"))
    beach, horse, man = (box.frame for box in drawing.boxes)
    assert man.y < horse.y == beach.y
    ride = drawing.arrows[0].label
    assert man.y + man.height < ride.y < horse.y


def test_cycles_self_relations_and_relations_with_a_shared_object_are_drawn() -> None:
    drawing = lay_out(graph_of("a b c", "", "0 x 1, 1 x 2, 2 x 0, 1 self 1"))
    assert len(drawing.arrows) == 3
    assert [pill.words.text for pill in drawing.boxes[1].pills] == ["↻ self"]
    row = lay_out(graph_of("egg toast table", "", "0 on 2, 1 on 2"))
    assert row.arrows[0].label == row.arrows[1].label


def test_drawings_of_captions_are_no_wider_than_a_phone(parser: Parser) -> None:
    captions = [
        "a man holding a racket near a net in front of a crowd of people with hats on a sunny day with a dog",
        "eggs, bacon, toast, beans, tomatoes, mushrooms and sausages on a large white wooden table",
        "two large brown dogs and a small white cat lying on an old green couch next to a tall wooden lamp",
    ]
    for graph in parser.parse(captions):
        assert lay_out(graph).width <= PHONE


def test_only_the_first_of_very_many_objects_are_drawn_and_the_others_counted() -> None:
    graph = graph_of("dog " * 300, "", ", ".join(f"{i} near {i + 1}" for i in range(299)))
    assert len(lay_out(graph).boxes) == MOST_OBJECTS
    assert f"and {300 - MOST_OBJECTS} more objects" in page(graph)
    assert f"and {300 - MOST_OBJECTS} more objects" in in_terminal(graph)


def marked(drawing: Drawing) -> list[str]:
    texts = [text for box in drawing.boxes for text in (box.frame, *box.pills)]
    return [text.words.text for text in texts if text.words.marked]


def test_exchanged_words_of_a_negative_are_marked_in_both_drawings(parser: Parser) -> None:
    graph = parser.parse(["a small red circle to the left of a blue square"])[0]
    graph_of_swap = {negative.swapped: negative.graph for negative in candidates(graph)}
    attribute, objects = graph_of_swap["red", "blue"], graph_of_swap["circle", "square"]
    assert marked(lay_out(graph, attribute)) == ["red", "blue"]
    assert marked(lay_out(attribute, graph)) == ["blue", "red"]
    assert marked(lay_out(objects, graph)) == ["square", "circle"]
    assert marked(lay_out(graph)) == []
    drawing = lay_out(graph_of("a b c", "", "0 hold 1, 0 eat 2"), graph_of("a b c", "", "0 eat 1, 0 eat 2"))
    assert [arrow.label.words.marked for arrow in drawing.arrows] == [True, False]


# -- terminal


def test_terminal_shows_attributes_behind_an_object_and_its_arrows_below(parser: Parser) -> None:
    graph = parser.parse(["a man and a tall man look at a small red bird"])[0]
    assert in_terminal(graph).splitlines()[1:] == [
        "  man¹", "  └─ look at ─▶ bird", "  man²  tall", "  └─ look at ─▶ bird", "  bird  small, red", "",
    ]  # fmt: skip


def test_terminal_shows_a_negative_below_its_caption(parser: Parser) -> None:
    graph = parser.parse(["a man rides a horse"])[0]
    lines = in_terminal(graph, candidates(graph)[:1]).splitlines()
    assert "      ‹a man› rides ‹a horse›" in lines
    assert "    ≠ ‹a horse› rides ‹a man›" in lines
    assert "no negative" in in_terminal(graph, [])
    assert "no negative" not in in_terminal(graph)


# -- hostile captions


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


_HOSTILE = st.sampled_from(
    """<script>alert(1)</script> <img src=x onerror=alert(1)> "onload="x </svg> </title> </style> &lt;b&gt; {{7*7}} {%
    javascript:x <!-- ]]> \x1b[2J \u202e red dog cat on the with [bold] :dog: \\n 犬 👩‍👧 כלב a""".split(" ")
)
_ANY = st.one_of(st.lists(_HOSTILE, max_size=16).map(" ".join), st.text(max_size=80))


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_ANY)
def test_any_caption_is_plain_text_on_a_page_and_in_the_terminal(parser: Parser, caption: str) -> None:
    graph = parser.parse([caption])[0]
    negatives = candidates(graph)[:3]
    html = page(graph, negatives)
    parsed = Page(html)
    assert parsed.tags <= HARMLESS
    assert "default-src 'none'" in html
    assert not [
        name for name in parsed.attributes if name.startswith("on") or name in ("href", "src", "srcdoc")
    ]
    assert negatives or visible(caption) in parsed.text
    for svg in html.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + svg.split("</svg>")[0] + "</svg>")
    drawn = in_terminal(graph, negatives, width=200)
    assert not [c for c in drawn if c != "\n" and unicodedata.category(c) in ("Cc", "Cs")]
    html.encode()
    drawn.encode()


def test_long_captions_are_cut_in_drawings(parser: Parser) -> None:
    graph = parser.parse(["a dog on a mat " * 2000])[0]
    html = page(graph, candidates(graph)[:2])
    assert len(html) < 60_000
    assert "…" in html
    assert len(in_terminal(graph)) < 10 * MOST_CHARACTERS
