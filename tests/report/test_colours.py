"""The colours of eight models are told apart by all eyes, on the light page and on the dark one."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import sclip.report

TEMPLATES = Path(sclip.report.__file__).parent / "templates"
Colour = NDArray[np.float64]

EYES = {
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "no green": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "no blue": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
"""Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009."""
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> Colour:
    digits = colour * 2 if len(colour) == 3 else colour
    share = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(colour: Colour) -> Colour:
    xyz = TO_XYZ @ np.clip(colour, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def palette(dark: bool) -> tuple[list[Colour], Colour]:
    """Return the models' colours and that of a card."""
    found = {}
    for name, pattern in (("page.css", r"--(card): #(\w+);"), ("score_bars.css", r"--(m\d): #(\w+);")):
        light_part, dark_part = (TEMPLATES / name).read_text().split("@media (prefers-color-scheme: dark)")
        found |= dict(re.findall(pattern, dark_part if dark else light_part))
    return [linear(found[f"m{n}"]) for n in range(8)], linear(found["card"])


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_any_two_colours_are_well_apart(dark: bool, eyes: str) -> None:
    seen = [lab(np.array(EYES[eyes]) @ colour) for colour in palette(dark)[0]]
    assert (
        min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) > 20
    )  # CIE76; 2.3 is seen


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_colour_stands_out_from_the_card(dark: bool) -> None:
    colours, card = palette(dark)
    for colour in colours:
        low, high = sorted(float(TO_XYZ[1] @ each) for each in (colour, card))
        assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 2.2, 1.4.11
