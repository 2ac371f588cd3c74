"""The pages in a real browser as wide as a phone: everything is shown, nothing overflows, no script runs.

Skipped without chromium (.ci/tools installs it), unless SCLIP_BROWSER=required, as .ci/run sets it.
"""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from sclip.evaluate.compare import compare
from sclip.evaluate.result import Evaluation, Score
from sclip.evaluate.seeds import Cell
from sclip.evaluate.tradeoff import choose, point
from sclip.negatives import candidates
from sclip.report import CorpusStatistics, ablation, blend, comparison, write
from sclip.report import evaluation as single
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
from support.evaluations import HOSTILE, evaluation, example, group, groups, result
from support.pictures import picture
from support.processes import require

CHROMIUM = shutil.which("chromium")
PHONE = 390
LONG = "very-" * 40 + "long"

PHONE_FRAMES = """<!doctype html><body><pre></pre><script>
const found = [];
{pages}.forEach((text, index) => {{
  const frame = document.createElement("iframe");
  frame.style = "position:absolute;top:0;left:0;border:0;width:{width}px;height:844px";
  frame.onload = () => {{
    const page = frame.contentDocument, all = query => [...page.querySelectorAll(query)];
    all("details").forEach(details => {{ details.open = true; }});
    const box = element => element.getBoundingClientRect();
    const wider = (text, rect) => text.x < rect.x - 1 || text.x + text.width > rect.x + rect.width + 1;
    const drawn = element => element.closest("svg") ? element.getBBox() : null;
    found[index] = {{
      width: page.defaultView.innerWidth,
      scroll: page.documentElement.scrollWidth,
      beside: all("body *").filter(e => box(e).right > {width} + 0.5 || box(e).left < -0.5).map(e => e.outerHTML),
      svgs: all("svg").length,
      cut: all("svg g").filter(g => wider(g.querySelector("text").getBBox(), g.querySelector("rect").getBBox()))
        .map(g => g.textContent),
      outside: all("svg text").filter(text => wider(drawn(text), text.closest("svg").viewBox.baseVal))
        .map(text => text.textContent),
      squeezed: all(".value, .chip, .scale span").filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
        .map(e => e.textContent),
      least: Math.min(...all("svg").map(svg => box(svg).width / svg.viewBox.baseVal.width)),
      pictures: all("img").filter(img => img.naturalWidth).map(img => Math.round(box(img).width)),
      ran: page.documentElement.dataset.ran || document.documentElement.dataset.ran || "",
    }};
    document.querySelector("pre").textContent = JSON.stringify(found);
  }};
  frame.srcdoc = text;
  document.body.append(frame);
}});
</script>"""


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


