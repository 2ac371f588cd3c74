"""A page as a phone shows it, in a real browser: all there, nothing beside the screen, nothing that runs.

Skipped where there is no chromium (.ci/tools brings it), but where SCLIP_BROWSER=required, as .ci/run sets it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sclip.negatives import candidates
from sclip.report import CorpusStatistics, write
from sclip.report.cards import card
from sclip.report.page import render
from sclip.report.visit import (
    CaptionChoice,
    Encoded,
    EncodedPicture,
    SampleVisit,
    Seen,
    Slot,
    Token,
    write_page,
)
from sclip.scenegraph import Parser
from support.browser import PHONE, require_browser, shown
from support.pictures import picture

CAPTIONS = [
    "a small red circle to the left of a blue square",
    "a man holding a racket near a net in front of a crowd of people with hats on a sunny day with a dog",
    "eggs, bacon, toast, beans, tomatoes, mushrooms and sausages on a large white wooden table next to a fork",
    "<script>document.documentElement.dataset.ran = 'a'</script> a <b>dog</b> & a cat \u202e\x1b[31m on a mat",
    "<img src=x onerror=\"document.documentElement.dataset.ran = 'b'\"> a \"dog\" on a 'mat'",
    "כלב חום יושב על ספה ליד חתול",
    "🐶 on a 🛋️ next to 👩‍👩‍👧 and a 犬 near a 猫",
    "a dog-" + "very-" * 60 + "long-thing on a " + "x" * 300,
    "a dog on a mat " * 200,
    "",
]


@pytest.fixture(scope="module", autouse=True)
def _browser() -> None:
    require_browser()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    graphs = Parser().parse(CAPTIONS)
    found = [(graph, candidates(graph)) for graph in graphs]
    statistics = CorpusStatistics()
    for number, (graph, negatives) in enumerate(found):
        statistics.add(f"{number:06d}", graph, negatives)
    report = write(statistics, tmp_path_factory.mktemp("report"), "x" * 200, ["a note"]).read_text()
    both = ([card(str(i), graph) for i, graph in enumerate(graphs)], [card("1", *known) for known in found])
    graph_page, negative_page = (
        render("graphs.html", title="graphs", notes=[], wide=wide, cards=cards)
        for wide, cards in zip((False, True), both, strict=True)
    )
    return {"graphs": graph_page, "negatives": negative_page, "corpus": report}


@pytest.mark.parametrize("name", ["graphs", "negatives", "corpus"])
def test_a_phone_shows_all_of_a_page_and_nothing_beside_its_screen(
    name: str, pages: dict[str, str], tmp_path: Path
) -> None:
    found = shown(pages[name], tmp_path)
    assert found["width"] == PHONE
    assert found["scroll"] <= PHONE
    assert found["beside"] == []
    assert found["cut"] == []
    assert found["svgs"] == pages[name].count("<svg") > 6
    assert found["least"] > 0.6  # the smallest letters are still 8 pixels high
    assert found["ran"] == ""


@pytest.mark.parametrize(
    "caption", [CAPTIONS[n] for n in (1, 3, 7, 9)], ids=["long", "script", "wide", "empty"]
)
def test_a_phone_shows_what_a_step_saw_with_picture_and_crop_beside_each_other(
    caption: str, tmp_path: Path
) -> None:
    (graph,) = Parser().parse([caption])
    tokens = [Token(49406, "start", "start"), *(Token(9, word) for word in caption.split()[:75])]
    encoded = Encoded([*tokens, Token(0, "!", "padding")], [[tokens[:4], tokens[:2], tokens[1:4]]], 3)
    slots = [Slot(negative, True, encoded) for negative in candidates(graph)[:2]]
    slots.append(Slot(None, False, Encoded([Token(0, "!", "padding")], [], 0)))
    sizes = ((480, 200), (224, 224))
    pictured, crop = (EncodedPicture(picture("red", size), "image/png", "what it is") for size in sizes)
    choices = [CaptionChoice(text, text == caption, "2 objects, 1 attributes") for text in CAPTIONS]
    facts = [("shard", "s3://bucket/" + "long-" * 30 + ".tar"), ("key", "x" * 200)]
    visit = SampleVisit(
        "k" * 120, facts, [caption], pictured, choices, Seen(graph, "parsed", encoded, slots, crop)
    )
    write_page(visit, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    found = shown(page, tmp_path)
    assert found["scroll"] <= PHONE
    assert found["beside"] == []
    assert found["svgs"] == page.count("<svg")
    assert len(found["pictures"]) == 2
    assert all(100 < width < PHONE / 2 for width in found["pictures"])
    assert found["ran"] == ""


def test_a_script_that_got_into_a_page_would_not_run(pages: dict[str, str], tmp_path: Path) -> None:
    script = "<script>document.documentElement.dataset.ran = 'yes'</script></body>"
    page = pages["graphs"].replace("</body>", script)
    assert shown(page, tmp_path)["ran"] == ""
    unguarded = page.replace("default-src 'none'", "default-src 'unsafe-inline'")
    assert shown(unguarded, tmp_path)["ran"] == "yes"
