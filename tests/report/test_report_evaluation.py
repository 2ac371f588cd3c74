"""The page of an evaluation says what the evaluation holds: every number, every note, every caption as text."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from sclip.evaluate.result import Evaluation, EvaluationError, Example, Result, Score
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


def page_of(found: Evaluation, folder: Path, **options: Any) -> str:
    return write(found, folder, **options).read_text(encoding="utf-8")


def test_an_evaluation_without_a_benchmark_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="evaluated on no benchmark"):
        write(evaluation(), tmp_path)


def test_the_page_lies_beside_the_json_and_names_model_suite_and_number_of_cases(tmp_path: Path) -> None:
    found = evaluation(result("one", cases=1200), result("two", cases=300), model="models:/m@champion")
    path = write(found, tmp_path / "new", notes=["a note"])
    assert path == tmp_path / "new" / "report.html"
    text = text_of(path.read_text())
    assert "Evaluation of models:/m@champion" in text
    assert "1,500 cases in 2 benchmarks of the suite standard" in text
    assert "a note" in text


def test_a_headline_is_shown_with_interval_chance_and_verdict(tmp_path: Path) -> None:
    scores = {"macro": Score(0.812, 0.79, 0.834, 0.5), "micro": Score(0.7, 0.6, 0.8, 0.5)}
    page = page_of(evaluation(result(scores=scores, groups=[], examples=[])), tmp_path)
    assert "81.2 above chance 79.0 to 83.4, chance 50.0" in text_of(page)
    assert '<i class="fill" style="width:81.2%"></i>' in page
    assert (
        '<i class="whisker" style="left:79.0%;width:4.4%"></i><i class="chance" style="left:50.0%"></i>'
        in page
    )


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (Score(0.6, 0.55, 0.65, 0.5), "Above chance on 1 of 1 benchmark."),
        (Score(0.52, 0.48, 0.56, 0.5), "Not to be told from chance: vg-relation."),
        (Score(0.4, 0.35, 0.45, 0.5), "Below chance: vg-relation."),
        (Score(math.nan, math.nan, math.nan, 0.5), "No number, as the model has diverged: vg-relation."),
    ],
)
def test_what_to_make_of_it_stands_on_top(score: Score, told: str, tmp_path: Path) -> None:
    page = page_of(evaluation(result(scores={"macro": score})), tmp_path)
    text = text_of(page)
    assert text.index(told) < text.index("chance 50.0")
    assert "nan" not in re.sub('<style>.*?</style>|base64,[^"]*', "", page, flags=re.DOTALL)


def test_every_benchmark_has_a_section_that_the_overview_leads_to(tmp_path: Path) -> None:
    found = evaluation(result("one"), result("two", notes=["Partial: 3 of 10 pictures are missing."]))
    page = page_of(found, tmp_path)
    links = re.findall(r'href="#([^"]+)"', page)
    assert links == re.findall(r'<section class="benchmark" id="([^"]+)"', page)
    assert len(links) == 2
    (notice,) = re.findall(r'<div class="notice">(.*?)</div>', page, re.DOTALL)
    assert "Partial: 3 of 10 pictures are missing." in notice
    assert found.results[0].definition in page
    assert "computed of 200 cases, 200 images, 0 ties" in text_of(page)


def test_recalls_are_called_by_their_name_and_small_chances_keep_a_digit(tmp_path: Path) -> None:
    scores = {
        "text_to_image_r1": Score(0.302, 0.29, 0.31, 0.0002),
        "image_to_text_r10": Score(0.9, 0.8, 1, 0.002),
    }
    page = page_of(evaluation(result(scores=scores, headline="text_to_image_r1")), tmp_path)
    text = text_of(page)
    assert "text to image R@1 30.2" in text
    assert "image to text R@10 90.0" in text
    assert "chance 0.02" in text


def test_groups_stand_from_the_weakest_and_long_lists_fold() -> None:
    rows = folded_groups(groups(500))
    counted = [*rows.open, *rows.folded]
    assert len(rows.open) == 12
    assert len(counted) + len(rows.uncounted) == 500
    assert [float(row.value) for row in counted] == sorted(float(row.value) for row in counted)
    assert all(row.counted for row in counted)
    assert not any(row.counted for row in rows.uncounted)


def test_a_group_is_shown_with_its_cases_and_what_is_not_counted_is_set_apart(tmp_path: Path) -> None:
    found = [group("riding", 30, 40), group("near", 3, 4, counted=False)]
    page = page_of(evaluation(result(groups=found)), tmp_path)
    text = text_of(page)
    assert "By relation, the weakest first riding 75.0 30 of 40, 65.0 to 85.0" in text
    assert "1 that the benchmark's mean leaves out near 75.0 3 of 4" in text
    assert page.count('class="row uncounted"') == 1


def test_a_wrong_case_shows_both_captions_with_what_changed_marked_and_by_how_much(tmp_path: Path) -> None:
    page = page_of(evaluation(result(examples=[example(2)])), tmp_path)
    assert "the <mark>dog</mark> is chasing the <mark>cat</mark>" in page
    assert "the <mark>cat</mark> is chasing the <mark>dog</mark>" in page
    assert "0.2713" in page
    assert "0.2841" in page
    assert "the false one scores 0.0128 higher" in page
    assert page.count("data:image/webp;base64,") == 1
    assert "1 of the 80 cases that it got wrong" in page


@pytest.mark.parametrize(
    ("caption", "other", "marked"),
    [
        ("a red cat", "a blue cat", "a [red] cat"),
        ("a red cat", "a cat", "a [red] cat"),
        ("a cat", "a red cat", "a cat"),
        ("A Cat.", "a cat.", "A Cat."),
        ("on top of the mat a dog sleeps", "rain and wind", "on top of the mat a dog sleeps"),
        ("", "a cat", ""),
        ("a <b>cat</b>", "a <b>dog</b>", "a <b>[cat]</b>"),
    ],
)
def test_words_that_the_other_caption_lacks_are_marked(caption: str, other: str, marked: str) -> None:
    pieces, _ = differing(caption, other)
    assert "".join(f"[{piece.text}]" if piece.role else piece.text for piece in pieces) == marked


def graph(caption: str, *names: str) -> SceneGraph:
    objects = tuple(Object(name, (0, 1), (0, 1)) for name in names)
    return SceneGraph(caption, objects, (Attribute(0, "big", (0, 0)),), (Relation(0, "chase", 1, (0, 0)),))


def test_both_graphs_are_drawn_and_what_only_one_of_them_says_is_marked(tmp_path: Path) -> None:
    asked: list[str] = []

    def parser(captions: Any) -> list[SceneGraph]:
        asked.extend(captions)
        return [
            graph(caption, *(("dog", "cat") if caption == SWAPS[2][0] else ("cat", "dog")))
            for caption in captions
        ]

    page = page_of(evaluation(result(examples=[example(2), example(2)])), tmp_path, graphs=parser)
    assert asked == list(SWAPS[2])  # each caption once, in one call
    assert page.count('<svg class="graph"') == 4
    assert 'aria-label="dog chase cat; big is dog"' in page
    assert page.count('class="predicate marked"') == page.count('class="attribute marked"') == 4
    assert 'class="object marked"' not in page


def test_no_graph_is_drawn_without_a_parser_or_where_neither_caption_says_more_than_a_name(
    tmp_path: Path,
) -> None:
    found = evaluation(result(examples=[example(2)]))
    assert "<svg" not in page_of(found, tmp_path)
    assert "<svg" not in page_of(found, tmp_path, graphs=lambda captions: [SceneGraph(c) for c in captions])


def test_of_many_candidates_the_best_true_and_false_ones_stand_beside_each_other_and_all_are_ranked() -> None:
    texts = [("c", 0.1, True), ("b", 0.3, False), ("a", 0.2, True), ("d", math.nan, False)]
    (case,) = wrong_cases([example(0, texts)], {})
    assert case.true is not None
    assert case.false is not None
    assert (case.true.pieces[0].text, case.false.pieces[0].text) == ("a", "b")
    assert ["".join(p.text for p in option.pieces) for option in case.ranked] == ["b", "a", "c", "d"]
    assert [option.width for option in case.ranked] == [100.0, 66.7, 33.3, 0.0]


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ((0.2, 0.25), "the false one scores 0.0500 higher"),
        ((0.2, 0.2), "a tie: counts as wrong"),
        ((math.nan, 0.2), "a score is no number: counts as wrong"),
        ((0.3, 0.2), ""),
    ],
)
def test_the_reader_is_told_by_how_much_the_false_one_won(scores: tuple[float, float], told: str) -> None:
    (case,) = wrong_cases([example(0, [("a", scores[0], True), ("b", scores[1], False)])], {})
    assert case.told == told


def test_whatever_an_evaluation_holds_is_text(tmp_path: Path) -> None:
    texts = [(HOSTILE, 0.1, True), (HOSTILE, 0.2, False), (HOSTILE, 0.1, False)]
    wrong = example(0, texts, case=HOSTILE, group=HOSTILE)
    hostile = result(
        HOSTILE,
        definition=HOSTILE,
        notes=[HOSTILE],
        headline=HOSTILE,
        scores={HOSTILE: Score(0.5, 0.4, 0.6, 0.5)},
        counts={"cases": 1, HOSTILE: 2},
        groups=[group(HOSTILE, 1, 2)],
        examples=[wrong],
    )
    decision = GateVerdict(HOSTILE, False, [(HOSTILE, False)])
    page = page_of(
        evaluation(hostile, model=HOSTILE, fact=HOSTILE), tmp_path, notes=[HOSTILE], decision=decision
    )
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;document") > 10


@pytest.mark.parametrize("picture", [b"", b"no picture", photograph()[:200], b"<svg onload='x'/>"])
def test_a_case_whose_picture_is_none_is_shown_without_one(picture: bytes, tmp_path: Path) -> None:
    page = page_of(evaluation(result(examples=[example(0, picture=picture)])), tmp_path)
    assert "<img" not in page
    assert "0.2841" in page


def test_a_case_with_nothing_to_choose_among_is_shown(tmp_path: Path) -> None:
    bare = Example("lonely", "", b"", [])
    assert "lonely" in page_of(evaluation(result(examples=[bare], groups=[])), tmp_path)


def test_the_gates_decision_stands_on_the_page_with_each_gate(tmp_path: Path) -> None:
    decision = GateVerdict(
        "refused", False, [("VG-Relation 0.70 is at least 0.79", False), ("R@1 0.41 is at least 0.40", True)]
    )
    text = text_of(page_of(evaluation(result()), tmp_path, decision=decision))
    assert "refused ✗ VG-Relation 0.70 is at least 0.79 ✓ R@1 0.41 is at least 0.40" in text


def test_the_page_of_an_evaluation_that_was_read_back_is_the_same(tmp_path: Path) -> None:
    found = evaluation(result(), result("two"), date="2026-01-01")
    found.write(tmp_path / "evaluation.json")
    page = page_of(found, tmp_path)
    assert page_of(Evaluation.read(tmp_path / "evaluation.json"), tmp_path) == page
    assert "2026-01-01" in page


def test_eight_benchmarks_with_24_photographs_each_stay_below_three_megabytes(tmp_path: Path) -> None:
    def made(name: str) -> Result:
        return result(name, examples=[example(n, picture=photograph(n, (640, 480))) for n in range(24)])

    found = evaluation(*(made(f"benchmark {number}") for number in range(8)))
    assert write(found, tmp_path).stat().st_size < 3_000_000
