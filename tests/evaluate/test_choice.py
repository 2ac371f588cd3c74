"""Choosing captions and matching pairs, each definition against a small example computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sclip.evaluate.benchmarks import About, BenchmarkDataError
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.pairs import Pair, Pairs
from sclip.evaluate.picture import Picture
from sclip.evaluate.result import Result
from support.made_features import cosines
from support.pictures import picture

ABOUT = About("made", "captions", "Which caption is true.")
A, B = Picture("a.jpg"), Picture("b.jpg")


def case(name: str, true: float, *false: float, group: str = "", picture: Picture = A, counted: bool = True):
    """Return a case whose captions are called as they score."""
    return ChoiceCase(
        name, picture, f"{name} {true}", tuple(f"{name} false {f}" for f in false), group, counted
    )


def result_of(cases: list[ChoiceCase], **options: object) -> Result:
    """Score a choice whose captions end in their similarity."""
    similarity = {
        (case.picture, caption): float(caption.rsplit(" ", 1)[1])
        for case in cases for caption in (case.true, *case.false)
    }  # fmt: skip
    return Choice(ABOUT, cases, **options).result(cosines(similarity))


def test_accuracy_counts_cases_and_macro_counts_groups() -> None:
    cases = [
        case("0", 0.9, 0.1, group="on"), case("1", 0.2, 0.3, group="on"), case("2", 0.7, 0.1, group="on"),
        case("3", 0.5, 0.4, group="under"),
    ]  # fmt: skip
    result = result_of(cases, macro=True)
    assert result.scores["accuracy"].value == 3 / 4
    assert result.scores["macro"].value == pytest.approx((2 / 3 + 1) / 2)
    assert result.headline == "macro"
    assert result.won == {"0": True, "1": False, "2": True, "3": True}
    assert [(g.name, g.cases, g.correct, g.counted) for g in result.groups] == [
        ("on", 3, 2, True), ("under", 1, 1, True),
    ]  # fmt: skip


def test_the_true_caption_must_beat_every_false_one() -> None:
    result = result_of([case("0", 0.5, 0.1, 0.2, 0.6), case("1", 0.5, 0.1, 0.2, 0.3)])
    assert result.won == {"0": False, "1": True}
    assert result.scores["accuracy"].chance == 1 / 4


def test_a_tie_is_lost_unless_the_authors_rule_is_another_and_is_counted_either_way() -> None:
    cases = [case("0", 0.5, 0.5), case("1", 0.5, 0.4)]
    lost, won = result_of(cases), result_of(cases, ties_win=True)
    assert (lost.scores["accuracy"].value, won.scores["accuracy"].value) == (0.5, 1.0)
    assert lost.counts["ties"] == won.counts["ties"] == 1


@pytest.mark.parametrize("ties_win", [False, True])
def test_a_diverged_model_wins_nothing(ties_win: bool) -> None:
    result = result_of([case("0", math.nan, math.nan), case("1", math.nan, 0.1)], ties_win=ties_win)
    assert result.scores["accuracy"].value == 0


def test_equal_captions_tie_whatever_the_rounding_and_are_one_candidate_for_chance() -> None:
    same = ChoiceCase("0", A, "two dogs 0.3", ("dogs two 0.1", "two dogs 0.3", "dogs two 0.1"))
    won = result_of([same], ties_win=True)
    assert won.won == {"0": True}
    assert won.scores["accuracy"].chance == 1 / 2
    lost = result_of([same])
    assert lost.won == {"0": False}
    assert lost.scores["accuracy"].chance == 0


def test_a_group_below_the_least_cases_is_shown_and_no_part_of_the_mean() -> None:
    cases = [case(str(n), 1.0 if n < 20 else -1.0, 0.0, group="black_white") for n in range(25)]
    cases += [case(str(n), 1.0, 0.0, group="red_blue") for n in range(25, 49)]
    result = result_of(cases, macro=True, least_cases=25)
    assert result.scores["macro"].value == 20 / 25
    assert result.scores["accuracy"].value == 44 / 49
    assert {g.name: g.counted for g in result.groups} == {"black_white": True, "red_blue": False}
    few = result_of(cases[25:], macro=True, least_cases=25)
    assert "macro" not in few.scores
    assert few.headline == "accuracy"


def test_a_case_that_does_not_count_is_shown_among_the_groups_and_in_no_score() -> None:
    cases = [case("0", 0.9, 0.1, group="on"), case("1", 0.1, 0.9, group="near", counted=False)]
    result = result_of(cases, macro=True)
    assert result.scores["accuracy"].value == result.scores["macro"].value == 1
    assert result.won == {"0": True}
    assert (result.counts["cases"], result.counts["left_out"]) == (1, 1)
    assert [(g.name, g.correct, g.counted) for g in result.groups] == [("near", 0, False), ("on", 1, True)]


def test_a_benchmark_of_which_nothing_counts_is_refused() -> None:
    with pytest.raises(BenchmarkDataError, match="made: no case of it counts"):
        Choice(ABOUT, [case("0", 1, 0, counted=False)])


def test_a_lost_case_is_shown_with_its_picture_and_its_highest_false_captions(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(picture(size=(600, 300)))
    shown = Picture(str(file))
    cases = [case("lost", 0.1, 0.9, 0.8, 0.7, 0.6, 0.5, picture=shown, group="on")]
    (example,) = result_of([*cases, case("won", 0.9, 0.1)]).examples
    assert (example.case, example.group) == ("lost", "on")
    assert [(c.is_true, round(c.score, 6)) for c in example.candidates] == [
        (True, 0.1), (False, 0.9), (False, 0.8), (False, 0.7), (False, 0.6),
    ]  # fmt: skip
    assert example.picture.startswith(b"\xff\xd8")
    assert len(example.picture) < 20_000


def test_no_more_than_24_lost_cases_are_shown_and_always_the_same() -> None:
    cases = [case(str(number), 0.1, 0.9) for number in range(100)]
    first, again = result_of(cases).examples, result_of(cases[:60] + cases[60:]).examples
    assert len(first) == 24
    assert [e.case for e in first] == [e.case for e in again]
    assert [e.case for e in first] != [str(number) for number in range(24)]


def test_without_some_pictures_the_rest_is_scored_and_says_that_it_is_partial() -> None:
    choice = Choice(ABOUT, [case("0", 1, 0), case("1", 1, 0, picture=B)])
    kept = choice.without({B})
    assert [c.name for c in kept.cases] == ["0"]
    assert kept.about.notes == ("partial: 1 of 2 cases, not comparable with published figures",)
    with pytest.raises(BenchmarkDataError, match="no readable image"):
        choice.without({A, B})


# Winoground's three scores


def pair_result(*similarity: tuple[float, float, float, float]) -> Result:
    """Score pairs of s(c0, i0), s(c1, i0), s(c0, i1), s(c1, i1)."""
    cases, values = [], {}
    for number, (c0i0, c1i0, c0i1, c1i1) in enumerate(similarity):
        pictures = Picture(f"{number}-0.png"), Picture(f"{number}-1.png")
        captions = f"{number} a", f"{number} b"
        cases.append(Pair(str(number), pictures, captions, "Object" if number else "Relation"))
        values[pictures[0], captions[0]], values[pictures[0], captions[1]] = c0i0, c1i0
        values[pictures[1], captions[0]], values[pictures[1], captions[1]] = c0i1, c1i1
    return Pairs(ABOUT, cases).result(cosines(values))


def test_text_image_and_group_score_by_hand() -> None:
    result = pair_result(
        (0.9, 0.1, 0.2, 0.8),  # all right
        (0.9, 0.8, 0.95, 0.99),  # each picture finds its caption; caption 0 prefers picture 1
        (0.5, 0.6, 0.4, 0.7),  # each caption finds its picture; picture 0 prefers caption 1
        (0.1, 0.9, 0.8, 0.2),  # all wrong
    )
    assert {name: score.value for name, score in result.scores.items()} == {
        "text": 2 / 4, "image": 2 / 4, "group": 1 / 4,
    }  # fmt: skip
    assert {name: score.chance for name, score in result.scores.items()} == {
        "text": 1 / 4, "image": 1 / 4, "group": 1 / 6,
    }  # fmt: skip
    assert result.headline == "group"
    assert result.won == {"0": True, "1": False, "2": False, "3": False}
    assert [(g.name, g.cases, g.correct) for g in result.groups] == [("Object", 3, 0), ("Relation", 1, 1)]


def test_a_model_that_sees_no_difference_scores_nothing_on_winoground() -> None:
    result = pair_result((0.5, 0.5, 0.5, 0.5), (math.nan,) * 4)
    assert [score.value for score in result.scores.values()] == [0, 0, 0]
    assert result.counts["ties"] == 1


def test_a_lost_pair_is_shown_side_by_side_with_its_four_combinations(tmp_path: Path) -> None:
    files = [tmp_path / f"{side}.png" for side in (0, 1)]
    for file in files:
        file.write_bytes(picture())
    first, second = (Picture(str(file)) for file in files)
    pairs = Pairs(ABOUT, [Pair("7", (first, second), ("a", "b"))])
    values = {(first, "a"): 0.1, (first, "b"): 0.2, (second, "a"): 0.3, (second, "b"): 0.4}
    (example,) = pairs.result(cosines(values)).examples
    assert [(c.text, round(c.score, 6), c.is_true) for c in example.candidates] == [
        ("left picture: a", 0.1, True), ("right picture: b", 0.4, True),
        ("left picture: b", 0.2, False), ("right picture: a", 0.3, False),
    ]  # fmt: skip
    assert example.picture.startswith(b"\xff\xd8")
