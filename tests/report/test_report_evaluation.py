"""The page of an evaluation says what the evaluation holds: every number, every note, every caption as text."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from sclip.evaluate.result import Evaluation, EvaluationError, Example, Score
from sclip.report.evaluation import GateVerdict, write
from sclip.report.score_bars import folded_groups
from sclip.report.texts import differing
from sclip.report.wrong import wrong_cases
from sclip.scenegraph import Attribute, Object, Relation, SceneGraph
from support.evaluations import (
    HOSTILE,
    SWAPS,
    evaluation,
    example,
    group,
    groups,
    photograph,
    result,
    text_of,
)


def page_of(model: Evaluation, folder: Path, **options: Any) -> str:
    return write(model, folder, **options).read_text(encoding="utf-8")


def test_the_page_shows_model_suite_notes_and_gates_and_links_to_each_benchmark(
    tmp_path: Path,
) -> None:
    two = result("two", cases=300, notes=["Partial: 3 of 10 pictures are missing."])
    measured = evaluation(result("one", cases=1200), two, model="models:/m@champion", date="2026-01-01")
    gates = [("VG-Relation 0.70 is at least 0.79", False), ("R@1 0.41 is at least 0.40", True)]
    options: Any = {"notes": ["a note"], "decision": GateVerdict("refused", False, gates)}
    path = write(measured, tmp_path / "new", **options)
    page = path.read_text()
    assert path == tmp_path / "new" / "report.html"
    for expected in (
        "Evaluation of models:/m@champion", "1,500 cases in 2 benchmarks of the suite standard", "a note",
        "2026-01-01", "computed from 300 cases, 300 images, 0 ties", measured.results[0].definition,
        "refused ✗ VG-Relation 0.70 is at least 0.79 ✓ R@1 0.41 is at least 0.40",
    ):  # fmt: skip
        assert expected in text_of(page)
    links = re.findall(r'href="#([^"]+)"', page)
    assert links == re.findall(r'<section class="benchmark" id="([^"]+)"', page)
    assert len(links) == 2
    (notice,) = re.findall(r'<div class="notice">(.*?)</div>', page, re.DOTALL)
    assert "Partial: 3 of 10 pictures are missing." in notice
    measured.write(tmp_path / "evaluation.json")
    assert page_of(Evaluation.read(tmp_path / "evaluation.json"), tmp_path, **options) == page
    with pytest.raises(EvaluationError, match="evaluated on no benchmark"):
        write(evaluation(), tmp_path)


def test_a_headline_is_shown_with_interval_chance_and_verdict_and_recalls_by_their_name(
    tmp_path: Path,
) -> None:
    scores = {
        "text_to_image_r1": Score(0.812, 0.79, 0.834, 0.0002),
        "image_to_text_r10": Score(0.9, 0.8, 1, 0.002),
    }
    retrieval = result(scores=scores, headline="text_to_image_r1", groups=[], examples=[])
    page = page_of(evaluation(retrieval), tmp_path)
    for expected in (
        "text to image R@1 81.2",
        "image to text R@10 90.0",
        "above chance 79.0 to 83.4, chance 0.02",
    ):
        assert expected in text_of(page)
    assert '<i class="fill" style="width:81.2%"></i>' in page
    assert '<i class="whisker" style="left:79.0%;width:4.4%"></i><i class="chance"' in page


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (Score(0.6, 0.55, 0.65, 0.5), "Above chance on 1 of 1 benchmark."),
        (Score(0.52, 0.48, 0.56, 0.5), "No clear difference from chance: vg-relation."),
        (Score(0.4, 0.35, 0.45, 0.5), "Below chance: vg-relation."),
        (Score(math.nan, math.nan, math.nan, 0.5), "No number, because the model has diverged: vg-relation."),
    ],
)
def test_a_summary_of_the_results_stands_on_top(score: Score, message: str, tmp_path: Path) -> None:
    page = page_of(evaluation(result(scores={"macro": score})), tmp_path)
    text = text_of(page)
    assert text.index(message) < text.index("chance 50.0")
    assert "nan" not in re.sub('<style>.*?</style>|base64,[^"]*', "", page, flags=re.DOTALL)


def test_groups_are_sorted_from_the_weakest_and_long_lists_are_folded() -> None:
    rows = folded_groups(groups(500))
    counted = [*rows.open, *rows.folded]
    assert len(rows.open) == 12
    assert len(counted) + len(rows.uncounted) == 500
    assert [float(row.value) for row in counted] == sorted(float(row.value) for row in counted)
    assert all(row.counted for row in counted)
    assert not any(row.counted for row in rows.uncounted)


def test_a_group_is_shown_with_its_cases_and_uncounted_groups_are_set_apart(tmp_path: Path) -> None:
    shown_groups = [group("riding", 30, 40), group("near", 3, 4, counted=False)]
    page = page_of(evaluation(result(groups=shown_groups)), tmp_path)
    text = text_of(page)
    assert "By relation, the weakest first riding 75.0 30 of 40, 65.0 to 85.0" in text
    assert "1 that the benchmark's mean leaves out near 75.0 3 of 4" in text
    assert page.count('class="row uncounted"') == 1


def test_a_wrong_case_shows_both_captions_with_changes_marked_and_the_margin(tmp_path: Path) -> None:
    page = page_of(evaluation(result(examples=[example(2)])), tmp_path)
    for expected in (
        "the <mark>dog</mark> is chasing the <mark>cat</mark>",
        "the <mark>cat</mark> is chasing the <mark>dog</mark>",
        "0.2713", "0.2841", "the false one scores 0.0128 higher", "1 of the 80 cases that the model got wrong",
    ):  # fmt: skip
        assert expected in page
    assert page.count("data:image/webp;base64,") == 1


@pytest.mark.parametrize(
    ("caption", "other", "marked"),
    [
        ("a red cat", "a blue cat", "a [red] cat"), ("a red cat", "a cat", "a [red] cat"),
        ("a cat", "a red cat", "a cat"), ("A Cat.", "a cat.", "A Cat."),
        ("on top of the mat a dog sleeps", "rain and wind", "on top of the mat a dog sleeps"), ("", "a cat", ""),
        ("a <b>cat</b>", "a <b>dog</b>", "a <b>[cat]</b>"),
    ],
)  # fmt: skip
def test_words_that_the_other_caption_lacks_are_marked(caption: str, other: str, marked: str) -> None:
    pieces, _ = differing(caption, other)
    assert "".join(f"[{piece.text}]" if piece.role else piece.text for piece in pieces) == marked


def graph(caption: str, *names: str) -> SceneGraph:
    objects = tuple(Object(name, (0, 1), (0, 1)) for name in names)
    return SceneGraph(caption, objects, (Attribute(0, "big", (0, 0)),), (Relation(0, "chase", 1, (0, 0)),))


def test_both_graphs_are_drawn_and_their_differences_are_marked(tmp_path: Path) -> None:
    parsed: list[str] = []

    def parser(captions: Any) -> list[SceneGraph]:
        parsed.extend(captions)
        return [graph(c, *(("dog", "cat") if c == SWAPS[2][0] else ("cat", "dog"))) for c in captions]

    measured = evaluation(result(examples=[example(2), example(2)]))
    page = page_of(measured, tmp_path, graphs=parser)
    assert parsed == list(SWAPS[2])  # each caption once, in one call
    assert page.count('<svg class="graph"') == 4
    assert 'aria-label="dog chase cat; big is dog"' in page
    assert page.count('class="predicate marked"') == page.count('class="attribute marked"') == 4
    assert 'class="object marked"' not in page
    # No drawing without a parser, nor for graphs that say no more than names.
    assert "<svg" not in page_of(measured, tmp_path)
    assert "<svg" not in page_of(
        measured, tmp_path, graphs=lambda captions: [SceneGraph(c) for c in captions]
    )


def test_the_best_true_and_false_candidates_stand_side_by_side_and_all_are_ranked() -> None:
    texts = [("c", 0.1, True), ("b", 0.3, False), ("a", 0.2, True), ("d", math.nan, False)]
    (case,) = wrong_cases([example(0, texts)], {})
    assert [candidate and candidate.pieces[0].text for candidate in (case.true, case.false)] == ["a", "b"]
    ranked = [("".join(p.text for p in option.pieces), option.width) for option in case.ranked]
    assert ranked == [("b", 100.0), ("a", 66.7), ("c", 33.3), ("d", 0.0)]


@pytest.mark.parametrize(
    ("true", "false", "message"),
    [
        (0.2, 0.25, "the false one scores 0.0500 higher"),
        (0.2, 0.2, "a tie: counts as wrong"),
        (math.nan, 0.2, "a score is not a number: counts as wrong"),
        (0.3, 0.2, ""),
    ],
)
def test_a_wrong_case_says_by_how_much_the_false_caption_won(true: float, false: float, message: str) -> None:
    (case,) = wrong_cases([example(0, [("a", true, True), ("b", false, False)])], {})
    assert case.told == message


def test_contents_of_an_evaluation_are_escaped(tmp_path: Path) -> None:
    texts = [(HOSTILE, 0.1, True), (HOSTILE, 0.2, False), (HOSTILE, 0.1, False)]
    hostile = result(
        HOSTILE, definition=HOSTILE, notes=[HOSTILE], headline=HOSTILE,
        scores={HOSTILE: Score(0.5, 0.4, 0.6, 0.5)}, counts={"cases": 1, HOSTILE: 2},
        groups=[group(HOSTILE, 1, 2)], examples=[example(0, texts, case=HOSTILE, group=HOSTILE)],
    )  # fmt: skip
    measured = evaluation(hostile, model=HOSTILE, fact=HOSTILE)
    decision = GateVerdict(HOSTILE, False, [(HOSTILE, False)])
    page = page_of(measured, tmp_path, notes=[HOSTILE], decision=decision)
    assert not [raw for raw in ("<script", "\u202e", "\x1b") if raw in page]
    assert page.count("&lt;script&gt;document") > 10


@pytest.mark.parametrize("picture", [b"", b"no picture", photograph()[:200], b"<svg onload='x'/>"])
def test_a_case_without_a_picture_or_without_candidates_is_shown(picture: bytes, tmp_path: Path) -> None:
    examples = [example(0, picture=picture), Example("lonely", "", b"", [])]
    page = page_of(evaluation(result(examples=examples)), tmp_path)
    assert "<img" not in page
    assert "0.2841" in page
    assert "lonely" in page