def shown(pages: Mapping[str, str], folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the browser measures of pages in frames as wide as a phone. Its windows cannot be that narrow."""
    escaped = json.dumps(list(pages.values())).replace("</", "<\\/")
    (folder / "frames.html").write_text(PHONE_FRAMES.format(width=PHONE, pages=escaped), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    options += [f"--user-data-dir={folder / 'profile'}", (folder / "frames.html").as_uri()]
    done = subprocess.run([str(CHROMIUM), *options], capture_output=True, text=True, timeout=180)
    match = re.search("<pre>(.+?)</pre>", done.stdout, re.DOTALL)
    assert match, done.stderr + done.stdout[-2000:]
    return dict(zip(pages, json.loads(unescape(match.group(1))), strict=True))


def hostile(model: str = LONG) -> Evaluation:
    """Return an evaluation whose contents are as long, as many and as malicious as possible."""
    retrieval = [(f"caption {n} {LONG} {HOSTILE}", 0.3 - n / 100, n in (2, 4)) for n in range(9)]
    names = [HOSTILE, LONG, "כלב חום יושב על ספה", "a" * 300]
    wide = [group(name, n, 10 + n) for n, name in enumerate(names)]
    diverged = Score(math.nan, math.nan, math.nan, 0.5)
    full = {"macro": Score(1.0, 1.0, 1.0, 0.0), LONG: Score(0.0, 0.0, 0.0, 1.0)}
    results = [
        result(groups=groups(60), examples=[example(n) for n in range(6)], notes=[HOSTILE, LONG]),
        result(LONG, groups=wide, examples=[example(0, retrieval)]),
        result("diverged", scores={"macro": diverged}, groups=[], examples=[]),
        result("full", scores=full, groups=[]),
    ]
    return evaluation(*results, model=model, **{LONG: LONG, "hostile": HOSTILE})


def steps(count: int) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return curves of `count` models. One model has NaN values."""
    random_ = random.Random(0)
    loss = {f"model {n}": [(s, 5 / (s + 9) + random_.random()) for s in range(5000)] for n in range(count)}
    loss["model 0"][100:200] = [(s, math.nan) for s in range(100, 200)]
    return {"loss": loss, LONG: {"model 1": [(10**9, 1.5e9), (2 * 10**9, 1.5000001e9)]}, "none": {}}


def visit_of(caption: str, parser: Parser) -> SampleVisit:
    (graph,) = parser.parse([caption])
    tokens = [Token(49406, "start", "start"), *(Token(9, word) for word in caption.split()[:75])]
    encoded = Encoded([*tokens, Token(0, "!", "padding")], [[tokens[:4], tokens[:2], tokens[1:4]]], 3)
    slots = [Slot(negative, True, encoded) for negative in candidates(graph)[:2]]
    slots.append(Slot(None, False, Encoded([Token(0, "!", "padding")], [], 0)))
    sizes = ((480, 200), (224, 224))
    pictured, crop = (EncodedPicture(picture("red", size), "image/png", "what it is") for size in sizes)
    choices = [CaptionChoice(text, text == caption, "2 objects, 1 attributes") for text in CAPTIONS]
    facts = [("shard", "s3://bucket/" + "long-" * 30 + ".tar"), ("key", "x" * 200)]
    seen = Seen(graph, "parsed", encoded, slots, crop)
    return SampleVisit("k" * 120, facts, [caption], pictured, choices, seen)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, parser: Parser) -> dict[str, str]:
    if CHROMIUM is None:
        require("SCLIP_BROWSER", "no chromium to open a page with")
    folder = tmp_path_factory.mktemp("pages")
    graphs = parser.parse(CAPTIONS)
    entries = [(graph, candidates(graph)) for graph in graphs]
    statistics = CorpusStatistics()
    for number, (graph, negatives) in enumerate(entries):
        statistics.add(f"{number:06d}", graph, negatives)
    both = ([card(str(i), graph) for i, graph in enumerate(graphs)], [card("1", *known) for known in entries])
    graph_page, negative_page = (
        render("graphs.html", title="graphs", notes=[], wide=wide, cards=cards)
        for wide, cards in zip((False, True), both, strict=True)
    )
    decision = single.GateVerdict(LONG, False, [(HOSTILE, False), (LONG, True)])
    written = {
        "corpus": write(statistics, folder, "x" * 200, ["a note"]),
        "evaluation": single.write(
            hostile(), folder / "1", graphs=parser.parse, decision=decision, notes=[LONG]
        ),
    }
    for count in (2, 8):
        models = compare([hostile(f"model {n}") for n in range(count)])
        if count == 2:
            points = [point(a, hostile("m"), f"{LONG}/macro", f"{LONG}/macro") for a in (0.0, 0.5, 1.0)]
            choice, evaluations = choose(points, LONG, HOSTILE, 0.98), models.evaluations
            written["blend"] = blend.write(choice, [*evaluations, evaluations[0]], folder, [LONG])
        written[f"{count} models"] = comparison.write(models, folder / str(count), steps(count), LONG)
    rows = {f"{n} {LONG}": label for n, label in enumerate([LONG, HOSTILE, "כלב חום", "a" * 300] * 3)}
    heads = {str(n): text for n, text in enumerate([LONG, HOSTILE, "kept", "a" * 300, *"bcdef"])}
    cell = Cell([0.1, 0.3, math.nan], LONG, 0.5), Cell([0.2, 0.31], "–", 0.0001)
    cells = {row: dict.fromkeys(heads, cell[number % 2]) for number, row in enumerate(rows)}
    first = next(iter(rows))
    line = {first: [(a / 10, (1.2 * a, 1 - a)) for a in range(11)]}
    kept = ablation.Forgetting({row: [(0.1, 1.0), (-3.0, math.nan)] for row in rows}, line, 0.9)
    layout = ablation.Layout(LONG, rows, heads, 3, first, first, HOSTILE)
    (folder / "ablation").mkdir()
    written["ablation"] = ablation.write(layout, cells, folder / "ablation", kept, "comparison.html")
    for name, caption in (("script", CAPTIONS[3]), ("wide", CAPTIONS[7])):
        written[name] = folder / f"{name}.html"
        write_page(visit_of(caption, parser), written[name])
    texts = {name: path.read_text() for name, path in written.items()}
    guarded = graph_page.replace(
        "</body>", "<script>document.documentElement.dataset.ran = 'yes'</script></body>"
    )
    return texts | {
        "graphs": graph_page,
        "negatives": negative_page,
        "guarded": guarded,
        "unguarded": guarded.replace("default-src 'none'", "default-src 'unsafe-inline'"),
    }


@pytest.fixture(scope="module")
def on_a_phone(pages: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one browser measures of all pages."""
    return shown(pages, tmp_path_factory.mktemp("browser"))


@pytest.mark.parametrize(
    "name", ["graphs", "negatives", "corpus", "evaluation", "blend", "ablation", "2 models", "8 models"]
)
def test_a_phone_shows_all_of_a_page_without_overflow(
    name: str, pages: dict[str, str], on_a_phone: dict[str, dict[str, Any]]
) -> None:
    page, measured = pages[name], on_a_phone[name]
    assert measured["scroll"] <= PHONE == measured["width"]
    assert not [
        measured[problem] for problem in ("beside", "cut", "outside", "squeezed", "ran") if measured[problem]
    ]
    assert measured["svgs"] == page.count("<svg") > 0
    assert measured["least"] > 0.6  # the smallest letters are still 8 pixels high
    assert len(measured["pictures"]) == page.count("<img")


@pytest.mark.parametrize("name", ["script", "wide"])
def test_a_phone_shows_the_page_of_a_sample_with_picture_and_crop_side_by_side(
    name: str, pages: dict[str, str], on_a_phone: dict[str, dict[str, Any]]
) -> None:
    measured = on_a_phone[name]
    assert measured["scroll"] <= PHONE
    assert (measured["beside"], measured["ran"], measured["svgs"]) == ([], "", pages[name].count("<svg"))
    assert [100 < width < PHONE / 2 for width in measured["pictures"]] == [True, True]


def test_a_script_inside_a_page_does_not_run(on_a_phone: dict[str, dict[str, Any]]) -> None:
    assert (on_a_phone["guarded"]["ran"], on_a_phone["unguarded"]["ran"]) == ("", "yes")
