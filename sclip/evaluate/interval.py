"""Won and lost cases in, their share with a 95 % interval out.

Cases of one image are not independent, so the bootstrap draws images, not cases: all cases of a drawn image count as
often as it was drawn. A mean over groups is computed anew in each draw, of the groups that it holds.
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
"""Picks of images in memory while draws are made."""


def scored(
    won: Iterable[bool],
    images: Sequence[Hashable],
    chance: float,
    groups: Sequence[str] | None = None,
    *,
    key: str,
) -> Score:
    """Return the share of the cases that were won as a score; arguments as of `share`."""
    return Score(*share(won, images, groups, key=key), chance)


def mean_score(
    won: Sequence[bool],
    images: Sequence[Hashable],
    groups: Sequence[str],
    chance: Sequence[float],
    of: Collection[str] | None = None,
    *,
    key: str,
) -> Score:
    """Return the share of the cases that were won or, where `of` names groups, the mean over these of each one's.

    Arguments as of `share`, with each case's chance.
    """
    kept = [at for at, group in enumerate(groups) if of is None or group in of]
    by_group: dict[str, list[float]] = defaultdict(list)
    for at in kept:
        by_group[groups[at] if of is not None else ""].append(chance[at])
    return scored(
        [won[at] for at in kept],
        [images[at] for at in kept],
        sum(sum(some) / len(some) for some in by_group.values()) / len(by_group),
        [groups[at] for at in kept] if of is not None else None,
        key=key,
    )


def groups(
    benchmark: str, cases: Iterable[tuple[str, Hashable, bool]], counted: Container[str] | None = None
) -> list[Group]:
    """Return the groups of cases (group, image, whether it was won) by name; "" is no group.

    `counted` holds those that the benchmark's mean takes in; None: all.
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
    """Return the share of the cases that were won, and the ends of its 95 % percentile interval.

    Where every case was won, or none, or where there is one image only, all draws are alike and a percentile says
    nothing; the interval is then Clopper and Pearson's exact one over as many trials as there are images.

    Args:
        won: of each case.
        images: of each case the image that it is about; cases of one image are drawn together.
        groups: of each case its group, for the mean over groups of each one's share. None: the share of all.
        key: what the draws are seeded with, for instance the score's name.
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
    if np.ptp(drawn.bootstrap_distribution) == 0:
        low, high = _exact(value, count)
    return value, low, high


def _numbered(names: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    """Return a number for each name, equal ones for equal names, and how many there are."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64), len(numbers)


def _means(picks: NDArray[np.int64], wins: csr_array, cases: csr_array) -> NDArray[np.float64]:
    """Return the mean over groups in each draw of images, [draws, images] to [draws].

    A group of which no case was drawn is no part of it.
    """
    draws, images = picks.shape
    numbered = (picks + images * np.arange(draws)[:, None]).ravel()
    counts = np.bincount(numbered, minlength=draws * images).reshape(draws, images)
    won, asked = counts @ wins, counts @ cases
    present = asked > 0
    shares = np.divide(won, asked, out=np.zeros_like(won), where=present)
    means: NDArray[np.float64] = shares.sum(axis=1) / present.sum(axis=1)
    return means


def _exact(value: float, trials: int) -> tuple[float, float]:
    """Return Clopper and Pearson's interval; by the beta distribution, for binomtest takes no fraction of a win."""
    wins = value * trials
    low = float(beta.ppf(_TAIL, wins, trials - wins + 1)) if wins > 0 else 0.0
    high = float(beta.ppf(1 - _TAIL, wins + 1, trials - wins)) if wins < trials else 1.0
    return low, high
