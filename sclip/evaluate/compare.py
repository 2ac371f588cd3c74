"""Evaluations of several models in, which of their differences are real out.

Two models that answered the same cases are compared on the cases that only one of them won (McNemar, "Note on the
sampling error of the difference between correlated proportions or percentages", Psychometrika 1947), in its exact form:
under no difference each such case is a fair coin. Two intervals that overlap say less than this.
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
    """The headline of one benchmark, of one model against the first."""

    benchmark: str
    score: str
    """Name of the headline in the benchmark's scores."""
    model: int
    """Index of the other model in the comparison; the one that it is compared with has index 0."""
    change: float
    """Score of this model less that of the first."""
    only_first: int
    """Cases that the first model won and this one did not."""
    only_other: int
    """Cases that this model won and the first did not."""
    p_value: float
    """Two-sided, exact."""


@dataclass(frozen=True)
class Comparison:
    """Several models on one suite."""

    evaluations: list[Evaluation]
    differences: list[Difference]

    def of(self, benchmark: str, model: int) -> Difference:
        """Return the difference of a model from the first on a benchmark; KeyError where there is none."""
        return {(d.benchmark, d.model): d for d in self.differences}[benchmark, model]

    def adjusted(self) -> dict[tuple[str, int], float]:
        """Return every (benchmark, model)'s p-value adjusted for the number of comparisons.

        By Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979: the
        chance that any of the differences that are called real is none stays below the level. scipy has no Holm;
        statsmodels, which has, is 65 MB for these five lines.
        """
        ordered = sorted(self.differences, key=lambda difference: difference.p_value)
        adjusted, least = {}, 0.0
        for at, difference in enumerate(ordered):
            least = max(least, min(1.0, (len(ordered) - at) * difference.p_value))
            adjusted[difference.benchmark, difference.model] = least
        return adjusted


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Return every model's differences from the first.

    Raises EvaluationError for fewer than two, or where two models did not answer the same cases of a benchmark.
    """
    if len(evaluations) < 2:
        raise EvaluationError("a comparison needs two evaluations or more")
    first, *others = evaluations
    differences = []
    for at, other in enumerate(others, start=1):
        known = {result.name: result for result in other.results}
        for result in first.results:
            if result.name not in known:
                raise EvaluationError(f"{other.model} was not evaluated on {result.name}, {first.model} was")
            differences.append(_difference(at, result, known[result.name], (first.model, other.model)))
    return Comparison([first, *others], differences)


def _difference(at: int, first: Result, other: Result, models: tuple[str, str]) -> Difference:
    if why := differing(first, other):
        raise EvaluationError(
            f"{first.name}: {models[0]} and {models[1]} were asked {why}; evaluate both on the same files"
        )
    only_first = sum(won and not other.won[case] for case, won in first.won.items())
    only_other = sum(won and not first.won[case] for case, won in other.won.items())
    discordant = only_first + only_other
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    score = first.headline
    change = other.scores[score].value - first.scores[score].value
    return Difference(first.name, score, at, change, only_first, only_other, p_value)


def differing(first: Result, other: Result) -> str:
    """Describe how the cases of two results differ; empty if they do not."""
    if first.kind != other.kind:
        return f"different benchmarks ({first.kind} and {other.kind})"
    if cases := first.won.keys() ^ other.won.keys():
        return f"different cases ({len(cases)} of them)"
    for name in ("images", "captions"):  # the more there are to choose from, the harder is the same case
        counts = [result.counts.get(name, 0) for result in (first, other)]
        if counts[0] != counts[1]:
            return f"the same among {counts[0]:,} and {counts[1]:,} {name}"
    return "other captions" if first.digest and other.digest not in ("", first.digest) else ""


def paired_interval(first: Result, other: Result) -> tuple[float, float]:
    """Return the 95 % interval of the headline of `other` less that of `first`, which answered the same cases.

    The variance of a difference is s^2 + t^2 - 2 r s t. The bootstrap intervals of the two scores stand for s and t,
    the correlation of the cases that the models won for r. Of a share of independent cases this is Wald's interval; of
    a mean over groups, r is that of the cases of all groups together.
    """
    one, two = first.scores[first.headline], other.scores[first.headline]
    wins = [float(won) for won in first.won.values()], [float(other.won[case]) for case in first.won]
    r = statistics.correlation(*wins) if all(len(set(won)) == 2 for won in wins) else 0.0
    s, t = (one.high - one.low) / 2, (two.high - two.low) / 2
    reach = max(0.0, s**2 + t**2 - 2 * r * s * t) ** 0.5
    return two.value - one.value - reach, two.value - one.value + reach
