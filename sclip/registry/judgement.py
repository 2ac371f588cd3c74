"""The judgement: gates and the evaluations of candidate and champion in, a decision with every figure out.

Plain values without MLflow, so that a report shows the same figures as the registry records.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sclip.config import Gate
from sclip.evaluate.result import Evaluation, Result, Score

_ROUNDING = 1e-9
"""0.43 - 0.01 is more than 0.42 in binary: who wrote one point means it."""
_REMEASURE = (
    "evaluate the champion with the candidate's suite (sclip evaluate models:/NAME@champion) and record that "
    "(sclip promote NAME@champion --evaluation FILE)"
)
SUITE = "suite"
"""Fact that identifies what was measured."""


@dataclass(frozen=True, slots=True)
class Check:
    """One gate, judged."""

    gate: str
    """As the user wrote it."""
    value: float | None
    """The candidate's score; None where it has none."""
    bound: float | None
    """The least that the gate lets through; None where there was nothing to compute it from."""
    champion: float | None
    """The champion's score; None where the gate does not ask for it, or there is no champion."""
    holds: bool
    reason: str
    """Why, in words and figures."""

    def line(self) -> str:
        """Return the check in one line, as it is recorded and printed."""
        return f"{'holds' if self.holds else 'fails'}: {self.gate}: {self.reason}"


@dataclass(frozen=True)
class Decision:
    """All gates of one candidate, judged."""

    passed: bool
    checks: list[Check]


def judge(gates: Sequence[Gate], candidate: Evaluation | None, champion: Evaluation | None) -> Decision:
    """Return which gates hold, and whether all do.

    Args:
        gates: at least one.
        candidate: what was measured of the new version; without it every gate fails.
        champion: what was measured of the champion, on the same cases. None: there is no champion yet, and gates
            that compare with it hold. `Evaluation` without results: there is one, of which nothing was recorded.
    """
    checks = [_check(gate, candidate, champion) for gate in gates]
    return Decision(bool(checks) and all(check.holds for check in checks), checks)


def _check(gate: Gate, candidate: Evaluation | None, champion: Evaluation | None) -> Check:
    def fails(reason: str) -> Check:
        return Check(gate.text, value, None, champion_value, False, reason)

    value = champion_value = None
    result = _result(candidate, gate.score)
    if candidate is None or result is None:
        return fails(f"the candidate has no score {gate.score}{_nearest(candidate, gate.score)}")
    value = candidate.score(gate.score).value
    if not math.isfinite(value):
        return fails(f"the candidate's score is {value}")
    if gate.least is not None:
        return _compared(gate, value, None)
    if champion is None:
        return Check(gate.text, value, None, None, True, f"{value:.4f}; there is no champion to compare with")
    champion_result = _result(champion, gate.score)
    if champion_result is None:
        return fails(f"nothing is recorded of the champion's {gate.score}: {_REMEASURE}")
    score = champion.score(gate.score)
    champion_value = score.value
    if not (math.isfinite(score.value) and math.isfinite(score.low)):
        return fails(f"the champion's score is {score.value} from {score.low}: {_REMEASURE}")
    if difference := _difference(result, champion_result):
        return fails(f"candidate and champion were asked {difference}: {_REMEASURE}")
    suites = [evaluation.facts.get(SUITE) for evaluation in (candidate, champion)]
    if suites[0] != suites[1]:
        names = " and ".join(suite or "unknown" for suite in suites)
        return fails(f"candidate and champion were measured on different suites ({names}): {_REMEASURE}")
    return _compared(gate, value, score)


def _compared(gate: Gate, value: float, champion: Score | None) -> Check:
    bound = gate.bound(champion.value, champion.low) if champion else gate.bound(math.nan, math.nan)
    holds = value >= bound - _ROUNDING
    reason = f"{value:.4f}, {'at least' if holds else 'below'} {bound:.4f}"
    if champion:
        reason += f"; champion {champion.value:.4f}" + (f" from {champion.low:.4f}" if gate.interval else "")
    return Check(gate.text, value, bound, champion.value if champion else None, holds, reason)


def _result(evaluation: Evaluation | None, score: str) -> Result | None:
    """Return the benchmark that a score "benchmark/score" is of, where it has that score."""
    for result in evaluation.results if evaluation else ():
        name, _, key = score.partition("/")
        if result.name == name and key in result.scores:
            return result
    return None


def _difference(candidate: Result, champion: Result) -> str:
    """Return in words how the cases of two results of one name differ; empty where they are the same."""
    if candidate.kind != champion.kind:
        return f"different benchmarks ({candidate.kind} and {champion.kind})"
    if cases := candidate.won.keys() ^ champion.won.keys():
        return f"different cases ({len(cases)} of them)"
    for name in ("images", "captions"):  # more to choose among makes the same case harder
        counts = [result.counts.get(name, 0) for result in (candidate, champion)]
        if counts[0] != counts[1]:
            return f"the same among {counts[0]:,} and {counts[1]:,} {name}"
    return ""


def _nearest(candidate: Evaluation | None, score: str) -> str:
    if candidate is None:
        return ": nothing is recorded of it; evaluate it and record that (sclip promote --evaluation FILE)"
    names = [f"{result.name}/{key}" for result in candidate.results for key in result.scores]
    near = difflib.get_close_matches(score, names, n=1)
    return f"; do you mean {near[0]}?" if near else f"; it has {', '.join(names) or 'none'}"
