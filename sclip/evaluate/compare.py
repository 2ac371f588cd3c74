"""Test which differences between the evaluations of several models are real.

The test is McNemar's exact test ("Note on the sampling error of the difference between correlated proportions
or percentages", Psychometrika 1947). It counts the cases that only one of two models won. If the models do not
differ, each such case is a fair coin toss.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from sclip.evaluate.result import Evaluation, EvaluationError, Result

__all__ = ["Comparison", "Difference", "compare", "differing", "paired_interval"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference on one benchmark between the headline scores of a model and of the first model."""

    benchmark: str
    score: str
    model: int
    """Index of this model in the comparison; the first model has index 0."""
    change: float
    """Score of this model minus the score of the first model."""
    only_first: int
    """Number of cases that the first model won and this model lost."""
    only_other: int
    """Number of cases that this model won and the first model lost."""
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Evaluations of several models on one suite, and their differences from the first."""

    evaluations: list[Evaluation]
    differences: list[Difference]

    def of(self, benchmark: str, model: int) -> Difference:
        """Return a model's difference from the first model. Raises KeyError for model 0 or an unknown benchmark."""
        return {(d.benchmark, d.model): d for d in self.differences}[benchmark, model]

    def adjusted(self) -> dict[tuple[str, int], float]:
        """Return the p-value of every (benchmark, model), adjusted for the number of comparisons.

        Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 1979.
        """
        # scipy lacks Holm's method; statsmodels has it, but takes 65 MB.
        ordered = sorted(self.differences, key=lambda difference: difference.p_value)
        adjusted, running_max = {}, 0.0
        for rank, difference in enumerate(ordered):
            running_max = max(running_max, min(1.0, (len(ordered) - rank) * difference.p_value))
            adjusted[difference.benchmark, difference.model] = running_max
        return adjusted


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Return the differences of every model from the first.

    Benchmarks that the first model lacks are ignored. Raises EvaluationError for fewer than two evaluations, or if a
    model lacks a benchmark of the first one, or answered other cases of it.
    """
    if len(evaluations) < 2:
        raise EvaluationError("a comparison needs two evaluations or more")
    first, *rest = evaluations
    differences = []
    for model, other in enumerate(rest, start=1):
        by_name = {result.name: result for result in other.results}
        for result in first.results:
            if result.name not in by_name:
                raise EvaluationError(
                    f"{first.model} was evaluated on {result.name}, but {other.model} was not; evaluate both on it"
                )
            differences.append(_difference(model, result, by_name[result.name], (first.model, other.model)))
    return Comparison([first, *rest], differences)


def _difference(model: int, first: Result, other: Result, names: tuple[str, str]) -> Difference:
    if why := differing(first, other):
        raise EvaluationError(
            f"{first.name}: {names[0]} and {names[1]} were tested on {why}; evaluate both on the same files"
        )
    only_first = sum(won and not other.won[case] for case, won in first.won.items())
    only_other = sum(won and not first.won[case] for case, won in other.won.items())
    discordant = only_first + only_other
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    score = first.headline
    change = other.scores[score].value - first.scores[score].value
    return Difference(first.name, score, model, change, only_first, only_other, p_value)


def differing(first: Result, other: Result) -> str:
    """Return in words how the cases of two results differ; "" means that they are the same."""
    if first.kind != other.kind:
        return f"different kinds of benchmark ({first.kind} and {other.kind})"
    if cases := first.won.keys() ^ other.won.keys():
        return f"different cases ({len(cases)} differ)"
    for name in ("images", "captions"):  # more candidates make a case harder
        counts = [result.counts.get(name, 0) for result in (first, other)]
        if counts[0] != counts[1]:
            return f"the same cases, but among {counts[0]:,} and {counts[1]:,} {name}"
    return "different captions" if first.digest and other.digest not in ("", first.digest) else ""


def paired_interval(first: Result, other: Result) -> tuple[float, float]:
    """Return the 95 % interval of `other`'s headline minus `first`'s; both must have answered the same cases.

    The half width is the root of s^2 + t^2 - 2 r s t, the formula for the standard deviation of a difference: s and t
    are the half widths of the two scores' intervals, and r is the correlation between the two models' wins.
    """
    a, b = first.scores[first.headline], other.scores[first.headline]
    wins = [float(won) for won in first.won.values()], [float(other.won[case]) for case in first.won]
    # r counts all cases alike, even if the headline is a mean over groups.
    r = statistics.correlation(*wins) if all(len(set(won)) == 2 for won in wins) else 0.0
    s, t = (a.high - a.low) / 2, (b.high - b.low) / 2
    half_width = max(0.0, s**2 + t**2 - 2 * r * s * t) ** 0.5
    return b.value - a.value - half_width, b.value - a.value + half_width
