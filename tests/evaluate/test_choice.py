"""Choosing captions and matching pairs, each definition against a small example computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sclip.evaluate.benchmarks import About, BenchmarkDataError
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.pairs import Pair, Pairs
from sclip.evaluate.picture import Picture
from sclip.evaluate.result import Example, Result
from support.made_features import cosines
from support.pictures import picture

ABOUT = About("made", "captions", "Which caption is true.")
A = Picture("a.jpg")


def case(name: str, true: float, *false: float, group: str = "", picture: Picture = A, counted: bool = True):
    """Return a case whose captions end in their similarity scores."""
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


def values(result: Result) -> dict[str, float]:
    return {name: score.value for name, score in result.scores.items()}


def grouped(result: Result) -> list[tuple[str, int, int, bool]]:
    return [(group.name, group.cases, group.correct, group.counted) for group in result.groups]


def candidates(example: Example) -> list[tuple[str, float, bool]]:
    return [(c.text, round(c.score, 6), c.is_true) for c in example.candidates]


def test_accuracy_averages_cases_and_macro_averages_groups_and_both_skip_uncounted_cases() -> None:
    cases = [
        case("0", 0.9, 0.1, group="on"), case("1", 0.2, 0.3, group="on"), case("2", 0.7, 0.1, group="on"),
        case("3", 0.5, 0.4, group="under"), case("4", 0.1, 0.9, group="near", counted=False),
    ]  # fmt: skip
    result = result_of(cases, macro=True)
    assert values(result) == {"accuracy": 3 / 4, "macro": pytest.approx((2 / 3 + 1) / 2)}
    assert result.headline == "macro"
    assert result.won == {"0": True, "1": False, "2": True, "3": True}
    assert (result.counts["cases"], result.counts["left_out"]) == (4, 1)
    assert grouped(result) == [("near", 1, 0, False), ("on", 3, 2, True), ("under", 1, 1, True)]
    with pytest.raises(BenchmarkDataError, match="made: none of its cases counts"):
        Choice(ABOUT, cases[4:])


def test_the_true_caption_must_beat_every_false_one() -> None:
    result = result_of([case("0", 0.5, 0.1, 0.2, 0.6), case("1", 0.5, 0.1, 0.2, 0.3)])
    assert result.won == {"0": False, "1": True}
    assert result.scores["accuracy"].chance == 1 / 4


def test_a_tie_is_lost_unless_ties_win_and_a_diverged_model_wins_nothing() -> None:
    scores = ((0.5, 0.5), (0.5, 0.4), (math.nan, math.nan), (math.nan, 0.1))
    cases = [case(str(number), *case_scores) for number, case_scores in enumerate(scores)]
    for ties_win, won in ((False, 1 / 4), (True, 2 / 4)):
        result = result_of(cases, ties_win=ties_win)
        assert (result.scores["accuracy"].value, result.counts["ties"]) == (won, 1)


def test_equal_captions_tie_despite_rounding_and_count_as_one_candidate_for_chance() -> None:
    same = ChoiceCase("0", A, "two dogs 0.3", ("dogs two 0.1", "two dogs 0.3", "dogs two 0.1"))
    for ties_win, chance in ((True, 1 / 2), (False, 0)):
        result = result_of([same], ties_win=ties_win)
        assert (result.won, result.scores["accuracy"].chance) == ({"0": ties_win}, chance)


def test_a_group_with_too_few_cases_is_shown_but_not_averaged() -> None:
    cases = [case(str(n), 1.0 if n < 20 else -1.0, 0.0, group="black_white") for n in range(25)]
    cases += [case(str(n), 1.0, 0.0, group="red_blue") for n in range(25, 49)]
    result = result_of(cases, macro=True, least_cases=25)
    assert values(result) == {"accuracy": 44 / 49, "macro": 20 / 25}
    assert [(name, counted) for name, _, _, counted in grouped(result)] == [
        ("black_white", True), ("red_blue", False),
    ]  # fmt: skip
    few = result_of(cases[25:], macro=True, least_cases=25)
    assert (few.headline, [*few.scores]) == ("accuracy", ["accuracy"])


def test_a_lost_case_is_shown_with_its_picture_and_its_highest_false_captions(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(size=(600, 300)))
    shown = Picture(str(tmp_path / "a.png"))
    lost = case("lost", 0.1, 0.9, 0.8, 0.7, 0.6, 0.5, picture=shown, group="on")
    (example,) = result_of([lost, case("won", 0.9, 0.1)]).examples
    assert (example.case, example.group) == ("lost", "on")
    assert candidates(example) == [("lost 0.1", 0.1, True)] + [
        (f"lost false {score}", score, False) for score in (0.9, 0.8, 0.7, 0.6)
    ]
    assert example.picture.startswith(b"\xff\xd8")
    assert len(example.picture) < 20_000


def test_at_most_24_lost_cases_are_shown_and_always_the_same_ones() -> None:
    cases = [case(str(number), 0.1, 0.9) for number in range(100)]
    first, again = ([e.case for e in result_of(cases).examples] for _ in range(2))
    assert len(first) == 24
    assert first == again != [str(number) for number in range(24)]


# Winoground's three scores


def pair_result(*similarity: tuple[float, float, float, float]) -> Result:
    """Score pairs of s(c0, i0), s(c1, i0), s(c0, i1), s(c1, i1)."""
    cases, similarities = [], {}
    for number, scores in enumerate(similarity):
        pictures = Picture(f"{number}-0.png"), Picture(f"{number}-1.png")
        captions = f"{number} a", f"{number} b"
        cases.append(Pair(str(number), pictures, captions, "Object" if number else "Relation"))
        similarities |= dict(zip(((p, c) for p in pictures for c in captions), scores, strict=True))
    return Pairs(ABOUT, cases).result(cosines(similarities))


def test_text_image_and_group_scores_equal_those_computed_by_hand() -> None:
    result = pair_result(
        (0.9, 0.1, 0.2, 0.8),  # all right
        (0.9, 0.8, 0.95, 0.99),  # each picture finds its caption; caption 0 prefers picture 1
        (0.5, 0.6, 0.4, 0.7),  # each caption finds its picture; picture 0 prefers caption 1
        (0.1, 0.9, 0.8, 0.2),  # all wrong
    )
    assert values(result) == {"text": 2 / 4, "image": 2 / 4, "group": 1 / 4}
    assert [score.chance for score in result.scores.values()] == [1 / 4, 1 / 4, 1 / 6]
    assert result.headline == "group"
    assert result.won == {"0": True, "1": False, "2": False, "3": False}
    assert grouped(result) == [("Object", 3, 0, True), ("Relation", 1, 1, True)]


def test_a_model_that_sees_no_difference_scores_nothing_on_winoground() -> None:
    result = pair_result((0.5, 0.5, 0.5, 0.5), (math.nan,) * 4)
    assert values(result) == {"text": 0, "image": 0, "group": 0}
    assert result.counts["ties"] == 1


def test_a_lost_pair_is_shown_side_by_side_with_its_four_combinations(tmp_path: Path) -> None:
    first, second = (Picture(str(tmp_path / f"{side}.png")) for side in (0, 1))
    for side in (first, second):
        Path(side.path).write_bytes(picture())
    pairs = Pairs(ABOUT, [Pair("7", (first, second), ("a", "b"))])
    similarities = {(first, "a"): 0.1, (first, "b"): 0.2, (second, "a"): 0.3, (second, "b"): 0.4}
    (example,) = pairs.result(cosines(similarities)).examples
    assert candidates(example) == [
        ("left picture: a", 0.1, True), ("right picture: b", 0.4, True),
        ("left picture: b", 0.2, False), ("right picture: a", 0.3, False),
    ]  # fmt: skip
    assert example.picture.startswith(b"\xff\xd8")
