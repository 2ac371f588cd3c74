"""Shares and their intervals: a bootstrap over images, or the exact interval if the bootstrap is degenerate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binomtest

from sclip.evaluate.interval import groups, share


def test_the_interval_of_independent_cases_is_binomial_and_deterministic_per_key() -> None:
    won = [number < 300 for number in range(1000)]
    _, low, high = first = share(won, range(1000), key="a")
    expected = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert (low, high) == pytest.approx((0.3 - expected, 0.3 + expected), abs=0.004)
    assert first == share(won, range(1000), key="a") != share(won, range(1000), key="b")


def test_cases_of_one_image_are_drawn_together() -> None:
    won = [number % 2 == 0 for number in range(100) for _ in range(20)]
    images = [number for number in range(100) for _ in range(20)]
    alike = share(won, images, key="a")
    apart = share(won, range(2000), key="a")
    assert alike[0] == apart[0] == 0.5
    assert alike[2] - alike[1] == pytest.approx((apart[2] - apart[1]) * 20**0.5, rel=0.2)


def test_the_mean_over_groups_is_computed_anew_in_each_draw() -> None:
    rng = np.random.default_rng(0)
    names = ["large"] * 900 + ["small"] * 100
    won = list(rng.random(900) < 0.5) + list(rng.random(100) < 0.9)
    value, low, high = share(won, range(1000), names, key="a")
    parts = np.mean(won[:900]), np.mean(won[900:])
    assert value == pytest.approx(np.mean(parts))
    variance = sum(p * (1 - p) / n for p, n in zip(parts, (900, 100), strict=True)) / 4
    assert high - low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.15)


ONE_IMAGE = (0.75, beta.ppf(0.025, 0.75, 1.25), beta.ppf(0.975, 1.75, 0.25))


@pytest.mark.parametrize(
    ("won", "images", "names", "expected"),
    [
        ([True, False, True], "aab", "xxy", (0.75, 0.5, 1.0)),  # a draw of one image alone has one group
        ([True, True, False, True], "aaaa", None, ONE_IMAGE),
        ([True] * 60, [*range(30)] * 2, None, (1.0, *binomtest(30, 30).proportion_ci())),
        ([False] * 60, [*range(30)] * 2, None, (0.0, *binomtest(0, 30).proportion_ci())),
    ],
)
def test_few_images_have_a_bootstrap_interval_or_the_exact_one_if_all_draws_are_equal(
    won: list[bool], images: list[object], names: str | None, expected: tuple[float, float, float]
) -> None:
    assert share(won, images, names, key="a") == pytest.approx(expected, abs=1e-12)


def test_groups_come_by_name_with_their_own_interval() -> None:
    cases = [("on", 0, True), ("", 1, True), ("under", 2, False), ("on", 3, False)]
    on, under = groups("made", cases, counted={"on"})
    assert (on.name, on.cases, on.correct, on.counted) == ("on", 2, 1, True)
    assert (under.name, under.cases, under.correct, under.counted) == ("under", 1, 0, False)
    assert (under.low, under.high) == (0, 0.975)
