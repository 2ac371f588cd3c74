"""The pages of evaluations in a real browser: all on a phone's screen, nothing that runs, in light and in dark."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from PIL import Image

from sclip.evaluate.compare import compare
from sclip.evaluate.result import Evaluation, Score
from sclip.report import comparison
from sclip.report import evaluation as single
from sclip.scenegraph import Parser
from support.browser import PHONE, require_browser, screenshot, shown
from support.evaluations import HOSTILE, evaluation, example, group, groups, result

LONG = "very-" * 40 + "long"


@pytest.fixture(scope="module", autouse=True)
def _browser() -> None:
    require_browser()


def hostile(model: str = LONG) -> Evaluation:
    """Return an evaluation in which everything is as long, as many and as malicious as it may be."""
    retrieval = [(f"caption {n} {LONG} {HOSTILE}", 0.3 - n / 100, n in (2, 4)) for n in range(9)]
    names = [HOSTILE, LONG, "כלב חום יושב על ספה", "a" * 300]
    results = [
        result(
            "vg-relation", groups=groups(60), examples=[example(n) for n in range(6)], notes=[HOSTILE, LONG]
        ),
        result(
            LONG,
            groups=[group(name, n, 10 + n) for n, name in enumerate(names)],
            examples=[example(0, retrieval)],
        ),
        result(
            "diverged", scores={"macro": Score(math.nan, math.nan, math.nan, 0.5)}, groups=[], examples=[]
        ),
        result(
            "full", scores={"macro": Score(1.0, 1.0, 1.0, 0.0), LONG: Score(0.0, 0.0, 0.0, 1.0)}, groups=[]
        ),
    ]
    return evaluation(*results, model=model, **{LONG: LONG, "hostile": HOSTILE})


def steps(count: int) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return curves of `count` models, of which one has values that are no numbers."""
    random_ = random.Random(0)
    loss = {f"model {n}": [(s, 5 / (s + 9) + random_.random()) for s in range(5000)] for n in range(count)}
    loss["model 0"][100:200] = [(s, math.nan) for s in range(100, 200)]
    return {"loss": loss, LONG: {"model 1": [(10**9, 1.5e9), (2 * 10**9, 1.5000001e9)]}, "none": {}}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    decision = single.GateVerdict(LONG, False, [(HOSTILE, False), (LONG, True)])
    report = single.write(hostile(), folder, graphs=Parser().parse, decision=decision, notes=[LONG])
    compared = {}
    for count in (2, 8):
        models = compare([hostile(f"model {n}") for n in range(count)])
        compared[count] = comparison.write(models, folder / str(count), steps(count), LONG)
    return {"evaluation": report, "two models": compared[2], "eight models": compared[8]}


@pytest.mark.parametrize("name", ["evaluation", "two models", "eight models"])
def test_a_phone_shows_all_of_a_page_and_nothing_beside_its_screen(
    name: str, pages: dict[str, Path], tmp_path: Path
) -> None:
    page = pages[name].read_text()
    found = shown(page, tmp_path)
    assert found["scroll"] <= PHONE == found["width"]
    assert found["beside"] == []
    assert found["cut"] == []
    assert found["outside"] == []
    assert found["squeezed"] == []
    assert found["svgs"] == page.count("<svg")
    assert found["least"] > 0.6
    assert len(found["pictures"]) == page.count("<img")
    assert found["ran"] == ""


def colours(image: Image.Image) -> int:
    return len(image.resize((200, 200)).quantize(64).getcolors() or [])


@pytest.mark.parametrize("width", [PHONE, 1200])
@pytest.mark.parametrize("name", ["evaluation", "eight models"])
def test_a_page_is_drawn_in_light_and_in_dark(name: str, width: int, pages: dict[str, Path]) -> None:
    light, dark = (screenshot(pages[name], width, dark=dark) for dark in (False, True))
    assert light.getpixel((2, 2)) == (0xF6, 0xF5, 0xF2)
    assert dark.getpixel((2, 2)) == (0x14, 0x16, 0x1A)
    assert min(colours(light), colours(dark)) > 16
