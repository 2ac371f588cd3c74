"""The page that compares models says which differences are real, and shows every model's figures beside the others'."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from sclip.evaluate.compare import Comparison, Difference, compare
from sclip.evaluate.result import Evaluation, EvaluationError, Score
from sclip.report.comparison import verdict, write
from sclip.report.side_by_side import sides
from support.evaluations import HOSTILE, evaluation, group, groups, result, text_of


def page_of(models: list[Evaluation], folder: Path, *args: Any) -> str:
    return write(compare(models), folder, *args).read_text(encoding="utf-8")


def models(count: int, **changes: Any) -> list[Evaluation]:
    """Return evaluations of models, each better than the one before."""
    return [
        evaluation(result(share=0.4 + 0.05 * n, **changes), model=f"model {n}", seed=str(n))
        for n in range(count)
    ]


def test_every_model_has_a_letter_a_bar_and_a_verdict(tmp_path: Path) -> None:
    text = text_of(page_of(models(30, cases=1000), tmp_path))
    assert "A model 0 what the others are compared with B model 1" in text
    assert "A 40.0 37.0 to 43.0, chance 50.0 B 45.0 +5.0 better, p < 0.001" in text
    assert "B against A : better on vg-relation" in text
    with pytest.raises(EvaluationError, match="evaluated on no benchmark"):
        write(compare([evaluation(), evaluation()]), tmp_path)


@pytest.mark.parametrize(
    ("change", "only_first", "only_other", "p_value", "adjusted", "words", "kind"),
    [
        (0.05, 10, 60, 1e-9, 1e-8, "better, p < 0.001", "good"),
        (-0.05, 60, 10, 0.0034, 0.02, "worse, p = 0.0034", "bad"),
        (0.01, 10, 12, 0.413, 0.8, "no clear difference on 1,000 cases, p = 0.41", "even"),
        (0.0, 0, 0, 1.0, 1.0, "no clear difference on 1,000 cases, p = 1.00", "even"),
        (0.02, 10, 25, 0.02, 0.3, "no clear difference among so many comparisons, p = 0.02", "even"),
        (-0.02, 10, 60, 0.001, 0.01, "wins more cases, but its score is lower, p = 0.001", "even"),
        (0.02, 60, 10, 0.001, 0.01, "wins fewer cases, but its score is higher, p = 0.001", "even"),
    ],
)
def test_a_difference_is_described_in_words(
    change: float, only_first: int, only_other: int, p_value: float, adjusted: float, words: str, kind: str
) -> None:
    difference = Difference("b", "macro", 1, change, only_first, only_other, p_value)
    text, rating = verdict(difference, adjusted, 1000)
    assert (text.replace("\N{NO-BREAK SPACE}", " "), rating) == (words, kind)


def test_p_values_are_adjusted_by_holms_method() -> None:
    p_values = {("a", 1): 0.01, ("b", 1): 0.04, ("a", 2): 0.03, ("b", 2): 0.005}
    differences = [Difference(name, "macro", model, 0.1, 1, 2, p) for (name, model), p in p_values.items()]
    adjusted = Comparison([], differences).adjusted()
    assert adjusted == pytest.approx({("b", 2): 0.02, ("a", 1): 0.03, ("a", 2): 0.06, ("b", 1): 0.06})


def test_other_scores_differing_facts_and_the_number_of_differences_are_listed(tmp_path: Path) -> None:
    text = text_of(page_of(models(2), tmp_path, {}, "Ablation"))
    assert text.startswith("Ablation")
    assert "accuracy A 41.0 B 46.0" in text
    assert "What differs between the runs seed A 0 B 1" in text
    assert "3 facts that are the same suite standard" in text
    results = [result(name) for name in ("one", "two")]
    text = text_of(page_of([evaluation(*results, model=f"m{n}") for n in range(3)], tmp_path))
    assert "adjustment for the 4 differences on this page" in text
    assert "no clear difference on any of 2 benchmarks" in text
    more = evaluation(result(), result("more"), lambda_="0.2")
    text = text_of(page_of([evaluation(result()), more], tmp_path))
    assert "lambda_ A – B 0.2" in text
    assert "Not compared, because run my-first-run lacks it: more." in text


def test_groups_of_all_models_stand_side_by_side_with_the_largest_differences_first(
    tmp_path: Path,
) -> None:
    first = [group("same", 50, 100), group("tiny", 1, 3), group("riding", 50, 100)]
    other = [group("same", 51, 100), group("tiny", 2, 3), group("riding", 90, 100)]
    grouped = sides([first, other])
    assert [side.name for side in grouped.open] == ["riding", "tiny", "same"]
    assert [(bar.model, bar.value) for bar in grouped.open[0].bars] == [(0, "50.0"), (1, "90.0")]
    text = text_of(page_of([evaluation(result(groups=first)), evaluation(result(groups=other))], tmp_path))
    assert "riding 100 cases A 50.0 B 90.0" in text
    (lacking,) = sides([[], [group("riding", 1, 2)]]).open
    assert [bar.model for bar in lacking.bars] == [1]


def test_five_hundred_relations_of_eight_models_are_folded(tmp_path: Path) -> None:
    grouped = sides([groups(500)] * 8)
    assert len(grouped.open) * 8 <= 40
    assert len(grouped.open) + len(grouped.folded) + len(grouped.uncounted) == 500
    path = write(compare(models(8, groups=groups(500))), tmp_path)
    assert path.stat().st_size < 3_000_000


def test_a_score_by_step_is_drawn_in_per_cent_with_the_chance_level(tmp_path: Path) -> None:
    curves = {"vg-relation/macro": {"model 0": [(0, 0.5), (100, 0.6)], "model 1": [(0, 0.5), (100, 0.75)]}}
    page = page_of(models(2), tmp_path, curves)
    (svg,) = re.findall('<svg class="curves".*?</svg>', page, re.DOTALL)
    assert re.findall('<text class="y"[^>]*>([^<]*)<', svg) == ["50", "60", "70", "80"]
    assert re.findall('<text class="x"[^>]*>([^<]*)<', svg) == ["0", "25", "50", "75", "100"]
    assert svg.count('<path class="curve m') == 2
    assert svg.count('<path class="chance"') == 1
    assert "at the end A 60.0 B 75.0" in text_of(page)


def test_values_that_are_not_finite_are_left_out_of_a_curve_and_counted(tmp_path: Path) -> None:
    curves = {"loss": {"model 1": [(0, 5.0), (1, math.nan), (2, math.inf), (3, 1.5)]}, "nothing": {}}
    page = page_of(models(2), tmp_path, curves)
    text = text_of(page)
    assert "at the end B 1.5 2 values are left out because they are not finite." in text
    assert "nothing no values" in text
    assert "nan" not in re.sub("<style>.*?</style>", "", page, flags=re.DOTALL)


def test_a_model_that_diverged_has_no_number_and_no_bar(tmp_path: Path) -> None:
    broken = result(scores={"macro": Score(math.nan, math.nan, math.nan, 0.5)}, share=0.0)
    page = page_of([evaluation(result(cases=200)), evaluation(broken)], tmp_path)
    assert "B no number no number worse" in text_of(page)


def test_contents_of_evaluations_and_curves_are_escaped(tmp_path: Path) -> None:
    scores = {HOSTILE: Score(0.5, 0.4, 0.6, 0.5), "<b>": Score(0.5, 0.4, 0.6, 0.5)}
    hostile = result(HOSTILE, headline=HOSTILE, scores=scores, notes=[HOSTILE], groups=[group(HOSTILE, 1, 2)])
    evaluations = [evaluation(hostile, model=HOSTILE, **{HOSTILE: f"{n}{HOSTILE}"}) for n in range(2)]
    page = page_of(evaluations, tmp_path, {HOSTILE: {HOSTILE: [(0, 1.0)]}}, HOSTILE)
    assert not [raw for raw in ("<script", "\u202e", "\x1b") if raw in page]
    assert page.count("&lt;script&gt;document") > 10
