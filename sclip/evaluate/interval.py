"""Won and lost cases in, their share with a 95 % interval out.

Cases of one image are not independent, so the bootstrap draws images, not cases: all cases of a drawn image count as
often as it was drawn. A mean over groups is computed anew in each draw, of the groups that it holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import beta

from sclip.evaluate.result import Group, Score
from sclip.seeding import digest64

__all__ = ["DRAWS", "groups", "scored", "share"]

DRAWS = 1000
_TAIL = 0.025
_NUMBERS_AT_A_TIME = 5_000_000


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


def groups(
    benchmark: str, cases: Iterable[tuple[str, Hashable, bool]], counted: Container[str] | None = None
) -> list[Group]:
    """Return the groups of cases (group, image, whether it was won) by name; "" is no group.

    `counted` holds those that the benchmark's mean takes in; None: all.
    """
    found: dict[str, list[tuple[Hashable, bool]]] = defaultdict(list)
    for group, image, won in cases:
        if group:
            found[group].append((image, won))
    rows = []
    for group, some in sorted(found.items()):
        wins = [won for _, won in some]
        _, low, high = share(wins, [image for image, _ in some], key=f"{benchmark}/{group}")
        rows.append(Group(group, len(some), sum(wins), low, high, counted is None or group in counted))
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
    of_images = csr_array((wins, (rows, columns)), shape=(count, width))
    cases = csr_array((np.ones_like(wins), (rows, columns)), shape=(count, width))
    value = float((of_images.sum(axis=0) / cases.sum(axis=0)).mean())
    rng = np.random.default_rng(digest64("bootstrap", 0, 0, key))
    drawn = np.concatenate([
        _means(_counts(rng, some, count), of_images, cases) for some in _portions(count)
    ])  # fmt: skip
    low, high = (float(end) for end in np.quantile(drawn, (_TAIL, 1 - _TAIL)))
    if drawn.min() == drawn.max():
        low, high = _exact(value, count)
    return value, low, high


def _numbered(names: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    """Return a number for each name, equal ones for equal names, and how many there are."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64), len(numbers)


def _portions(images: int) -> Iterable[int]:
    """Yield how many draws are made at a time, so that a few million numbers are in memory."""
    at_a_time = max(1, min(DRAWS, _NUMBERS_AT_A_TIME // max(1, images)))
    return [min(at_a_time, DRAWS - start) for start in range(0, DRAWS, at_a_time)]


def _counts(rng: np.random.Generator, draws: int, images: int) -> NDArray[np.float64]:
    """Return how often each image is drawn, [draws, images]: a multinomial, drawn as what it counts."""
    picks = rng.integers(0, images, (draws, images)) + images * np.arange(draws)[:, None]
    return np.bincount(picks.ravel(), minlength=draws * images).reshape(draws, images).astype(np.float64)


def _means(counts: NDArray[np.float64], wins: csr_array, cases: csr_array) -> NDArray[np.float64]:
    """Return the mean over groups in each draw, [draws]; a group of which no case was drawn is no part of it."""
    won, asked = counts @ wins, counts @ cases
    present = asked > 0
    shares = np.divide(won, asked, out=np.zeros_like(won), where=present)
    found: NDArray[np.float64] = shares.sum(axis=1) / present.sum(axis=1)
    return found


def _exact(value: float, trials: int) -> tuple[float, float]:
    wins = value * trials
    low = float(beta.ppf(_TAIL, wins, trials - wins + 1)) if wins > 0 else 0.0
    high = float(beta.ppf(1 - _TAIL, wins + 1, trials - wins)) if wins < trials else 1.0
    return low, high
