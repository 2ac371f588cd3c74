"""Summarize a recipe's score over several seeds: mean, interval, and test against another recipe."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

__all__ = ["Cell", "p_value"]


@dataclass(frozen=True)
class Cell:
    """One score of a recipe (a row of the ablation table), with a value for each seed."""

    values: list[float]
    published: str
    """Score that others published for a comparable model; a dash if there is none."""
    p_value: float | None = None
    """p-value of a t-test against the reference recipe, paired by seed."""

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN without values."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval by Student's t; None for fewer than two seeds, or if a value is not finite."""
        count = len(self.values)
        if count < 2 or not all(map(math.isfinite, self.values)):
            return None
        half_width = float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(self.values) / count**0.5
        return self.mean - half_width, self.mean + half_width

    @property
    def text(self) -> str:
        """Mean with its interval and the p-value; a dash without values."""
        if not self.values:
            return "–"
        if not (interval := self.interval):
            return f"{self.mean:.3f}"
        suffix = "" if self.p_value is None else f", p {self.p_value:.3f}"
        return f"{self.mean:.3f} ({interval[0]:.3f} to {interval[1]:.3f}){suffix}"


def p_value(values: Sequence[float | None], reference: Sequence[float | None]) -> float | None:
    """Return the p-value of a paired t-test; None if a value is missing or all pairs have the same difference."""
    pairs = [(a, b) for a, b in zip(values, reference, strict=True) if a is not None and b is not None]
    if len(pairs) < len(values) or len({round(a - b, 9) for a, b in pairs}) < 2:
        return None
    return float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue)
