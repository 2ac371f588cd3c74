"""A table of scores for a paper: its rows and columns, and what is bold, marked or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from sclip.evaluate import published, suite
from sclip.evaluate.compare import paired_interval
from sclip.evaluate.interval import mean_score
from sclip.evaluate.result import Evaluation, EvaluationError, Result, Score
from sclip.evaluate.score_table import ScoreTable, score_table
from support.evaluations import evaluation, result


def model(name: str, *results: Result) -> Evaluation:
    return evaluation(*results, model=name)


def retrieval(to_text: float, to_image: float, half: float = 0.01) -> Result:
    """Return COCO's R@1 in both directions. The cases are captions; the won ones come first."""
    scores = {
        f"{way}_r1": Score(share, share - half, share + half, 0.0)
        for way, share in (("image_to_text", to_text), ("text_to_image", to_image))
    }
    return result("coco", to_image, 1000, headline="text_to_image_r1", scores=scores)


def texts(table: ScoreTable) -> dict[str, list[str]]:
    """Return the cells of each row as Markdown text."""
    return {
        row.label + row.source: [
            f"**{cell.text}**" if cell.is_bold else cell.text + "†" * cell.is_partial for cell in row.cells
        ]
        for row in (*table.published, *table.measured)
    }


def test_published_rows_stand_above_ours_and_missing_scores_are_dashes() -> None:
    table = score_table(
        [model("ours", retrieval(0.5, 0.4)), model("other")], ["vg-relation", "coco", "unknown"]
    )
    assert table.columns == [("VG-Relation", "macro"), ("COCO", "I2T R@1"), ("COCO", "T2I R@1")]
    rows = texts(table)
    assert list(rows)[-2:] == ["ours", "other"]
    assert rows["NegCLIPa"] == ["81.8", "**59.3**", "45.2"]
    assert rows["Structure-CLIP, Largeb"] == ["**85.1**", "–", "–"]
    assert rows["ours"] == ["–", "50.0", "40.0"]
    assert rows["other"] == ["–"] * 3
    assert "(b) Structure-CLIP (AAAI 2024): NegCLIP, Structure-CLIP" in table.caption[-1]
    assert table.measured[0].cells[1].interval == "49.0 to 51.0"


def test_other_benchmarks_show_their_headline_and_the_caption_has_other_published_scores() -> None:
    sugarcrepe = result("sugarcrepe", 0.8)
    one_file = result("vg-attribution", headline="accuracy", scores={"accuracy": Score(0.5, 0.4, 0.6, 0.5)})
    table = score_table([model("ours", result("mine", headline="accuracy"), sugarcrepe, one_file)])
    assert table.columns == [("mine", "accuracy"), ("SugarCrepe", "macro"), ("VG-Attribution", "accuracy")]
    assert "READ-CLIP" in " ".join(table.caption)
    crepe = published.sources([published.rows()["degla"]], ["sugarcrepe/macro", "vg-relation/macro"])
    assert crepe == {"DeGLA's paper": "DeGLA (SugarCrepe replace 90.5 %, swap 81.9 %, add 94.8 %)"}


@pytest.mark.parametrize(
    ("to_text", "half", "bold"),
    [
        # The published best is 59.3. A measured score ties with it if the interval of the score reaches 59.3.
        ({"low": 0.58, "level": 0.585}, 0.01, {"NegCLIPa", "level"}),
        ({"best": 0.61}, 0.01, {"best"}),
        ({"best": 0.61, "lower": 0.6}, 0.02, {"best", "lower", "NegCLIPa"}),
    ],
)
def test_without_answers_per_case_the_interval_of_a_score_decides_what_is_bold(
    to_text: Mapping[str, float], half: float, bold: set[str]
) -> None:
    table = score_table([model(name, retrieval(share, 0.1, half)) for name, share in to_text.items()])
    assert {name for name, (cell, _) in texts(table).items() if cell.startswith("*")} == bold


def test_headlines_are_compared_by_their_paired_difference_which_has_a_narrower_interval() -> None:
    # A better model wins every case that a worse one wins. With 1000 cases, 1.96 deviations are 2.84 points for a
    # share of 0.7, and for a difference 0.2 points if one case differs and 0.6 if ten cases differ (Wald).
    shares = {"best": 0.7, "near": 0.699, "far": 0.69}
    table = score_table([model(name, retrieval(0.1, share, 0.0284)) for name, share in shares.items()])
    assert [cells[1] for cells in list(texts(table).values())[-3:]] == ["**70.0**", "**69.9**", "69.0"]


def test_the_paired_interval_equals_a_paired_bootstrap_over_images() -> None:
    rng, groups, images = np.random.default_rng(0), np.arange(900) % 6, np.arange(900) // 3
    easy = 0.25 + 0.1 * groups + rng.normal(0, 0.25, 300)[images]  # difficulty of group and image
    first, other = (easy + shift + rng.normal(0, 0.3, 900) > 0.5 for shift in (0, 0.03))
    names = [str(image) for image in images], [str(group) for group in groups]
    results = [
        result(
            "b", scores={"macro": mean_score(won.tolist(), *names, [0.5] * 900, set(names[1]), key="b")},
            won=dict(zip(map(str, range(900)), won.tolist(), strict=True)),
        )
        for won in (first, other)
    ]  # fmt: skip
    low, high = paired_interval(*results)
    gain = (other.astype(float) - first).reshape(300, 3)
    # Even images have a case of each of the groups 0, 1 and 2, odd ones of 3, 4 and 5.
    drawn = [
        np.mean([gain[picks[picks % 2 == odd]].mean() for odd in (0, 1)])
        for picks in rng.integers(0, 300, (2000, 300))
    ]
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), abs=0.012)
    assert (high - low) < 0.9 * 2**0.5 * (results[0].scores["macro"].high - results[0].scores["macro"].low)


def test_a_partial_benchmark_is_marked_and_not_compared_and_a_diverged_model_has_no_number() -> None:
    partial = result("vg-relation", 0.99, 50, notes=["partial: 50 of 200 cases, .."])
    nan = result("vg-relation", scores={"macro": Score(*[float("nan")] * 3, 0.5)})
    table = score_table([model("whole", result()), model("part", partial), model("broken", nan)])
    assert texts(table)["part"] == ["99.0†"]
    assert texts(table)["broken"] == ["no number"]
    assert any(sentence.startswith("†") for sentence in table.caption)


def test_models_evaluated_on_different_cases_are_refused_in_one_line() -> None:
    for other, why in (
        (result("mine", cases=100), r"different cases \(100 differ\)"),
        (result("mine", digest="b"), "different captions"),
        (result("mine", kind="sugarcrepe"), "different kinds of benchmark"),
    ):
        with pytest.raises(
            EvaluationError, match=f"^mine: one and two were tested on {why}.*; evaluate both on the same"
        ):
            score_table([model("one", result("mine", digest="a")), model("two", other)])
    old = model("two", result("mine"))  # written by a version without digests
    assert texts(score_table([model("one", result("mine", digest="a")), old]))["two"] == ["**60.0**"]
    with pytest.raises(EvaluationError, match="no model was evaluated on any of the benchmarks"):
        score_table([model("one")], ["mine"])


def test_every_published_figure_is_a_share_of_a_benchmark_of_our_suites(tmp_path: Path) -> None:
    names = {entry.name for entry in suite.read("all", tmp_path)}
    assert published.headings().keys() <= names
    for row in published.rows().values():
        assert {score.partition("/")[0] for score in row.scores} <= published.headings().keys()
        assert all(0 < share < 1 for share in row.scores.values())
