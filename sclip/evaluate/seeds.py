"""A score of one recipe over several seeds in; its mean, interval and test against another recipe out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

__all__ = ["Cell", "p_value"]


@dataclass(frozen=True)
class Cell:
    """A score of one row of an ablation over its seeds."""

    values: list[float]
    published: str
    """Figure of others for the like; a dash where there is none."""
    p_value: float | None = None
    """Of a paired t-test against the reference, seed by seed; None where there is none to be had."""

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN without a value."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval by Student's t; None of fewer than two seeds, or where a value is no finite number."""
        count = len(self.values)
        if count < 2 or not all(map(math.isfinite, self.values)):
            return None
        reach = float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(self.values) / count**0.5
        return self.mean - reach, self.mean + reach

    @property
    def text(self) -> str:
        """Mean with its interval and the p-value; a dash without a value."""
        if not self.values:
            return "–"
        if not (interval := self.interval):
            return f"{self.mean:.3f}"
        tested = "" if self.p_value is None else f", p {self.p_value:.3f}"
        return f"{self.mean:.3f} ({interval[0]:.3f} to {interval[1]:.3f}){tested}"


def p_value(values: Sequence[float | None], others: Sequence[float | None]) -> float | None:
    """Return the p-value of a paired t-test; None where seeds are missing, or all differ by the same."""
    pairs = [(a, b) for a, b in zip(values, others, strict=True) if a is not None and b is not None]
    if len(pairs) < len(values) or len({round(a - b, 9) for a, b in pairs}) < 2:
        return None
    return float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue)
