"""Compute the share of cases that were won, with a 95 % interval.

Cases of one image are not independent. So the bootstrap draws images, not cases: if an image is drawn twice, each
of its cases counts twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import beta, bootstrap

from sclip.evaluate.result import Group, Score
from sclip.seeding import digest64

__all__ = ["groups", "mean_score", "scored", "share"]

_DRAWS = 1000
_TAIL = 0.025
_NUMBERS_AT_A_TIME = 5_000_000
"""Maximum number of image indices that the bootstrap draws at a time."""


def scored(
    won: Iterable[bool],
    images: Sequence[Hashable],
    chance: float,
    groups: Sequence[str] | None = None,
    *,
    key: str,
) -> Score:
    """Return the share of won cases as a `Score` with this chance level. Other arguments as in `share`."""
    return Score(*share(won, images, groups, key=key), chance)


def mean_score(
    won: Sequence[bool],
    images: Sequence[Hashable],
    groups: Sequence[str],
    chance: Sequence[float],
    subset: Collection[str] | None = None,
    *,
    key: str,
) -> Score:
    """Return the share of won cases as a `Score`; with a `subset` of the groups, the mean of these groups' shares.

    `chance`: for each case, the probability that a guess wins it. Other arguments as in `share`.
    """
    kept = [index for index, group in enumerate(groups) if subset is None or group in subset]
    by_group: dict[str, list[float]] = defaultdict(list)
    for index in kept:
        by_group[groups[index] if subset is not None else ""].append(chance[index])
    return scored(
        [won[index] for index in kept],
        [images[index] for index in kept],
        sum(sum(chances) / len(chances) for chances in by_group.values()) / len(by_group),
        [groups[index] for index in kept] if subset is not None else None,
        key=key,
    )


def groups(
    benchmark: str, cases: Iterable[tuple[str, Hashable, bool]], counted: Container[str] | None = None
) -> list[Group]:
    """Return the figures of each group, sorted by name. A case is (group, image, is won); "" means no group.

    `counted`: the groups that enter the benchmark's mean; None means all.
    """
    members: dict[str, list[tuple[Hashable, bool]]] = defaultdict(list)
    for group, image, won in cases:
        if group:
            members[group].append((image, won))
    rows = []
    for group, pairs in sorted(members.items()):
        images, wins = zip(*pairs, strict=True)
        _, low, high = share(wins, images, key=f"{benchmark}/{group}")
        rows.append(Group(group, len(wins), sum(wins), low, high, counted is None or group in counted))
    return rows


def share(
    won: Iterable[bool], images: Sequence[Hashable], groups: Sequence[str] | None = None, *, key: str
) -> tuple[float, float, float]:
    """Return the share of won cases, and the two ends of its 95 % interval.

    Args:
        won: whether each case was won.
        images: the image of each case; cases of one image are drawn together.
        groups: the group of each case: the share is then the mean of the groups' shares. None means one group.
        key: seed of the draws, for instance the name of the score.
    """
    wins = np.fromiter(won, dtype=np.float64)
    rows, count = _numbered(images)
    columns, width = _numbered(groups) if groups is not None else (np.zeros_like(rows), 1)
    won_cases = csr_array((wins, (rows, columns)), shape=(count, width))
    cases = csr_array((np.ones_like(wins), (rows, columns)), shape=(count, width))
    value = float((won_cases.sum(axis=0) / cases.sum(axis=0)).mean())
    if count == 1:
        return value, *_exact(value, count)
    drawn = bootstrap(
        (np.arange(count),), lambda picks, axis: _means(picks, won_cases, cases), vectorized=True,
        n_resamples=_DRAWS, batch=max(1, _NUMBERS_AT_A_TIME // count), method="percentile",
        rng=np.random.default_rng(digest64("bootstrap", 0, 0, key)),
    )  # fmt: skip
    low, high = map(float, drawn.confidence_interval)
    if np.ptp(drawn.bootstrap_distribution) == 0:  # for instance, all cases were won
        low, high = _exact(value, count)
    return value, low, high


def _numbered(names: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64), len(numbers)


def _means(picks: NDArray[np.int64], wins: csr_array, cases: csr_array) -> NDArray[np.float64]:
    # picks [draws, images] holds indices of images; wins and cases are [images, groups].
    draws, images = picks.shape
    numbered = (picks + images * np.arange(draws)[:, None]).ravel()
    counts = np.bincount(numbered, minlength=draws * images).reshape(draws, images)
    won, counted = counts @ wins, counts @ cases
    present = counted > 0  # a draw may lack all images of a group
    shares = np.divide(won, counted, out=np.zeros_like(won), where=present)
    means: NDArray[np.float64] = shares.sum(axis=1) / present.sum(axis=1)
    return means


def _exact(value: float, trials: int) -> tuple[float, float]:
    # Clopper and Pearson's interval. scipy's binomtest accepts only a whole number of wins.
    wins = value * trials
    low = float(beta.ppf(_TAIL, wins, trials - wins + 1)) if wins > 0 else 0.0
    high = float(beta.ppf(1 - _TAIL, wins + 1, trials - wins)) if wins < trials else 1.0
    return low, high
