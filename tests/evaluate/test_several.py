"""Several true captions, text-only cases and sets of cases, each against an example computed by hand."""

from __future__ import annotations

import math

import pytest

from sclip.evaluate.benchmarks import About
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.picture import Picture
from sclip.evaluate.result import Result
from sclip.evaluate.several import SeveralCase, SeveralTrue
from sclip.evaluate.text_only import TextCase, TextOnly
from support.made_features import at_angles, cosines

ABOUT = About("made", "kind", "What is asked.")
A = Picture("a.jpg")


def several(*rows: tuple[float, float, float]) -> Result:
    """Score cases of (first true, second true, false)."""
    cases, similarity = [], {}
    for number, row in enumerate(rows):
        captions = [f"{number} {word}" for word in ("first", "second", "false")]
        cases.append(
            SeveralCase(
                str(number), A, (captions[0], captions[1]), captions[2], "odd" if number % 2 else "even"
            )
        )
        similarity |= {(A, caption): value for caption, value in zip(captions, row, strict=True)}
    task = SeveralTrue(ABOUT, cases, "both", ("first", "second"), together="together", macro=True)
    return task.result(cosines(similarity))


def test_both_true_captions_must_beat_the_false_one_and_a_tie_or_nan_is_lost() -> None:
    nan = math.nan
    result = several((0.9, 0.8, 0.1), (0.9, 0.2, 0.3), (0.4, 0.5, 0.4), (0.1, 0.2, 0.9), (nan, nan, nan))
    assert {name: score.value for name, score in result.scores.items()} == pytest.approx(
        {"both": 1 / 5, "first": 2 / 5, "second": 2 / 5, "together": 3 / 5, "macro": (1 / 3 + 0) / 2}
    )
    assert [round(score.chance, 3) for score in result.scores.values()] == [0.333, 0.5, 0.5, 0.667, 0.333]
    assert (result.headline, result.counts["ties"], result.won["0"]) == ("macro", 1, True)
    shown = result.examples[0]
    assert [(c.text, c.is_true) for c in shown.candidates] == [
        ("1 first", True),
        ("1 second", True),
        ("1 false", False),
    ]


def test_two_true_texts_must_be_nearer_to_each_other_than_either_is_to_the_false_text() -> None:
    angles = {"near": 0.0, "nearer": 0.1, "far": 1.0, "beside": 0.15, "same": 0.1}
    cases = [
        TextCase("won", ("near", "nearer"), "far"),
        TextCase("second nearer to it", ("near", "nearer"), "beside"),
        TextCase("equal", ("near", "nearer"), "nearer"),
    ]  # fmt: skip
    task = TextOnly(ABOUT, cases, "tot")
    result = task.result(at_angles({}, angles))
    assert result.won == {"won": True, "second nearer to it": False, "equal": False}
    assert result.scores["tot"].chance == pytest.approx((1 / 3 + 1 / 3 + 0) / 3)
    assert (task.pictures(), task.without({A})) == ([], task)


def test_a_set_is_won_if_all_its_cases_are_won_and_counts_only_if_it_is_complete() -> None:
    def case(name: str, true: float) -> ChoiceCase:
        return ChoiceCase(name, A, f"{name} {true}", (f"{name} 0.5",))

    cases = [case("0", 0.9), case("1", 0.8), case("2", 0.9), case("3", 0.1)]
    sets = [("mug", ["0", "1"]), ("bowl", ["2", "3"]), ("cup", ["3", "4"])]
    similarity = {
        (A, caption): float(caption.split()[1]) for case in cases for caption in (case.true, *case.false)
    }
    scores = Choice(ABOUT, cases, jointly={"pair": sets}).result(cosines(similarity)).scores
    assert (scores["pair"].value, scores["pair"].chance) == (1 / 2, 1 / 4)
    assert "pair" not in Choice(ABOUT, cases[3:], jointly={"pair": sets}).result(cosines(similarity)).scores
