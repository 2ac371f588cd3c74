"""Gates: their syntax, and how they judge a candidate against a champion."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from sclip.config import ConfigError, Gate, TrackingConfig, parse_gate
from sclip.evaluate.result import Evaluation
from sclip.registry.judgement import Check, judge
from support.registered import RECALL, RELATION, evaluation

CHAMPION = evaluation({RELATION: 0.70, RECALL: 0.43})


def check(gate: str, candidate: Evaluation | None, champion: Evaluation | None = CHAMPION) -> Check:
    (only,) = judge([parse_gate(gate)], candidate, champion).checks
    return only


def altered(**changes: object) -> Evaluation:
    """Return a champion with changed fields in the result of its first benchmark."""
    champion = evaluation({RELATION: 0.1})
    return dataclasses.replace(champion, results=[dataclasses.replace(champion.results[0], **changes)])


# Syntax


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("coco/text_to_image_r1 >= 0.35", Gate("coco/text_to_image_r1 >= 0.35", RECALL, least=0.35)),
        (" coco/text_to_image_r1>=.5 ", Gate("coco/text_to_image_r1>=.5", RECALL, least=0.5)),
        ("vg_relation/macro >= champion", Gate("vg_relation/macro >= champion", RELATION)),
        ("coco/text_to_image_r1 >= champion - 0.01",
         Gate("coco/text_to_image_r1 >= champion - 0.01", RECALL, margin=0.01)),
        ("vg_relation/macro  >=  champion-interval",
         Gate("vg_relation/macro >= champion-interval", RELATION, interval=True)),
    ],
)  # fmt: skip
def test_a_gate_is_a_score_and_its_lower_bound(text: str, gate: Gate) -> None:
    assert parse_gate(text) == gate


@pytest.mark.parametrize(
    "text",
    [
        "", "vg_relation/macro", "vg_relation >= 0.5", "vg_relation/macro > 0.5", "vg_relation/macro <= 0.5",
        "vg_relation/macro >= best", "vg_relation/macro >= champion + 0.1", "vg_relation/macro >= -0.5",
        "vg_relation/macro >= champion - ", "vg_relation/macro >= nan", "a/b >= 0.5 and c/d >= 0.5", "a/b >= 0.5 0.6",
    ],
)  # fmt: skip
def test_a_malformed_gate_is_an_error_of_the_config_that_shows_the_syntax(text: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.gates=.*BENCHMARK/SCORE >= BOUND.*champion") as raised:
        TrackingConfig(gates=(text,))
    assert "\n" not in str(raised.value)
    for percentage in ("vg_relation/macro >= 70", "coco/text_to_image_r1 >= champion - 1.5"):
        with pytest.raises(ConfigError, match="between 0 and 1, not percentages"):
            parse_gate(percentage)


# Judgement


@pytest.mark.parametrize(
    ("gate", "value", "bound", "holds"),
    [
        ("vg_relation/macro >= 0.6", 0.59, 0.60, False),
        ("vg_relation/macro >= champion", 0.6999, 0.70, False),
        ("coco/text_to_image_r1 >= champion - 0.01", 0.42, 0.42, True),
        ("coco/text_to_image_r1 >= champion - 0.01", 0.4199, 0.42, False),
        ("vg_relation/macro >= champion - interval", 0.68, 0.68, True),
        ("vg_relation/macro >= champion - interval", 0.6799, 0.68, False),
    ],
)
def test_a_gate_holds_from_its_bound_on(gate: str, value: float, bound: float, holds: bool) -> None:
    judged = check(gate, evaluation({parse_gate(gate).score: value}))
    assert judged.holds == holds
    assert judged.reason.startswith(f"{value:.4f}, {'at least' if holds else 'below'} {bound:.4f}")


def test_a_gate_tolerates_the_rounding_of_its_bound() -> None:
    assert 0.13 - 0.01 > 0.12
    gate = f"{RECALL} >= champion - 0.01"
    assert check(gate, evaluation({RECALL: 0.12}), evaluation({RECALL: 0.13})).holds


def test_all_gates_must_hold() -> None:
    gates = [parse_gate(f"{RELATION} >= champion"), parse_gate(f"{RECALL} >= champion - 0.01")]
    better = judge(gates, evaluation({RELATION: 0.75, RECALL: 0.425}), CHAMPION)
    forgetful = judge(gates, evaluation({RELATION: 0.75, RECALL: 0.30}), CHAMPION)
    assert (better.passed, [c.holds for c in better.checks]) == (True, [True, True])
    assert (forgetful.passed, [c.holds for c in forgetful.checks]) == (False, [True, False])
    assert not judge([], evaluation({}), None).passed


def test_the_first_version_is_judged_by_absolute_gates_only() -> None:
    first = evaluation({RELATION: 0.55})
    assert check(f"{RELATION} >= champion - interval", first, None).holds
    assert "no champion" in check(f"{RELATION} >= champion", first, None).reason
    assert not check(f"{RELATION} >= 0.6", first, None).holds
    assert not check(f"{RECALL} >= champion", first, None).holds


def test_a_score_that_the_candidate_lacks_fails_its_gate_and_suggests_a_similar_score() -> None:
    misspelt = check("vg_relation/makro >= champion", CHAMPION)
    assert not misspelt.holds
    assert misspelt.reason == "the candidate has no score vg_relation/makro; do you mean vg_relation/macro?"
    assert "no evaluation is recorded" in check(f"{RELATION} >= 0.5", None).reason
    assert not check(f"{RELATION} >= 0.5", None).holds
    for gate in (f"{RELATION} >= 0", f"{RELATION} >= champion"):
        assert not check(gate, evaluation({RELATION: math.nan})).holds


@pytest.mark.parametrize(
    ("champion", "message"),
    [
        (evaluation({RECALL: 0.4}), "the champion has no recorded vg_relation/macro"),
        (Evaluation("", {}, []), "the champion has no recorded vg_relation/macro"),
        (evaluation({RELATION: 0.1}, cases=6), r"different cases \(2 differ\)"),
        (altered(counts={"cases": 4, "images": 9}), "the same cases, but among 4 and 9 images"),
        (altered(kind="choice"), r"different kinds of benchmark \(vg-relation and choice\)"),
        (evaluation({RELATION: 0.1}, suite="large"), r"different suites \(small and large\)"),
        (evaluation({RELATION: math.nan}), "score is nan"),
    ],
)
def test_a_champion_that_was_measured_differently_fails_the_gate_with_the_remedy(
    champion: Evaluation, message: str
) -> None:
    judged = check(f"{RELATION} >= champion", evaluation({RELATION: 0.9}), champion)
    assert not judged.holds
    assert re.search(message, judged.reason)
    assert "sclip evaluate models:/NAME@champion" in judged.reason
    assert check(f"{RELATION} >= 0.5", evaluation({RELATION: 0.9}), champion).holds


def test_facts_that_do_not_affect_the_measurement_may_differ() -> None:
    later = dataclasses.replace(CHAMPION, facts=CHAMPION.facts | {"time": "later", "parser": "rules-9"})
    assert check(f"{RELATION} >= champion", later).holds
