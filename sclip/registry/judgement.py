"""Judge a candidate against the champion by gates, without MLflow."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sclip.config import Gate
from sclip.evaluate.compare import differing
from sclip.evaluate.result import Evaluation, Result

_ROUNDING = 1e-9
"""Tolerance for rounding. Python computes the bound 0.13 - 0.01 as 0.12000000000000001, so 0.12 would fail."""
_REMEASURE = (
    "evaluate the champion with the candidate's suite (sclip evaluate models:/NAME@champion) and record the "
    "result (sclip promote NAME@champion --evaluation FILE)"
)


@dataclass(frozen=True, slots=True)
class Check:
    """Verdict on one gate."""

    gate: str
    """The gate as the user wrote it."""
    holds: bool
    reason: str

    def line(self) -> str:
        """Return the check as one line, to record and to print."""
        return f"{'holds' if self.holds else 'fails'}: {self.gate}: {self.reason}"


@dataclass(frozen=True)
class Decision:
    """Verdicts on all gates of one candidate."""

    passed: bool
    checks: list[Check]


def judge(gates: Sequence[Gate], candidate: Evaluation | None, champion: Evaluation | None) -> Decision:
    """Return which gates hold, and whether all do.

    Args:
        gates: at least one.
        candidate: evaluation of the new version. None means that it was not evaluated, so every gate fails.
        champion: evaluation of the champion. None means that there is no champion, so gates that compare with it hold.
            If the evaluation has no results, these gates fail.
    """
    checks = [Check(gate.text, *_check(gate, candidate, champion)) for gate in gates]
    return Decision(bool(checks) and all(check.holds for check in checks), checks)


def _check(gate: Gate, candidate: Evaluation | None, champion: Evaluation | None) -> tuple[bool, str]:
    result, key = _result(candidate, gate.score), gate.score.partition("/")[2]
    if candidate is None or result is None:
        return False, f"the candidate has no score {gate.score}{_nearest(candidate, gate.score)}"
    value = result.scores[key].value
    if not math.isfinite(value):
        return False, f"the candidate's score is {value}"
    if gate.least is not None:
        return _compare(value, gate.least)
    if champion is None:
        return True, f"{value:.4f}; there is no champion to compare with"
    champion_result = _result(champion, gate.score)
    if champion_result is None:
        return False, f"the champion has no recorded {gate.score}: {_REMEASURE}"
    score = champion_result.scores[key]
    if not (math.isfinite(score.value) and math.isfinite(score.low)):
        return False, f"the champion's score is {score.value}, its lower end {score.low}: {_REMEASURE}"
    if difference := differing(result, champion_result):
        return False, f"candidate and champion were tested on {difference}: {_REMEASURE}"
    suites = [evaluation.facts.get("suite", "unknown") for evaluation in (candidate, champion)]
    if suites[0] != suites[1]:
        names = " and ".join(suites)
        return False, f"candidate and champion were measured on different suites ({names}): {_REMEASURE}"
    holds, reason = _compare(value, gate.bound(score.value, score.low))
    return holds, f"{reason}; champion {score.value:.4f}" + f" (lower end {score.low:.4f})" * gate.interval


def _compare(value: float, bound: float) -> tuple[bool, str]:
    holds = value >= bound - _ROUNDING
    return holds, f"{value:.4f}, {'at least' if holds else 'below'} {bound:.4f}"


def _result(evaluation: Evaluation | None, score: str) -> Result | None:
    name, _, key = score.partition("/")
    results = evaluation.results if evaluation else []
    return next((result for result in results if result.name == name and key in result.scores), None)


def _nearest(candidate: Evaluation | None, score: str) -> str:
    if candidate is None:
        return (
            ": no evaluation is recorded; evaluate it and record the result (sclip promote --evaluation FILE)"
        )
    names = [f"{result.name}/{key}" for result in candidate.results for key in result.scores]
    near = difflib.get_close_matches(score, names, n=1)
    return f"; do you mean {near[0]}?" if near else f"; it has {', '.join(names) or 'none'}"
